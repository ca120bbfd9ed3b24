"""Drift: how much the look of a clip changes from its start to its end.

The same curve is read twice: as it plays, and in the order in which its frames
were made. A video made backward that degrades shows it at its beginning, and
only the second reading calls that the end.
"""

from __future__ import annotations

import numpy as np

_SHARE = 0.15  # of the clip at each end that is compared
_LEAST = 1e-3  # keeps relative changes of dark or flat clips finite


def end_difference(curves: np.ndarray) -> np.ndarray:
  """|mean of the first 15 % - mean of the last 15 %| of each curve.

  Args:
    curves: [T, k] in the order that is asked about.

  Returns:
    [k], not negative.
  """
  count = max(1, round(_SHARE * len(curves)))
  return np.abs(curves[:count].mean(axis=0) - curves[-count:].mean(axis=0))


def slope_per_minute(curves: np.ndarray, fps: float) -> np.ndarray:
  """Slope of the straight line through each curve [T, k], per minute, [k]."""
  minutes = np.arange(len(curves)) / fps / 60
  centred = minutes - minutes.mean()
  return centred @ curves / np.square(centred).sum()


def relative_drift(curves: np.ndarray, chunk: int) -> np.ndarray:
  """Mean over later chunks of |q_k - q_1| / q_1, q the mean of a chunk.

  The form of the drift error of long-video benchmarks, with equal weights.

  Args:
    curves: [T, k], not negative, in the order that is asked about.
    chunk: frames of a chunk; a remainder joins the last one.

  Returns:
    [k]; 0 where there is a single chunk.
  """
  count = max(1, len(curves) // chunk)
  starts = chunk * np.arange(count)
  sizes = np.diff([*starts, len(curves)])[:, None]
  means = np.add.reduceat(curves, starts, axis=0) / sizes
  if count == 1:
    return np.zeros(curves.shape[1])
  change = np.abs(means[1:] - means[0]).mean(axis=0)
  return change / np.maximum(means[0], _LEAST)
