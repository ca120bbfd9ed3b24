"""Intervals by the percentile bootstrap over clips, seeded.

They cover which clips were drawn, and nothing else: not the training seed.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from unitemp_jax.errors import UserError

_RESAMPLES = 2000
_TOGETHER = 2**20  # values drawn at a time, so that memory stays flat


@dataclasses.dataclass(frozen=True)
class Interval:
  """A value with its 95 % bootstrap interval over n clips."""

  value: float
  low: float
  high: float
  n: int


def interval(
  statistic: Callable[..., np.ndarray], *samples: np.ndarray, seed: int = 0
) -> Interval:
  """Bootstraps any statistic of paired samples.

  Args:
    statistic: maps arrays [..., n], one per sample, to [...]: it must reduce
      the last axis only.
    *samples: [n] each; entry i of every one belongs to clip i, and clips are
      drawn whole, so that differences and ratios keep their pairing.
    seed: seed of the resampling.

  Raises:
    UserError: samples of unequal length, empty, or not finite.
  """
  samples = [np.asarray(sample, np.float64) for sample in samples]
  n = len(samples[0])
  if not n or any(sample.shape != (n,) for sample in samples):
    raise UserError(
      'a bootstrap needs one value per clip in every sample, but got shapes '
      f'{[list(sample.shape) for sample in samples]}; pass the same clips.'
    )
  if not all(np.isfinite(sample).all() for sample in samples):
    raise UserError('a bootstrap needs finite values; mend the metric.')
  rng, rows = np.random.default_rng(seed), max(1, _TOGETHER // n)
  repeats = []
  for start in range(0, _RESAMPLES, rows):
    drawn = rng.integers(n, size=(min(rows, _RESAMPLES - start), n))
    repeats.append(statistic(*(sample[drawn] for sample in samples)))
  low, high = np.percentile(np.concatenate(repeats), [2.5, 97.5])
  return Interval(float(statistic(*samples)), float(low), float(high), n)


def exact(value: float, count: int) -> Interval:
  """A number without an interval, over so many clips."""
  return Interval(value, value, value, count)


def pooled(pool: str, values: np.ndarray, seed: int = 0) -> Interval:
  """The 'mean' (also a share, of booleans), 'geometric' mean or 'median', [n].

  Ratios are pooled by their geometric mean.
  """
  if pool == 'geometric':
    return interval(lambda x: np.exp(_mean(x)), np.log(values), seed=seed)
  return interval(_median if pool == 'median' else _mean, values, seed=seed)


def paired(pool: str, values: np.ndarray, baseline: np.ndarray) -> Interval:
  """Compares the same n clips of two systems, both [n].

  The mean or median of their differences, or for ratios (`pool` is
  'geometric') the geometric mean of the quotients.
  """
  if pool == 'geometric':
    logs = np.log(values), np.log(baseline)
    return interval(lambda a, b: np.exp(_mean(a - b)), *logs)
  statistic = _median if pool == 'median' else _mean
  return interval(lambda a, b: statistic(a - b), values, baseline)


def mean(values: np.ndarray, seed: int = 0) -> Interval:
  """Mean of values [n] with its interval."""
  return pooled('mean', values, seed)


def over_seeds(
  values: np.ndarray, baseline: np.ndarray, *, paired: bool = False
) -> Interval:
  """Mean difference of two arms that were trained with several seeds each.

  Seeds of each arm are drawn, then the clips, which all of them have in common.
  With one seed the interval covers clips alone.

  Args:
    values: [S, n].
    baseline: [R, n], of the same clips.
    paired: whether both arms of a seed come from one training (S = R).
  """
  rng, count = np.random.default_rng(0), values.shape[1]
  repeats = []
  for _ in range(_RESAMPLES):
    clips = rng.integers(count, size=count)
    drawn = rng.integers(len(values), size=len(values))
    other = drawn if paired else rng.integers(len(baseline), size=len(baseline))
    one, two = (
      arm[seeds].mean(axis=0)[clips].mean()
      for arm, seeds in ((values, drawn), (baseline, other))
    )
    repeats.append(one - two)
  low, high = np.percentile(repeats, [2.5, 97.5])
  apart = float(values.mean() - baseline.mean())
  return Interval(apart, float(low), float(high), count)


def _mean(values: np.ndarray) -> np.ndarray:
  return values.mean(axis=-1)


def _median(values: np.ndarray) -> np.ndarray:
  return np.median(values, axis=-1)
