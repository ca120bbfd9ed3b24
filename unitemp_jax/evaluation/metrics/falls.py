"""How a digit falls, read from pixels and held against lawful falls.

The path of a digit is the centre of its ink. Lawful paths are those of the data
(`data.falling_digits.sample_states`), whose motion is a closed formula.
"""

import numpy as np

from unitemp_jax.video.frames import check_clips, unit_pixels

INK = 0.5  # ink above this part of the brightest is the digit, not its trail
_NEAR = 0.03  # of the frame's height: so near to the ground is contact


def paths(video: np.ndarray) -> np.ndarray:
  """Centres (y, x) of the ink in pixels, [n, T, 2].

  Args:
    video: [n, T, H, W, 3], uint8 or floats in [0, 1].
  """
  check_clips(video, at_least=3)
  ink = unit_pixels(video.max(axis=-1))
  top = np.maximum(ink.max(axis=(1, 2, 3), keepdims=True), 1e-3)
  height, width = (np.arange(side) + 0.5 for side in ink.shape[2:])
  return centre(np.maximum(ink / top - INK, 0), height, width)


def centre(
  weight: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """Centre (y, x) [..., 2] of weight [..., H, W] at places rows, columns."""
  total = np.maximum(weight.sum(axis=(-2, -1)), 1e-6)
  y = weight.sum(axis=-1) @ rows / total
  x = weight.sum(axis=-2) @ columns / total
  return np.stack([y, x], axis=-1)


def distance_from_law(path: np.ndarray, lawful: np.ndarray) -> np.ndarray:
  """Root mean square distance of each path from the nearest lawful one, [n].

  Args:
    path: [n, T], one coordinate in pixels.
    lawful: [m, T], the same of paths that obey the law; where they begin does
      not matter.
  """
  own = path - path.mean(axis=1, keepdims=True)
  known = lawful - lawful.mean(axis=1, keepdims=True)
  square = np.square(own).sum(axis=1)[:, None] + np.square(known).sum(axis=1)
  nearest = (square - 2 * own @ known.T).min(axis=1)
  return np.sqrt(np.maximum(nearest, 0) / path.shape[1])


def events(y: np.ndarray, height: int) -> dict[str, np.ndarray]:
  """What happens in falls, by name, [n] each.

  Args:
    y: [n, T] of the centres, downwards, in pixels.
    height: of the frame.

  Returns:
    'landing', the frame of the first contact; 'contact', frames until it
    leaves the ground or the clip ends; 'bounce', the greatest height after it
    over the height fallen from.
  """
  ground = np.percentile(y, 95, axis=1)
  above = ground[:, None] - y
  near = above < _NEAR * height
  length = y.shape[1]
  landing = np.where(near.any(axis=1), near.argmax(axis=1), length - 1)
  time = np.arange(length)
  after = time > landing[:, None]
  leaves = after & ~near
  leave = np.where(leaves.any(axis=1), leaves.argmax(axis=1), length)
  fallen = np.maximum(above[:, 0], 1.0)
  top = np.where(after, above, 0).max(axis=1)
  return {
    'landing': landing.astype(float),
    'contact': (leave - landing).astype(float),
    'bounce': top / fallen,
  }
