"""Pixels as every metric reads them: floats in [0, 1], layout [n, T, H, W, 3].

Metrics take uint8 frames, or floats that are already in [0, 1]. The models'
own range [-1, 1] is refused, because a difference of it would be twice as
large without anyone noticing.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from unitemp_jax.errors import UserError

# Values of a chunk: enough for numpy to be quick, little enough for the cache.
_CHUNK = 2**18


def chunks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Stacks a stream of frames [H, W, 3] to chunks [k, H, W, 3] of some memory.

  Small frames come many at a time and large ones singly.

  Raises:
    UserError: the size changes in between.
  """
  held: list[np.ndarray] = []
  shape = None
  for frame in frames:
    shape = shape or frame.shape
    if frame.shape != shape:
      raise UserError(
        f'the picture size changes from {shape[:2]} to {frame.shape[:2]} '
        'within the clip; make it anew.'
      )
    if len(held) * frame.size >= _CHUNK:
      yield np.stack(held)
      held = []
    held.append(frame)
  if held:
    yield np.stack(held)


def unit_pixels(frames: np.ndarray) -> np.ndarray:
  """Returns frames as float32 in [0, 1].

  Args:
    frames: uint8, or floats in [0, 1]; any shape.

  Raises:
    UserError: floats outside [0, 1], or not finite.
  """
  frames = np.asarray(frames)
  if frames.dtype == np.uint8:
    return frames.astype(np.float32) / np.float32(255)
  frames = frames.astype(np.float32)
  # A rounding error beyond the ends is fine, the range [-1, 1] is not.
  if frames.size and not (frames.min() >= -1e-3 and frames.max() <= 1.001):
    raise UserError(
      'metrics read uint8 frames or floats in [0, 1], but got floats from '
      f'{frames.min():.3g} to {frames.max():.3g}; map [-1, 1] by (x + 1) / 2.'
    )
  return frames


def check_clips(frames: np.ndarray, at_least: int) -> None:
  """Raises UserError unless frames are [n, T >= at_least, H, W, 3]."""
  if frames.ndim != 5 or frames.shape[-1] != 3:
    raise UserError(
      'metrics read clips of shape [n, T, H, W, 3], but got '
      f'{list(frames.shape)}; add or move axes.'
    )
  if frames.shape[1] < at_least:
    raise UserError(
      f'this metric needs at least {at_least} frames a clip, but got '
      f'{frames.shape[1]}; use longer clips.'
    )


def frame_steps(frames: np.ndarray) -> np.ndarray:
  """Mean absolute change from each frame to the next.

  Args:
    frames: [n, T, H, W, 3], uint8 or floats in [0, 1].

  Returns:
    float64 [n, T-1] in [0, 1]; entry j is transition j, frame j to j+1.

  Raises:
    UserError: wrong shape, fewer than 2 frames, or a wrong range.
  """
  check_clips(frames, at_least=2)
  steps = np.empty((frames.shape[0], frames.shape[1] - 1))
  # Frame by frame, so that a long clip is never held as floats at once.
  before = unit_pixels(frames[:, 0])
  for j in range(steps.shape[1]):
    after = unit_pixels(frames[:, j + 1])
    change = np.abs(after - before)
    steps[:, j] = change.mean(axis=(1, 2, 3), dtype=np.float64)
    before = after
  return steps


def luma(frames: np.ndarray) -> np.ndarray:
  """Rec. 601 brightness of frames [..., 3], float32 [...] in [0, 1]."""
  weights = np.array([0.299, 0.587, 0.114], np.float32)
  return unit_pixels(frames) @ weights
