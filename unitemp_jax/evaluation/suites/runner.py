"""Runs suites, keeps each one's results, and joins them into one table.

A suite is finished when `OUT/SUITE.json` exists. It is kept under the hash of
all that decides it, so that an interrupted evaluation continues, and numbers
of two models never end up in one table.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import unitemp_jax
from unitemp_jax import files, progress
from unitemp_jax.data.typed_json import from_json
from unitemp_jax.errors import UserError, foreign
from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.metrics.results import ResultTable, Section
from unitemp_jax.evaluation.suites import bench as suite_bench
from unitemp_jax.evaluation.suites import (
  ceiling,
  flicker,
  given,
  long,
  loops,
  orders,
  power,
)
from unitemp_jax.evaluation.suites.bench import Bench, Settings
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.write import write_image


class Suite(NamedTuple):
  """Measurements that are made together: their tables, and what they ask."""

  run: Callable[[Bench], list[Section]]
  about: str


SUITES = {
  'vae': Suite(orders.run_vae, 'what the VAE loses of held-out clips'),
  'teacher': Suite(
    orders.run_teacher, 'is the digit and its colour read as captioned'
  ),
  'orders': Suite(
    orders.run_orders, 'the same per temporal order; direction of time; motion'
  ),
  'power': Suite(power.run, 'which measures can tell a better model at all'),
  'flicker': Suite(
    flicker.run,
    'seams between blocks, per order and way to decode (and a picture)',
  ),
  'ceiling': Suite(
    ceiling.run,
    'seams of real latents in windows with 0 to 6 true past latents',
  ),
  'inbetween': Suite(
    given.run_inbetween, 'given frames, joins, and the interior against blends'
  ),
  'loop': Suite(loops.run_loop, 'does the end meet the start'),
  'diversity': Suite(
    orders.run_diversity, 'do digits of one caption differ in handwriting'
  ),
  'loops': Suite(
    loops.run_loops, 'loops of two lengths; can their seam be told'
  ),
  'transitions': Suite(
    given.run_transitions,
    'one shot between two clips, against cross-fade and cut',
  ),
  'keyframes': Suite(
    given.run_keyframes, 'given frames in the middle; a span made anew'
  ),
  'extend': Suite(
    given.run_extend, 'a clip extended into the past, the future, and both'
  ),
  'long': Suite(
    long.run_long,
    'drift of long videos, with and without sinks, both directions',
  ),
  'schedule': Suite(
    long.run_schedule, 'does the video follow a prompt that switches'
  ),
}
_NEED_TEACHER = ('teacher', 'orders', 'diversity')
# Names of an earlier version, for what users have and type.
_FORMER = {'variety': 'diversity', 'judges': 'classifiers'}


@dataclasses.dataclass(frozen=True)
class Measured:
  """What is measured."""

  folder: Path  # of the model
  settings: Settings  # how much to measure
  teacher: Path | None = None  # weights in place of the folder's, or None
  # weights that the student's distillation began with, or None
  initial: Path | None = None

  def key(self, names: Sequence[str]) -> dict[str, Any]:
    """All that decides the numbers: model, classifiers, clips, seed, version.

    UserError if `folder` holds no whole model, or one that cannot be measured
    by the suites of these names.
    """
    folder, settings = self.folder, self.settings
    card = model_folder.read_card(folder)
    if card.height != card.width:
      raise UserError(
        f'{folder} makes {card.height}x{card.width} pixels, but the held-out '
        'clips are square; evaluate a model of square videos.'
      )
    teacher = self.teacher or folder / 'teacher.safetensors'
    needed = [name for name in names if name in _NEED_TEACHER]
    for path in (self.teacher, self.initial):
      if path is not None and not path.is_file():
        raise files.no_file(path)
    if needed and not teacher.is_file():
      raise UserError(
        f'{teacher} is missing; give the teacher of the model as --teacher, '
        f'or leave out {", ".join(needed)} with --only.'
      )
    key = {
      'model': model_folder.fingerprint(folder),
      'teacher': _hash(teacher) if teacher.is_file() else '',
      'classifiers': _hash(suite_bench.DIGITS, suite_bench.ARROW),
      'num_clips': settings.num_clips,
      'seed': settings.seed,
      'version': unitemp_jax.__version__,
    }
    return key | ({'initial': _hash(self.initial)} if self.initial else {})


def _hash(*paths: Path) -> str:
  return files.file_sha256(*paths)[:16]


def current_name(suite: str) -> str:
  """The name of a suite, which may be given by a former one."""
  return _FORMER.get(suite, suite)


def finished(out: Path, key: dict[str, Any]) -> dict[str, list[Section]]:
  """Reads the suites that are there already, in the order of `SUITES`.

  UserError if one belongs to another model or other settings, or is damaged, or
  a table was edited.
  """
  if out.exists() and not out.is_dir():
    raise UserError(f'--out={out} is a file; choose a folder.')
  files.check_unchanged(out / files.HASHES)
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
      sections = from_json(list[Section], stored['sections'])
    except (AttributeError, ValueError) as error:
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
  for path in (
    out / n for n in (results.METRICS, results.TABLES, flicker.PICTURE)
  ):
    if not done and os.path.lexists(path):
      raise foreign(path, 'not of this command')
  return done


def run(
  what: Measured,
  out: Path,
  names: Sequence[str],
  report: Callable[[str], None] = print,
) -> ResultTable:
  """Runs the suites that are not finished and writes the tables of all.

  Args:
    what: the model.
    out: folder for one file per suite, metrics.json, metrics.md and pictures.
    names: which suites, of `SUITES`.
    report: is given lines about the progress.

  Returns:
    The rows of every suite in `out`, each metric of a group once.

  Raises:
    UserError: a bad model, or `out` belongs to other measurements.
  """
  key = what.key(names)
  done = finished(out, key)
  todo = [name for name in SUITES if name in names and name not in done]
  for name in names:
    if name in done:
      report(f'{name}: there already')
  if todo:
    bench = Bench.load(what.folder, what.settings, what.teacher, what.initial)
    out.mkdir(parents=True, exist_ok=True)
  for name in progress.track(todo, 'suite'):
    report(f'{name} ...')
    done[name] = SUITES[name].run(bench)
    for picture, pixels in bench.pictures.items():
      write_image(out / picture, pixels)
    stored = [dataclasses.asdict(section) for section in done[name]]
    files.write_json(out / f'{name}.json', {'key': key, 'sections': stored})
  sections = [section for name in SUITES for section in done.get(name, [])]
  table = results.join(sections)
  texts: dict[Path, bytes | str] = {
    out / results.METRICS: table.to_text(),
    out / results.TABLES: results.to_markdown(sections),
  }
  files.write_all(texts, out / files.HASHES)
  return table
