"""Measured numbers as tables, their intervals drawn to scale."""

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import fidelity, folder
from unitemp_jax.evaluation.clips import tables as clip_tables
from unitemp_jax.evaluation.clips.measure import Measurer
from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.metrics.results import Result, Section
from unitemp_jax.report import pages

CLIPS, PAGE = 'clips.csv', 'index.html'
EYEBROW = 'unitemp measurements'


@dataclasses.dataclass(frozen=True)
class Table:
  """One metric: its rows share a scale from `limits[0]` to `limits[1]`."""

  metric: str
  unit: str
  rows: tuple[Result, ...]
  limits: tuple[float, float]
  definitions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tables:
  """Tables, and the commands that made their numbers."""

  tables: tuple[Table, ...]
  commands: tuple[str, ...]


def tables(results: Sequence[Result]) -> Tables:
  """Groups results into one table per metric."""
  made = []
  for name, rows in pages.grouped((r.metric, r) for r in results).items():
    ends = [v for r in rows for v in (r.low, r.high, r.value)]
    ends = [0.0, *filter(math.isfinite, ends)]
    unit = '' if rows[0].unit == 'ratio' else rows[0].unit
    texts = dict.fromkeys(_split(r.how)[0] for r in rows)
    definitions = tuple(text for text in texts if text)
    limits = min(ends), max(ends)
    made.append(Table(name, unit, tuple(rows), limits, definitions))
  commands = dict.fromkeys(_split(result.how)[1] for result in results)
  return Tables(tuple(made), tuple(c for c in commands if c))


def _split(how: str) -> tuple[str, str]:
  """What a number is, and the command that made it."""
  about, found, command = how.rpartition('; unitemp ')
  return (about, f'unitemp {command}') if found else (how, '')


def write(
  out: pathlib.Path,
  sections: Sequence[Section],
  clips: str,
  problems: Sequence[str],
) -> None:
  """Writes metrics.json, metrics.md, clips.csv, notes.json and index.html.

  Args:
    out: folder.
    sections: tables.
    clips: CSV, one line per clip.
    problems: sentences about what was left out.

  Raises:
    UserError: a file cannot be written.
  """
  page = pages.render(
    'measured.html',
    title=out.resolve().name,
    eyebrow=EYEBROW,
    problems=problems,
    parts=[(section.title, tables(section.rows)) for section in sections],
    clips=CLIPS,
  )
  files.write_all(
    {
      out / CLIPS: clips,
      out / results.TABLES: results.to_markdown(sections),
      out / 'notes.json': json.dumps(list(problems), indent=1) + '\n',
      out / PAGE: page,
      out / results.METRICS: results.join(sections).to_text(),
    },
    out / files.HASHES,
  )


def measure_folder(
  listing: folder.Listing,
  out: pathlib.Path,
  how: str,
  *,
  real: folder.Listing | None = None,
  reference: pathlib.Path | None = None,
  features: Sequence[np.ndarray] = (),
  workers: int = 1,
  part: tuple[int, int] | None = None,
) -> tuple[str, list[str]]:
  """Measures clips, and writes what `write` does; what was measured is kept.

  Args:
    listing: the clips.
    out: folder to write to.
    how: the command, for the tables.
    real: real footage beside them.
    reference: folder of clips of the same names, for PSNR and SSIM.
    features: of the clips and of real ones, for the Frechet distance.
    workers: processes.
    part: (I, N) measures every N-th clip from the I-th on, and writes nothing
      else.

  Returns:
    The tables in Markdown, or for a part what is done, and sentences about
    what was left out.
  """
  measurer = Measurer(out / 'measured', workers)
  problems, references = list(listing.problems), {}
  if reference is not None:
    others = folder.list_clips(reference)
    pairs, alone = fidelity.pair(listing.clips, others.clips)
    references = {clip.path: other for clip, other in pairs}
    if alone:
      problems.append(
        f'{len(alone)} clips have no reference in {reference}, such as '
        f'{alone[0].name}.'
      )
  if part is not None:
    first, parts = part
    mine = listing.clips[first::parts]
    own, more = clip_tables.measure_clips(
      mine, measurer, references, bool(real)
    )
    if real and own:
      some = dataclasses.replace(real, clips=real.clips[first::parts])
      with contextlib.suppress(UserError):  # None is as long as a clip.
        more += clip_tables.measure_real(some, own, measurer, direction=True)[1]
    return (
      f'{len(own)} of {len(listing.clips)} clips are measured; when all parts '
      'are, run the command without --shard:'
    ), more
  own, more = clip_tables.measure_clips(
    listing.clips, measurer, references, direction=bool(real)
  )
  if not own:
    raise UserError(
      f'no clip in {listing.folder} could be measured (first problem: '
      f'{more[0]}).'
    )
  groups, real_group = clip_tables.grouped(own, listing.folder), None
  problems += [*more, *clip_tables.mixed(own)]
  if real:
    real_group, more = clip_tables.measure_real(
      real, own, measurer, direction=True
    )
    problems += more
  else:
    problem = 'there are no real clips beside these numbers; give some with '
    problems.append(problem + '--real.')
  sections, more = clip_tables.sections(groups, real_group, how)
  problems += more
  if features:
    name = listing.folder.resolve().name
    made, true = features
    sections.append(clip_tables.frechet_section(name, made, true, how))
  shown = [*groups, *([real_group] if real_group else [])]
  write(out, sections, clip_tables.to_csv(shown), problems)
  return results.to_markdown(sections), problems
