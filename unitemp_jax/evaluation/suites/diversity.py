"""Suite `diversity`: is every seven the same seven?

Distribution matching may narrow what a student makes. Accuracy does not show
it; the distance between clips of a class does.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.suites.bench import Bench, Section
from unitemp_jax.evaluation.suites.orders import TEACHER


def class_distances(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Mean distance of every sample to the others of its class.

  Args:
    features: [n, D].
    classes: [n] labels.

  Returns:
    float [n], root mean square over D, averaged over the others; NaN for a
    sample that is alone in its class.

  Raises:
    UserError: the lengths differ.
  """
  if len(features) != len(classes):
    raise UserError(
      f'{len(features)} features and {len(classes)} classes: pass one class '
      'per sample.'
    )
  square = (features.astype(np.float64) ** 2).sum(axis=1)
  product = features.astype(np.float64) @ features.T
  distance = np.sqrt(
    np.maximum(square[:, None] + square[None] - 2 * product, 0)
    / features.shape[1]
  )
  same = classes[:, None] == classes[None]
  np.fill_diagonal(same, val=False)
  count = same.sum(axis=1)
  total = (distance * same).sum(axis=1)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


_HOW = (
  'distance of the handwriting in the last frame, cut out and centred, to that '
  'of the other clips of the same captioned digit, over the mean of the real '
  'clips'
)


def run(bench: Bench) -> list[Section]:
  """Compares real clips, the teacher and the student in both directions."""
  shown = {
    'real clips': bench.real,
    'VAE reconstruction': bench.reconstruction,
    TEACHER: bench.decode(bench.teacher),
    'forward': bench.joint('forward'),
    'backward': bench.joint('backward'),
  }
  digits = np.asarray(bench.clips['digit'])
  distances = {
    group: class_distances(bench.digits.glyphs(video[:, -1]), digits)
    for group, video in shown.items()
  }
  real = np.nanmean(distances['real clips'])
  rows = []
  for group, values in distances.items():
    spread = bootstrap.mean(values[np.isfinite(values)] / real)
    rows.append(bench.row('diversity of handwriting', group, spread, 'x', _HOW))
  return [Section('Diversity of handwriting', tuple(rows))]
