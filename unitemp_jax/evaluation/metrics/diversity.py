"""How much videos of one kind differ from each other.

Distribution matching may narrow what a student makes: every seven the same
seven. Accuracy does not show it; the distance between clips of a class does.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax.errors import UserError


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
