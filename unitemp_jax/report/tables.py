"""Measurements as tables with their intervals drawn to scale."""

import math
from collections.abc import Sequence
from html import escape

from unitemp_jax.evaluation.metrics.results import Result
from unitemp_jax.report import charts
from unitemp_jax.report.shell import label


def measurements(results: Sequence[Result]) -> str:
  """Returns one table per metric, or nothing without an evaluation."""
  tables: dict[str, list[Result]] = {}
  for result in results:
    tables.setdefault(result.metric, []).append(result)
  made = ''.join(metric(name, rows) for name, rows in tables.items())
  commands = dict.fromkeys(_split(result.how)[1] for result in results)
  return made + ''.join(
    f'<p class="meta">By <code>{escape(command)}</code></p>'
    for command in commands
    if command
  )


def _split(how: str) -> tuple[str, str]:
  """What a number is, and the command that made it."""
  about, found, command = how.rpartition('; unitemp ')
  return (about, f'unitemp {command}') if found else (how, '')


def metric(name: str, rows: Sequence[Result]) -> str:
  """Returns the table of one metric with its intervals drawn to scale."""
  ends = [v for r in rows for v in (r.low, r.high, r.value) if math.isfinite(v)]
  limits = (min([0.0, *ends]), max([0.0, *ends]))
  unit = '' if rows[0].unit in ('', 'ratio') else f' ({escape(rows[0].unit)})'
  lines = ''.join(
    f'<tr><th scope="row">{label(r.group)}</th>'
    f'<td class="wide">{charts.interval_bar(r.value, r.low, r.high, limits)}'
    f'</td><td class="value">{charts.number(r.value)}</td>'
    f'<td class="span">{interval(r)}</td><td class="n">{r.n}</td></tr>'
    for r in rows
  )
  how = ''.join(
    f'<p class="meta">{escape(text)}</p>'
    for text in dict.fromkeys(_split(r.how)[0] for r in rows)
    if text
  )
  return (
    f'<article class="metric"><h3>{escape(name)}{unit}</h3><table><thead><tr>'
    '<th scope="col">group</th><th class="wide"></th><th scope="col">value</th>'
    '<th scope="col">95 %</th><th scope="col">n</th></tr></thead>'
    f'<tbody>{lines}</tbody></table>{how}</article>'
  )


def interval(result: Result) -> str:
  """Returns the interval as text, empty where there is none."""
  if result.low == result.high:
    return ''
  return f'{charts.number(result.low)} to {charts.number(result.high)}'
