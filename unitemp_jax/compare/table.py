"""Paired tables: every metric of two systems over the clips that both have.

A clip that stands still wins nothing: it flickers and drifts least of all. So
differences are taken over pairs in which both clips move, and a still clip
loses its pair.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unitemp_jax.evaluation.metrics import bootstrap, results
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.registry import CLIP, FLOOR, MOTION
from unitemp_jax.evaluation.metrics.results import Result, result

_STILL = 1e-4  # mean step of a clip that does not move at all
STILL_ONLY = 'no pair in which both move'
OPEN = 'no difference shown'
TOO_FEW = 'too few pairs'
# Fewer agree by chance in more than one of twenty comparisons.
_LEAST_PAIRS = 6


@dataclasses.dataclass(frozen=True)
class Row:
  """One metric of two systems, over the clips both have."""

  metric: str  # name
  section: str  # title of its table
  first: Interval | None  # pooled value of the first system; None without one
  second: Interval | None  # of the second system
  # first minus second, or first over second where the metric is a ratio itself;
  # None if there is no pair in which both move
  difference: Interval | None
  is_ratio: bool  # whether `difference` is a quotient
  # share of pairs that the first system wins, ties half; None where neither
  # direction is better
  wins: Interval | None
  verdict: str  # in words
  pairs: int  # pairs behind the difference


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
  for name, metric in CLIP.items():
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
  apart = bootstrap.paired('mean', first, second)
  verdict = _verdict(apart, 0.0, 'high', names)
  both = bootstrap.mean(first), bootstrap.mean(second)
  return Row('moves', MOTION, *both, apart, False, None, verdict, len(pairs))


def _row(name, metric, chosen, names) -> Row:
  values = [np.array([pair[side] for pair in chosen]) for side in (0, 1)]
  which = np.array([pair[2] for pair in chosen])
  both = which.all(axis=1) | (not metric.better)
  is_ratio = metric.pool == 'geometric'
  difference, verdict, wins = None, STILL_ONLY, None
  if both.any():
    sides = (side[both] for side in values)
    difference = bootstrap.paired(metric.pool, *sides)
    verdict = _verdict(difference, float(is_ratio), metric.better, names)
  if metric.better:
    wins = bootstrap.mean(_wins(values, which, metric.better))
  first, second = (bootstrap.pooled(metric.pool, side) for side in values)
  about = (difference, is_ratio, wins, verdict, int(both.sum()))
  return Row(name, metric.section, first, second, *about)


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
    about = CLIP[row.metric].how if row.metric in CLIP else moves
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
  lines = [head, '|---' * 7 + '|']
  for row in rows:
    levels = (f'{x.value:.4g}' if x else '' for x in (row.first, row.second))
    difference = _show(row.difference, '×' if row.is_ratio else '')
    cells = [row.metric, *levels, difference, _show(row.wins, scale=100)]
    cells += [str(row.pairs), row.verdict]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def _show(value: Interval | None, sign: str = '', scale: float = 1) -> str:
  if value is None:
    return ''
  middle, low, high = (scale * x for x in (value.value, value.low, value.high))
  span = 'one clip' if value.n == 1 else f'{low:.3g} {high:.3g}'
  return f'{sign}{middle:.3g} [{span}]'


def to_csv(clips: Iterable[tuple[str, int, str, str, Values]]) -> str:
  """One line per clip: prompt, sample, system, file, and every metric."""
  return results.to_csv(
    ['prompt', 'sample', 'system', 'clip', *CLIP],
    (
      [*about, *(values.get(name, '') for name in CLIP)]
      for *about, values in clips
    ),
  )
