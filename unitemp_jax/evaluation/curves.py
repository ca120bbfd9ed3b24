"""One pass over the frames of one clip, in the memory of a few frames.

Every metric of a folder is made from these curves, so that clips of any length
and size are read once. Steps and turns are mean absolute first and second
differences of pixels in [0, 1]; the other curves say how a frame looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.frames import luma, unit_pixels

_CELLS = 16  # along the shorter side of a thumbnail
_CLIPPED = 2 / 255  # this near to black or white counts as clipped

# How a frame looks, one curve each.
QUALITIES = ('brightness', 'contrast', 'saturation', 'sharpness', 'clipped')


@dataclasses.dataclass(frozen=True)
class Curves:
  """What is kept of a clip of T frames.

  Attributes:
    steps: [T-1], entry j is the change from frame j to j + 1.
    turns: [T-2], entry j is the change of that change at frame j + 1.
    looks: [T, 5], the columns are QUALITIES: mean and standard deviation of
      the brightness, mean of the largest minus the smallest channel, variance
      of the Laplacian of the brightness, share of clipped channel values.
    seam: [4]: the change from the last frame to the first; the turn there; both
      again for the clip without its last frame.
    thumbs: uint8 [T, h, w], the brightest channel averaged over cells.
    height: pixels.
    width: pixels.
  """

  steps: np.ndarray
  turns: np.ndarray
  looks: np.ndarray
  seam: np.ndarray
  thumbs: np.ndarray
  height: int
  width: int

  @property
  def frames(self) -> int:
    """Number of frames, T."""
    return len(self.looks)

  def to_arrays(self) -> dict[str, np.ndarray]:
    """The fields as arrays, for an npz."""
    return {k: np.asarray(v) for k, v in dataclasses.asdict(self).items()}

  @classmethod
  def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Curves:
    """Undoes `to_arrays`; KeyError if a field is missing."""
    fields = {f.name: arrays[f.name] for f in dataclasses.fields(cls)}
    for side in ('height', 'width'):
      fields[side] = int(fields[side])
    return cls(**fields)


def measure(frames: Iterable[np.ndarray]) -> Curves:
  """Measures a clip frame by frame.

  Args:
    frames: uint8 [H, W, 3] each, or floats in [0, 1].

  Raises:
    UserError: fewer than 3 frames, or the size changes in between.
  """
  first, recent = None, []  # `recent` holds the last three frames
  steps, turns, looks, thumbs = [], [], [], []
  for frame in frames:
    frame = unit_pixels(frame)
    first = frame if first is None else first
    if frame.shape != first.shape:
      raise UserError(
        f'the picture size changes from {first.shape[:2]} to '
        f'{frame.shape[:2]} within the clip; make it anew.'
      )
    recent = [*recent[-2:], frame]
    if len(recent) > 1:
      steps.append(_size(frame - recent[-2]))
    if len(recent) > 2:
      turns.append(_size((frame - recent[1]) - (recent[1] - recent[0])))
    looks.append(_look(frame))
    thumbs.append(thumbnail(frame))
  if first is None or len(recent) < 3:
    raise UserError(
      f'a clip needs at least 3 frames to be measured, but has {len(looks)}.'
    )
  seam = []
  for before, last in ((recent[1], recent[2]), (recent[0], recent[1])):
    jump = first - last
    seam += [_size(jump), _size(jump - (last - before))]
  return Curves(
    steps=np.array(steps),
    turns=np.array(turns),
    looks=np.array(looks),
    seam=np.array(seam),
    thumbs=np.stack(thumbs),
    height=first.shape[0],
    width=first.shape[1],
  )


def thumbnail(frame: np.ndarray) -> np.ndarray:
  """Mean of the brightest channel over cells, uint8 [h, w], h or w below 32.

  Args:
    frame: float32 [H, W, 3] in [0, 1].
  """
  bright = _largest(frame)
  factor = max(1, min(bright.shape) // _CELLS)
  rows, columns = bright.shape[0] // factor, bright.shape[1] // factor
  cells = bright[: rows * factor, : columns * factor]
  cells = cells.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
  return np.rint(255 * cells).astype(np.uint8)


def _look(frame: np.ndarray) -> list[float]:
  bright = luma(frame)
  inner = bright[1:-1, 1:-1]
  around = bright[:-2, 1:-1] + bright[2:, 1:-1]
  around = around + bright[1:-1, :-2] + bright[1:-1, 2:]
  laplacian = around - 4 * inner
  clipped = np.count_nonzero(frame <= _CLIPPED)
  clipped += np.count_nonzero(frame >= 1 - _CLIPPED)
  colour = _largest(frame) + _largest(-frame)
  return [
    float(bright.mean(dtype=np.float64)),
    float(bright.std(dtype=np.float64)),
    float(colour.mean(dtype=np.float64)),
    float(laplacian.var(dtype=np.float64)) if laplacian.size else 0.0,
    clipped / frame.size,
  ]


def _largest(frame: np.ndarray) -> np.ndarray:
  """Largest channel of [H, W, 3]; quicker than a maximum over three."""
  return np.maximum(np.maximum(frame[..., 0], frame[..., 1]), frame[..., 2])


def _size(difference: np.ndarray) -> float:
  return float(np.abs(difference).mean(dtype=np.float64))
