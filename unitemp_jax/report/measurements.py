"""Measured numbers as tables, their intervals drawn to scale."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

from unitemp_jax import files
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
    }
  )
