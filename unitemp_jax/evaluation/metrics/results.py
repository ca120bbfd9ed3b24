"""The table that every evaluation writes and every document is made from."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.data.typed_json import from_json
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, registry
from unitemp_jax.evaluation.metrics.bootstrap import Interval

_WIDTH = 100  # characters of a line of a table
METRICS, TABLES = 'metrics.json', 'metrics.md'  # files of a folder of results


@dataclasses.dataclass(frozen=True)
class Result:
  """One number with all that is needed to believe it."""

  metric: str  # what was measured, for example 'BFR at 20, stream'
  group: str  # on what, for example 'backward' or 'real clips'
  value: float
  low: float  # ends of its 95 % interval; equal to value if it has none
  high: float
  n: int  # clips behind it
  unit: str  # 'dB', '%', 'ratio', ...
  how: str  # its definition, and the command or settings that made it


def result(
  metric: str, group: str, measured: Interval, *, unit: str, how: str
) -> Result:
  """Makes a row from a bootstrap interval; the unit '%' scales it by 100."""
  scale = 100.0 if unit == '%' else 1.0
  value, low, high = measured.value, measured.low, measured.high
  numbers = scale * value, scale * low, scale * high
  return Result(metric, group, *numbers, measured.n, unit, how)


@dataclasses.dataclass(frozen=True)
class ResultTable:
  """Rows in the order in which they are shown."""

  rows: tuple[Result, ...]

  def to_json(self, path: str | os.PathLike[str]) -> None:
    """Writes the table; a reader sees the old file or the whole new one."""
    files.write(path, self.to_text())

  def to_text(self) -> str:
    """The table as JSON."""
    rows = [dataclasses.asdict(row) for row in self.rows]
    return json.dumps({'results': rows}, indent=1) + '\n'

  @classmethod
  def from_json(cls, path: str | os.PathLike[str]) -> 'ResultTable':
    """Reads a table; UserError if the file is missing or is none."""
    mend = 'run the evaluation again'
    stored = files.read_json(path, 'a table of results', mend, keys=['results'])
    try:
      return cls(tuple(from_json(list[Result], stored['results'])))
    except ValueError as error:
      raise UserError(
        f'{path} is not a table of results ({error}); {mend}.'
      ) from error

  def select(self, metric: str) -> list[Result]:
    """The rows of a metric."""
    return [row for row in self.rows if row.metric == metric]

  def to_markdown(self) -> str:
    """One line per row, with its interval and how it was obtained."""
    lines = ['| metric | group | value | 95 % | n | how |', '|---' * 6 + '|']
    for row in self.rows:
      unit = '' if row.unit == 'ratio' else f' {row.unit}'
      cells = (row.metric, row.group, f'{_number(row.value)}{unit}', _span(row))
      lines.append(f'| {" | ".join(cells)} | {row.n} | {row.how} |')
    return '\n'.join(lines) + '\n'

  def to_grid(self) -> str:
    """Markdown with one line per group and one column per metric.

    What is wider than a screen goes on in a further table below. What all
    metrics are named after, such as 'long: ', is left out. UserError if two
    rows have the same metric and group.
    """
    cells: dict[tuple[str, str], str] = {}
    for row in self.rows:
      if (row.group, row.metric) in cells:
        raise UserError(
          f'two results are named {row.metric!r} of {row.group!r}; '
          'rename one group.'
        )
      cells[row.group, row.metric] = f'{_number(row.value)} {_span(row)}'
    groups = list(dict.fromkeys(row.group for row in self.rows))
    units = {
      row.metric: '' if row.unit in ('ratio', '') else f' ({row.unit})'
      for row in self.rows
    }
    prefixes = {metric.partition(': ')[0] for metric in units}
    shared = f'{prefixes.pop()}: ' if len(prefixes) == 1 else ''
    columns = [
      [
        metric.removeprefix(shared) + unit,
        *(cells.get((group, metric), '').strip() for group in groups),
      ]
      for metric, unit in units.items()
    ]
    tables: list[str] = []
    first = 0
    for last in range(1, len(columns) + 1):
      wider = _grid(groups, columns[first : last + 1])
      if last == len(columns) or max(map(len, wider)) > _WIDTH:
        tables.append('\n'.join(_grid(groups, columns[first:last])) + '\n')
        first = last
    return '\n'.join(tables)


def _grid(groups: list[str], columns: list[list[str]]) -> list[str]:
  """Lines of one table; groups of which it says nothing are left out."""
  head, *rest = zip(['', *groups], *columns, strict=True)
  shown = [head, ['---'] * len(head), *(row for row in rest if any(row[1:]))]
  return [f'| {" | ".join(row)} |' for row in shown]


def _span(row: Result) -> str:
  if row.low == row.high:
    return ''
  return f'[{_number(row.low)} {_number(row.high)}]'


def _number(value: float) -> str:
  """Two or three significant digits, whole numbers above 100."""
  if not math.isfinite(value):
    return str(value)
  if abs(value) >= 100:
    return f'{value:.0f}'
  if 1e-4 <= abs(value) < 0.1:
    return f'{value:.2g}'
  return f'{value:.1f}' if abs(value) >= 10 else f'{value:.2f}'


@dataclasses.dataclass(frozen=True)
class Section:
  """Results that are shown as one table under one title."""

  title: str
  rows: tuple[Result, ...]


def section(
  title: str, table: Mapping[str, Mapping[str, Any]], how: str, prefix: str = ''
) -> Section:
  """Pools a table as its metrics are defined in the registry.

  Args:
    title: of the table.
    table: group -> metric -> values `[n]`, one per clip; or two such, to be
      compared clip by clip; or an interval.
    how: the command and what it was given, added to each definition.
    prefix: tells metrics from those of other tables.
  """
  rows = []
  for group, own in table.items():
    for name, values in own.items():
      about = registry.find(name)
      text = about.how
      if isinstance(values, Interval):
        measured = values
      elif isinstance(values, tuple):
        measured = bootstrap.paired(about.pool, *values)
        what = 'ratio' if about.pool == 'geometric' else 'difference'
        text = f'{text}; {what} of the two, paired by clip'
      else:
        measured = bootstrap.pooled(about.pool, np.asarray(values))
      full, text = f'{prefix}{name}', f'{text}; {how}'
      rows.append(result(full, group, measured, unit=about.unit, how=text))
  return Section(title, tuple(rows))


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A table as CSV, whose lines end with line feeds."""
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows([head, *rows])
  return text.getvalue()


def join(sections: Sequence[Section]) -> ResultTable:
  """All rows; what a section repeats of another is kept once.

  ValueError if it is another value there: one of the two has a wrong name.
  """
  rows: dict[tuple[str, str], Result] = {}
  for section in sections:
    for row in section.rows:
      known = rows.setdefault((row.metric, row.group), row)
      if repr((known.value, known.n)) != repr((row.value, row.n)):
        raise ValueError(f'{row.metric!r} of {row.group!r} has two values')
  return ResultTable(tuple(rows.values()))


def to_markdown(sections: Sequence[Section]) -> str:
  """Tables, one per section or more, and how each number is obtained."""
  hows: dict[str, dict[str, None]] = {}
  parts = []
  for section in sections:
    for row in section.rows:
      hows.setdefault(row.how, {})[row.metric] = None
    counts = sorted({row.n for row in section.rows})
    parts += [
      f'## {section.title}\n',
      ResultTable(section.rows).to_grid(),
      f'n = {", ".join(map(str, counts))} clips; 95 % intervals by bootstrap '
      'over clips.\n',
    ]
  # What all have in common, such as the model, is said once.
  ends = {how.rpartition('; ')[2] for how in hows}
  shared = ends.pop() if len(ends) == 1 < len(hows) else ''
  parts.append('## How the numbers are defined\n')
  if shared:
    parts.append(f'All of them: {shared}.\n')
  parts += [
    ''.join(
      f'- *{"*; *".join(names)}*: {how.removesuffix(f"; {shared}")}\n'
      for how, names in hows.items()
    )
  ]
  return '\n'.join(parts)
