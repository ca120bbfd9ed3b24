"""One pass over the frames of one clip, in the memory of a few frames.

Every metric of a folder is made from these curves, so that clips of any length
and size are read once. Steps and turns are mean absolute first and second
differences of pixels in [0, 1]; the other curves say how a frame looks.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.video.frames import chunks, luma, unit_pixels

CELLS = 16  # along the shorter side of a thumbnail
_CLIPPED = 2 / 255  # this near to black or white counts as clipped

# How a frame looks, one curve each.
QUALITIES = ('brightness', 'contrast', 'saturation', 'sharpness', 'clipped')

# The same, and how much it moves: what drift is measured of.
COURSES = (*QUALITIES, 'motion')


@dataclasses.dataclass(frozen=True)
class Curves:
  """What is kept of a clip of T frames."""

  steps: np.ndarray  # [T-1], entry j is the change from frame j to j + 1
  # [T-2], entry j is the change of that change at frame j + 1
  turns: np.ndarray
  # [T, 5], the columns are QUALITIES: mean and standard deviation of the
  # brightness, mean of the largest minus the smallest channel, variance of the
  # Laplacian of the brightness, share of clipped channel values
  looks: np.ndarray
  # [4]: the change from the last frame to the first; the turn there; both again
  # for the clip without its last frame
  seam: np.ndarray
  # uint8 [T, h, w], the brightest channel averaged over cells
  thumbs: np.ndarray
  height: int  # pixels
  width: int  # pixels

  @property
  def frames(self) -> int:
    """Number of frames, T."""
    return len(self.looks)

  @property
  def course(self) -> np.ndarray:
    """COURSES of each frame, [T, 6]; frame 0 takes the step after it."""
    motion = np.concatenate([self.steps[:1], self.steps])
    return np.concatenate([self.looks, motion[:, None]], axis=1)

  def to_arrays(self) -> dict[str, np.ndarray]:
    """The fields as arrays, for an npz."""
    return {k: np.asarray(v) for k, v in dataclasses.asdict(self).items()}

  @classmethod
  def from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'Curves':
    """Undoes `to_arrays`; KeyError, TypeError or ValueError for others."""
    fields = {f.name: arrays[f.name] for f in dataclasses.fields(cls)}
    n = len(fields['thumbs'])
    shapes: dict[str, tuple[int, ...]] = {'seam': (4,)}
    shapes |= {'steps': (n - 1,), 'turns': (n - 2,)}
    shapes['looks'] = (n, len(QUALITIES))
    shapes['thumbs'] = (n, *fields['thumbs'].shape[1:3])
    for name, shape in shapes.items():
      if fields[name].shape != shape or fields[name].dtype.kind not in 'fu':
        raise ValueError(f'{name} has another shape or type')
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
  recent = first = np.empty((0, 0, 0, 3), np.float32)
  steps, turns, looks, thumbs = [], [], [], []
  for chunk in chunks(frames):
    chunk = unit_pixels(chunk)
    if not len(recent):
      recent, first = chunk[:0], chunk[0]
    # With the two frames before it, a chunk has all of its steps and turns.
    joined = np.concatenate([recent[-2:], chunk])
    jumps = np.diff(joined, axis=0)
    steps.append(_size(jumps[-len(chunk) :]))
    turns.append(_size(np.diff(jumps, axis=0)))
    looks.append(_looks(chunk))
    thumbs.append(thumbnails(chunk))
    recent = np.concatenate([recent, chunk[-3:]])[-3:]
  if len(recent) < 3:
    raise UserError(
      f'a clip needs at least 3 frames to be measured, but has {len(recent)}.'
    )
  seam = []
  for before, last in ((recent[1], recent[2]), (recent[0], recent[1])):
    jump = first - last
    seam += [*_size(jump[None]), *_size((jump - (last - before))[None])]
  return Curves(
    steps=np.concatenate(steps),
    turns=np.concatenate(turns),
    looks=np.concatenate(looks),
    seam=np.array(seam),
    thumbs=np.concatenate(thumbs),
    height=first.shape[0],
    width=first.shape[1],
  )


def thumbnails(frames: np.ndarray) -> np.ndarray:
  """Mean of the brightest channel over cells, uint8 [k, h, w], h or w below 32.

  Args:
    frames: float32 [k, H, W, 3] in [0, 1].
  """
  return np.rint(255 * shrunk(_largest(frames), CELLS)).astype(np.uint8)


def shrunk(planes: np.ndarray, side: int) -> np.ndarray:
  """Averages [..., H, W] over whole cells, to `side` or somewhat more."""
  factor = max(1, min(planes.shape[-2:]) // side)
  rows, columns = (length // factor for length in planes.shape[-2:])
  cells = planes[..., : rows * factor, : columns * factor]
  cells = cells.reshape(*planes.shape[:-2], rows, factor, columns, factor)
  return cells.mean(axis=(-3, -1))


def _looks(frames: np.ndarray) -> np.ndarray:
  """QUALITIES of frames [k, H, W, 3], [k, 5]."""
  bright = luma(frames)
  inner = bright[:, 1:-1, 1:-1]
  around = bright[:, :-2, 1:-1] + bright[:, 2:, 1:-1]
  around = around + bright[:, 1:-1, :-2] + bright[:, 1:-1, 2:]
  laplacian = around - 4 * inner
  clipped = (frames <= _CLIPPED) | (frames >= 1 - _CLIPPED)
  colour = _largest(frames) + _largest(-frames)
  sharp = np.zeros(len(frames))
  if laplacian.size:
    sharp = laplacian.var(axis=(1, 2), dtype=np.float64)
  columns = [
    bright.mean(axis=(1, 2), dtype=np.float64),
    bright.std(axis=(1, 2), dtype=np.float64),
    colour.mean(axis=(1, 2), dtype=np.float64),
    sharp,
    clipped.mean(axis=(1, 2, 3)),
  ]
  return np.stack(columns, axis=1)


def _largest(frames: np.ndarray) -> np.ndarray:
  """Largest channel of [..., 3]; quicker than a maximum over three."""
  return np.maximum(np.maximum(frames[..., 0], frames[..., 1]), frames[..., 2])


def _size(differences: np.ndarray) -> np.ndarray:
  """Mean size of each of the differences [k, H, W, 3], [k]."""
  return np.abs(differences).mean(axis=(1, 2, 3), dtype=np.float64)
