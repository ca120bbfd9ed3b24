"""The table that every evaluation writes and every document is made from."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics.bootstrap import Interval

_WIDTH = 100  # characters of a line of a table


@dataclasses.dataclass(frozen=True)
class Result:
  """One number with all that is needed to believe it.

  Attributes:
    metric: what was measured, for example 'boundary flicker, streaming'.
    group: on what, for example 'backward, P = 3' or 'real clips'.
    value: the number.
    low: lower end of its 95 % interval; equal to value if it has none.
    high: upper end.
    n: clips behind it.
    unit: 'dB', '%', 'ratio', ...
    how: the command or the seeds and settings that made it.
  """

  metric: str
  group: str
  value: float
  low: float
  high: float
  n: int
  unit: str
  how: str


def result(
  metric: str, group: str, measured: Interval, *, unit: str, how: str
) -> Result:
  """Makes a row from a bootstrap interval; the unit '%' scales it by 100."""
  scale = 100.0 if unit == '%' else 1.0
  return Result(
    metric=metric,
    group=group,
    value=scale * measured.value,
    low=scale * measured.low,
    high=scale * measured.high,
    n=measured.n,
    unit=unit,
    how=how,
  )


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
  def from_json(cls, path: str | os.PathLike[str]) -> ResultTable:
    """Reads a table.

    Raises:
      UserError: the file is missing or is not such a table.
    """
    mend = 'run the evaluation again'
    stored = files.read_json(path, 'a table of results', mend, keys=['results'])
    try:
      rows = tuple(Result(**row) for row in stored['results'])
      if not all(map(_is_typed, rows)):
        raise TypeError('a value is of another type')
      return cls(rows)
    except TypeError as error:
      raise UserError(
        f'{path} is not a table of results ({error}); {mend}.'
      ) from error

  def select(
    self, metrics: Sequence[str] = (), groups: Sequence[str] = ()
  ) -> ResultTable:
    """Keeps the rows of these metrics and groups; empty means all."""
    return ResultTable(
      tuple(
        row
        for row in self.rows
        if (not metrics or row.metric in metrics)
        and (not groups or row.group in groups)
      )
    )

  def to_markdown(self) -> str:
    """One line per row, with its interval and how it was obtained."""
    lines = ['| metric | group | value | 95 % | n | how |']
    lines.append('|---|---|---|---|---|---|')
    for row in self.rows:
      unit = '' if row.unit == 'ratio' else f' {row.unit}'
      lines.append(
        f'| {row.metric} | {row.group} | {_number(row.value)}{unit} '
        f'| {_span(row)} | {row.n} | {row.how} |'
      )
    return '\n'.join(lines) + '\n'

  def to_grid(self) -> str:
    """Markdown with one line per group and one column per metric.

    What is wider than a screen goes on in a further table below. What all
    metrics are named after, such as 'long: ', is left out.

    Raises:
      UserError: two rows have the same metric and group.
    """
    cells: dict[tuple[str, str], Result] = {}
    for row in self.rows:
      if (row.group, row.metric) in cells:
        raise UserError(
          f'two results are named {row.metric!r} of {row.group!r}; '
          'rename one group.'
        )
      cells[row.group, row.metric] = row
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
        *(_cell(cells.get((group, metric))) for group in groups),
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


def _is_typed(row: Result) -> bool:
  texts, numbers = (
    (row.metric, row.group, row.unit, row.how),
    (row.value, row.low, row.high, row.n),
  )
  return all(isinstance(text, str) for text in texts) and all(
    isinstance(number, int | float) for number in numbers
  )


def _cell(row: Result | None) -> str:
  if row is None:
    return ''
  return f'{_number(row.value)} {_span(row)}'.strip()


def _span(row: Result) -> str:
  if row.low == row.high:
    return ''
  return f'[{_number(row.low)} {_number(row.high)}]'


def _number(value: float) -> str:
  """Three significant digits, whole numbers above 100."""
  if not math.isfinite(value):
    return str(value)
  if abs(value) >= 100:
    return f'{value:.0f}'
  return f'{value:.1f}' if abs(value) >= 10 else f'{value:.2f}'


def split_page(path: Path, name: str = 'metrics') -> tuple[str, str]:
  """Returns the text up to the first mark, and from the second one on.

  Raises:
    UserError: the file cannot be read or lacks the marks.
  """
  begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
  try:
    text = path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'--readme={path} cannot be read ({error}); check the path.'
    ) from error
  marks = re.findall(f'{begin}|{end}', text)
  if marks != [begin, end]:
    raise UserError(
      f'--readme={path} must contain {begin} and then {end}, once each; add '
      'them where the tables belong.'
    )
  before, rest = text.split(begin)
  return before + begin, end + rest.split(end)[1]


def insert_tables(path: Path, tables: str, name: str = 'metrics') -> None:
  """Replaces what lies between the marks; headings go one level down."""
  before, after = split_page(path, name)
  tables = re.sub(r'^(#+) ', r'#\1 ', tables, flags=re.MULTILINE).strip()
  files.write(path, f'{before}\n{tables}\n{after}')
