"""Blur and noise, so that a classifier also reads what a model draws."""

from __future__ import annotations

import numpy as np


def spoil(
  ink: np.ndarray,
  blur: np.ndarray,
  noise: np.ndarray,
  rng: np.random.Generator,
) -> np.ndarray:
  """Blurs pictures and adds noise.

  Args:
    ink: float32 [n, H, W] in [0, 1].
    blur: [n] standard deviation of the blur in pixels, at most about 1.5.
    noise: [n] standard deviation of the noise.
    rng: draws the noise.

  Returns:
    float32 [n, H, W] in [0, 1].
  """
  sigma = np.maximum(blur, 1e-2)[:, None]
  taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * sigma**2))
  taps = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
  for axis in (1, 2):
    side = ink.shape[axis]
    padding = [(0, 0), (0, 0), (0, 0)]
    padding[axis] = (3, 3)
    padded = np.pad(ink, padding)
    ink = sum(
      taps[:, k, None, None] * padded.take(range(k, k + side), axis)
      for k in range(7)
    )
  drawn = rng.standard_normal(ink.shape, dtype=np.float32)
  return np.clip(ink + noise[:, None, None].astype(np.float32) * drawn, 0, 1)
