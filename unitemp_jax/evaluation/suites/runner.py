"""Runs suites, keeps each one's results, and joins them into one table.

A suite is finished when `OUT/SUITE.json` exists. It is kept under the hash of
all that decides it, so that an interrupted evaluation continues, and numbers
of two models never end up in one table.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import unitemp_jax
from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics.results import Result, ResultTable
from unitemp_jax.evaluation.suites import bench as suite_bench
from unitemp_jax.evaluation.suites import (
  ceiling,
  diversity,
  ends,
  flicker,
  keyframes,
  long,
  loops,
  orders,
  transitions,
  vae,
)
from unitemp_jax.evaluation.suites.bench import Bench, Section, Settings
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.write import write_image


@dataclasses.dataclass(frozen=True)
class Suite:
  """Measurements that are made together.

  Attributes:
    run: makes their tables.
    work: share of the time that all take, for the time left.
    about: what they ask.
  """

  run: Callable[[Bench], list[Section]]
  work: int
  about: str


SUITES = {
  'vae': Suite(vae.run, 2, 'what the VAE loses of held-out clips'),
  'teacher': Suite(
    orders.run_teacher, 12, 'is the digit and its colour read as captioned'
  ),
  'orders': Suite(
    orders.run_orders,
    10,
    'the same per temporal order; direction of time; motion',
  ),
  'flicker': Suite(
    flicker.run,
    14,
    'seams between blocks, per order and way to decode (and a picture)',
  ),
  'ceiling': Suite(
    ceiling.run,
    4,
    'seams of real latents in windows with 0 to 6 true past latents',
  ),
  'inbetween': Suite(
    ends.run_inbetween,
    3,
    'given frames, joins, and the interior against blends',
  ),
  'loop': Suite(ends.run_loop, 1, 'does the end meet the start'),
  'diversity': Suite(
    diversity.run, 1, 'do digits of one caption differ in handwriting'
  ),
  'loops': Suite(loops.run, 9, 'loops of two lengths; can their seam be told'),
  'transitions': Suite(
    transitions.run, 3, 'one shot between two clips, against cross-fade and cut'
  ),
  'keyframes': Suite(
    keyframes.run_keyframes, 4, 'given frames in the middle; a span made anew'
  ),
  'extend': Suite(
    keyframes.run_extend,
    4,
    'a clip extended into the past, the future, and both',
  ),
  'long': Suite(
    long.run_long,
    20,
    'drift of long videos, with and without sinks, both directions',
  ),
  'schedule': Suite(
    long.run_schedule, 9, 'does the video follow a prompt that switches'
  ),
}
METRICS, TABLES = 'metrics.json', 'metrics.md'
# Names of an earlier version, for what users have and type.
_FORMER = {'variety': 'diversity', 'judges': 'classifiers'}


def make_key(folder: Path, settings: Settings) -> dict[str, Any]:
  """All that decides the numbers: model, classifiers, clips, seed, version.

  Raises:
    UserError: `folder` holds no whole model, or one that cannot be measured.
  """
  card = model_folder.read_card(folder)
  if card.height != card.width:
    raise UserError(
      f'{folder} makes {card.height}x{card.width} pixels, but the held-out '
      'clips are square; evaluate a model of square videos.'
    )
  teacher = folder / 'teacher.safetensors'
  if not teacher.is_file():
    raise UserError(f'{teacher} is missing; export the model again.')
  return {
    'model': model_folder.fingerprint(folder),
    'teacher': files.file_sha256(teacher)[:16],
    'classifiers': files.file_sha256(suite_bench.DIGITS, suite_bench.ARROW)[
      :16
    ],
    'num_clips': settings.num_clips,
    'seed': settings.seed,
    'version': unitemp_jax.__version__,
  }


def current_name(suite: str) -> str:
  """The name of a suite, which may be given by a former one."""
  return _FORMER.get(suite, suite)


def finished(out: Path, key: dict[str, Any]) -> dict[str, list[Section]]:
  """Reads the suites that are there already, in the order of `SUITES`.

  Raises:
    UserError: one belongs to another model or other settings, or is damaged.
  """
  if out.exists() and not out.is_dir():
    raise UserError(f'--out={out} is a file; choose a folder.')
  done = {}
  for name in SUITES:
    names = [name, *(old for old, new in _FORMER.items() if new == name)]
    paths = [out / f'{known}.json' for known in names]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
      continue
    mend = 'delete it or choose another --out'
    stored = files.read_json(
      path, 'a finished suite', mend, keys=('key', 'sections')
    )
    try:
      theirs = {_FORMER.get(k, k): v for k, v in stored['key'].items()}
      sections = _sections(stored['sections'])
    except (KeyError, TypeError, AttributeError) as error:
      raise UserError(
        f'{path} is not a finished suite ({error}); delete it or choose '
        'another --out.'
      ) from error
    if theirs != key:
      other = sorted(k for k in key if theirs.get(k) != key[k])
      raise UserError(
        f'{path} was measured with another {" and ".join(other)}; choose '
        'another --out or delete it.'
      )
    done[name] = sections
  return done


def run(
  folder: Path,
  out: Path,
  names: Sequence[str],
  settings: Settings,
  report: Callable[[str], None] = print,
) -> ResultTable:
  """Runs the suites that are not finished and writes the tables of all.

  Args:
    folder: of the model.
    out: folder for one file per suite, metrics.json, metrics.md and pictures.
    names: which suites, of `SUITES`.
    settings: how much to measure.
    report: is given lines about the progress.

  Returns:
    The rows of every suite in `out`, each metric of a group once.

  Raises:
    UserError: a bad model, or `out` belongs to other measurements.
  """
  key = make_key(folder, settings)
  done = finished(out, key)
  todo = [name for name in SUITES if name in names and name not in done]
  for name in names:
    if name in done:
      report(f'{name}: there already')
  if todo:
    bench = Bench(folder, settings, report)
    out.mkdir(parents=True, exist_ok=True)
    began, work = time.monotonic(), 0
    for name in todo:
      report(f'{name} ...')
      done[name] = SUITES[name].run(bench)
      for picture, pixels in bench.pictures.items():
        write_image(out / picture, pixels)
      _write_suite(out / f'{name}.json', key, done[name])
      work += SUITES[name].work
      left = sum(SUITES[n].work for n in todo) - work
      seconds = (time.monotonic() - began) / work * left
      report(f'{name}: done, about {seconds:.0f} s left in all')
  sections = [section for name in SUITES for section in done.get(name, [])]
  table = join(sections)
  table.to_json(out / METRICS)
  files.write(out / TABLES, to_markdown(sections))
  return table


def join(sections: Sequence[Section]) -> ResultTable:
  """All rows; what a suite repeats of another to compare with is kept once."""
  rows: dict[tuple[str, str], Result] = {}
  for section in sections:
    for row in section.rows:
      rows.setdefault((row.metric, row.group), row)
  return ResultTable(tuple(rows.values()))


def to_markdown(sections: Sequence[Section]) -> str:
  """Tables, one per section or more, and how each number is obtained."""
  hows: dict[str, list[str]] = {}
  parts = []
  for section in sections:
    for row in section.rows:
      names = hows.setdefault(row.how, [])
      if row.metric not in names:
        names.append(row.metric)
    counts = sorted({row.n for row in section.rows})
    parts.append(f'## {section.title}\n')
    parts.append(ResultTable(section.rows).to_grid())
    parts.append(
      f'n = {", ".join(map(str, counts))} clips; 95 % intervals by bootstrap '
      'over clips.\n'
    )
  # What all have in common, such as the model, is said once.
  ends = {how.rpartition('; ')[2] for how in hows}
  shared = ends.pop() if len(ends) == 1 < len(hows) else ''
  parts.append('## How the numbers are defined\n')
  if shared:
    parts.append(f'All of them: {shared}.\n')
  parts.append(
    ''.join(
      f'- *{"*; *".join(names)}*: {how.removesuffix(f"; {shared}")}\n'
      for how, names in hows.items()
    )
  )
  return '\n'.join(parts)


def _sections(stored: list[dict]) -> list[Section]:
  return [
    Section(part['title'], tuple(Result(**row) for row in part['rows']))
    for part in stored
  ]


def _write_suite(path: Path, key: dict, sections: list[Section]) -> None:
  stored = [dataclasses.asdict(section) for section in sections]
  files.write_json(path, {'key': key, 'sections': stored})
