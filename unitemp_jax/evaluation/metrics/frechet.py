"""Frechet distance between two sets of features that the user brings.

`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, the squared 2-Wasserstein
distance of two Gaussians. It is FVD only where the features are those of I3D
trained on Kinetics-400; this file has no network and knows no such name.
"""

import dataclasses
import os

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics.bootstrap import Interval

_RESAMPLES = 200
_MOST = 1e100  # of a feature, whose square is still finite


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of a set of clips."""

  values: np.ndarray  # [n, d], one row per clip
  network: str  # what made them, as the file says; '' where it does not


def read_features(path: str | os.PathLike[str]) -> Features:
  """Reads features from npy, or npz with the key 'features'.

  An npz may hold a text 'network' that names what made them. UserError if the
  file is missing, or holds no finite [n, d] with n >= 2.
  """
  keys = ('features', 'network')
  mend = f'write an npy [n, d], or an npz with the keys {" and ".join(keys)}'
  held = files.read_arrays(path, mend, ('', *keys))
  values = held.get('', held.get('features'))
  if values is None:
    raise UserError(f'{path} holds no features; {mend}.')
  if values.ndim != 2 or len(values) < 2 or values.dtype.kind not in 'fiu':
    raise UserError(
      f'{path} must hold numbers [n, d] with n of 2 or more, one row a clip, '
      f'but has {values.dtype} {list(values.shape)}.'
    )
  values = values.astype(np.float64)
  if not (np.abs(values) < _MOST).all():
    raise UserError(
      f'{path} holds values that are not finite, or above {_MOST:g}; mend it.'
    )
  return Features(values, str(held.get('network', '')))


def check_alike(made: Features, real: Features) -> None:
  """Raises UserError for features that two networks made."""
  if made.network != real.network:
    raise UserError(
      f'the features come from {made.network!r} and {real.network!r}; compare '
      'features of one network.'
    )
  widths = made.values.shape[1], real.values.shape[1]
  if widths[0] != widths[1]:
    raise UserError(
      f'--features has {widths[0]} numbers per clip and --real_features '
      f'{widths[1]}; compare features of one network.'
    )


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
  """Frechet distance of the Gaussians fitted to two sets [n, d] and [m, d].

  The trace of the root is the sum of the singular values of F1 F2^T, C = F^T F:
  it needs no matrix root and is exact for singular covariances.
  """
  apart = first.mean(axis=0) - second.mean(axis=0)
  one, two = _factor(first), _factor(second)
  root = np.linalg.svd(one @ two.T, compute_uv=False).sum()
  spread = np.square(one).sum() + np.square(two).sum() - 2 * root
  return float(apart @ apart + max(spread, 0.0))


def frechet_interval(first: np.ndarray, second: np.ndarray) -> Interval:
  """The distance with a 95 % bootstrap interval over the clips of both sets.

  Drawing clips twice makes both sets narrower and every resampled distance too
  large, so the interval is that of the resamples moved back by their bias.
  """
  value = frechet_distance(first, second)
  rng = np.random.default_rng(0)
  repeats = [
    frechet_distance(
      first[rng.integers(len(first), size=len(first))],
      second[rng.integers(len(second), size=len(second))],
    )
    for _ in range(_RESAMPLES)
  ]
  low, high = np.percentile(repeats, [2.5, 97.5]) - np.mean(repeats) + value
  n = min(len(first), len(second))
  return Interval(value, max(float(low), 0.0), float(high), n)


def floor_interval(real: np.ndarray) -> Interval:
  """The distance of one random half of 4 real clips or more to the other."""
  order = np.random.default_rng(0).permutation(len(real))
  half = len(real) // 2
  return frechet_interval(real[order[:half]], real[order[half : 2 * half]])


def _factor(values: np.ndarray) -> np.ndarray:
  """F [min(n, d), d] with F^T F the sample covariance."""
  centred = values - values.mean(axis=0)
  return np.linalg.qr(centred / np.sqrt(len(values) - 1), mode='r')
