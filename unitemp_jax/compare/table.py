"""Paired tables: every metric of two systems over the clips that both have.

A clip that stands still wins nothing: it flickers and drifts least of all. So
differences are taken over pairs in which both clips move, and a still clip
loses its pair.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unitemp_jax.evaluation.clips import metrics
from unitemp_jax.evaluation.clips.metrics import METRICS
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import Result, result

FLOOR = 0.5  # of the reference motion, below which a clip stands still
_STILL = 1e-4  # mean step of a clip that does not move at all
STILL_ONLY = 'no pair in which both move'
OPEN = 'no difference shown'
TOO_FEW = 'too few pairs'
# Fewer agree by chance in more than one of twenty comparisons.
_LEAST_PAIRS = 6


@dataclasses.dataclass(frozen=True)
class Row:
  """One metric of two systems, over the clips both have.

  Attributes:
    metric: name.
    section: title of its table.
    first: pooled value of the first system; None without one.
    second: of the second system.
    difference: first minus second, or first over second where the metric is a
      ratio itself; None if there is no pair in which both move.
    is_ratio: whether `difference` is a quotient.
    wins: share of pairs that the first system wins, ties half; None where
      neither direction is better.
    verdict: in words.
    pairs: pairs behind the difference.
  """

  metric: str
  section: str
  first: Interval | None
  second: Interval | None
  difference: Interval | None
  is_ratio: bool
  wins: Interval | None
  verdict: str
  pairs: int


Values = Mapping[str, float]


def moves(
  first: Values, second: Values, usual: float | None
) -> tuple[bool, bool]:
  """Whether each clip of a pair moves.

  Args:
    first: metrics of one clip.
    second: of the other.
    usual: mean step of real clips; None compares the two with each other.
  """
  steps = [clip['mean step'] for clip in (first, second)]
  least = FLOOR * (max(steps) if usual is None else usual)
  one, two = (step >= max(least, _STILL) for step in steps)
  return one, two


def compare(
  names: tuple[str, str],
  pairs: Sequence[tuple[Values, Values]],
  usual: float | None = None,
) -> list[Row]:
  """Compares two systems metric by metric.

  Args:
    names: of the two systems.
    pairs: metrics of both clips of each pair.
    usual: as for `moves`.
  """
  moving = [moves(*pair, usual) for pair in pairs]
  rows = [_motion(pairs, moving, names)]
  for name, metric in METRICS.items():
    chosen = [
      (pair[0][name], pair[1][name], which)
      for pair, which in zip(pairs, moving, strict=True)
      if name in pair[0] and name in pair[1]
    ]
    if chosen:
      rows.append(_row(name, metric, chosen, names))
  return rows


def _motion(pairs, moving, names) -> Row:
  """Whether clips move at all: what every other line rests on."""
  first, second = (np.array(side, float) for side in zip(*moving, strict=True))
  apart = bootstrap.paired_difference(first, second)
  return Row(
    'moves',
    'Motion and joins',
    bootstrap.mean(first),
    bootstrap.mean(second),
    apart,
    False,
    None,
    _verdict(apart, 0.0, 'high', names),
    len(pairs),
  )


def _row(name, metric, chosen, names) -> Row:
  values = [np.array([pair[side] for pair in chosen]) for side in (0, 1)]
  which = np.array([pair[2] for pair in chosen])
  both = which.all(axis=1)
  if not metric.better:
    both = np.ones(len(chosen), bool)
  is_ratio = metric.pool == 'geometric'
  difference, verdict = None, STILL_ONLY
  if both.any():
    difference = metrics.paired(name, *(side[both] for side in values))
    verdict = _verdict(difference, float(is_ratio), metric.better, names)
  wins = None
  if metric.better:
    wins = bootstrap.mean(_wins(values, which, metric.better))
  return Row(
    name,
    metric.section,
    metrics.pooled(name, values[0]),
    metrics.pooled(name, values[1]),
    difference,
    is_ratio,
    wins,
    verdict,
    int(both.sum()),
  )


def _wins(values, which, better: str) -> np.ndarray:
  """1, 0.5 or 0 for each pair: does the first clip win it?"""
  sign = 1 if better == 'high' else -1
  by_value = 0.5 + 0.5 * np.sign(sign * (values[0] - values[1]))
  by_motion = 0.5 + 0.5 * (which[:, 0].astype(int) - which[:, 1].astype(int))
  return np.where(which.all(axis=1), by_value, by_motion)


def _verdict(difference: Interval, null: float, better: str, names) -> str:
  if not better:
    return ''
  if difference.n < _LEAST_PAIRS:
    return TOO_FEW
  if difference.low <= null <= difference.high:
    return OPEN
  first = (difference.value > null) == (better == 'high')
  return f'{names[0 if first else 1]} better'


def to_results(
  names: tuple[str, str], rows: Sequence[Row], how: str
) -> list[Result]:
  """The rows of one comparison for a table of results."""
  found: list[Result] = []

  def add(row, group, value, about, unit='ratio'):
    text = f'{about}; {how}'
    if value is not None:
      found.append(result(row.metric, group, value, unit=unit, how=text))

  moves = f'share of clips with {FLOOR} of the reference motion'
  for row in rows:
    about = METRICS[row.metric].how if row.metric in METRICS else moves
    for name, value in zip(names, (row.first, row.second), strict=True):
      add(row, name, value, f'{about}, paired clips')
    sign = '/' if row.is_ratio else '-'
    group = f'{names[0]} {sign} {names[1]}'
    about = 'paired by prompt and sample, both moving'
    add(row, group, row.difference, about)
    group = f'{names[0]} wins over {names[1]}'
    add(row, group, row.wins, 'share of pairs, a still clip loses', '%')
  return found


def to_markdown(names: tuple[str, str], rows: Sequence[Row]) -> str:
  """One line per metric with both systems, their difference and the wins."""
  head = f'| metric | {names[0]} | {names[1]} | difference | wins | n | |'
  lines = [head, '|---|---|---|---|---|---|---|']
  for row in rows:
    difference = _show(row.difference, row.is_ratio)
    wins = _show(row.wins and _percent(row.wins))
    lines.append(
      f'| {row.metric} | {_level(row.first)} | {_level(row.second)} '
      f'| {difference} | {wins} | {row.pairs} | {row.verdict} |'
    )
  return '\n'.join(lines) + '\n'


def _percent(value: Interval) -> Interval:
  return Interval(100 * value.value, 100 * value.low, 100 * value.high, value.n)


def _level(value: Interval | None) -> str:
  return '' if value is None else f'{value.value:.4g}'


def _show(value: Interval | None, is_ratio: bool = False) -> str:
  if value is None:
    return ''
  sign = '×' if is_ratio else ''
  return f'{sign}{value.value:.3g} [{value.low:.3g} {value.high:.3g}]'


def to_csv(clips: Iterable[tuple[str, int, str, str, Values]]) -> str:
  """One line per clip: prompt, sample, system, file, and every metric."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['prompt', 'sample', 'system', 'clip', *METRICS])
  for prompt, sample, system, name, values in clips:
    numbers = [values.get(metric, '') for metric in METRICS]
    writer.writerow([prompt, sample, system, name, *numbers])
  return text.getvalue()
