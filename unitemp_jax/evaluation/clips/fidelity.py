"""PSNR and SSIM of clips against the real clips they should resemble.

Where the ends were given, the frames between them are also compared, beside the
plain blends that every inbetween must beat.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.clips.folder import ClipFile
from unitemp_jax.evaluation.metrics import temporal
from unitemp_jax.video.frames import chunks, unit_pixels
from unitemp_jax.video.read import decode, fit, resample

_SIDE = 11  # of the window of SSIM
# Of a reference that is kept for the other clips compared with it.
_KEPT_BYTES = 2**29


@dataclasses.dataclass(frozen=True)
class Reference:
  """A real clip in the form of the clips that are compared with it."""

  path: Path  # of the file
  frames: int  # at most so many are compared; 0 if that is not known
  fps: float  # frames per second of those clips
  height: int  # pixels
  width: int  # pixels

  @classmethod
  def of(cls, reference: ClipFile, clip: ClipFile) -> 'Reference':
    """The reference as a clip needs it."""
    size = clip.height, clip.width
    return cls(reference.path, clip.frames, clip.fps, *size)

  def read(self) -> Iterator[np.ndarray]:
    """Yields its frames, uint8 [height, width, 3]; decoded once if small."""
    size = self.frames * self.height * self.width * 3
    if not 0 < size <= _KEPT_BYTES:
      yield from self.decode()
      return
    kept = _keep(self)
    yield from kept
    if len(kept) == self.frames:  # else it has no more
      yield from itertools.islice(self.decode(), self.frames, None)

  def decode(self) -> Iterator[np.ndarray]:
    """Yields its frames, however many."""
    decoded = resample(decode(self.path), self.fps)
    return (fit(frame, self.height, self.width) for frame in decoded)


@functools.lru_cache(maxsize=1)
def _keep(reference: Reference) -> tuple[np.ndarray, ...]:
  return tuple(itertools.islice(reference.decode(), reference.frames))


@dataclasses.dataclass(frozen=True)
class Fidelity:
  """One clip against its reference."""

  errors: np.ndarray  # [T] mean squared error of each frame, pixels in [0, 1]
  ssim: np.ndarray  # [T], or [0] where frames are too small
  # [T] error of the blend from the first to the last reference frame; [0] if
  # the clip was not given both
  fade: np.ndarray
  nearest: np.ndarray  # the same of holding the nearer end


def pair(
  clips: Sequence[ClipFile], references: Sequence[ClipFile]
) -> tuple[list[tuple[ClipFile, ClipFile]], list[ClipFile]]:
  """Finds the reference of each clip, by file name or else by prompt.

  A reference may lack the sample number that a clip's name ends with.

  Returns:
    The pairs, and the clips without a reference.
  """
  known: dict[str, ClipFile] = {}
  for reference in references:
    flat = reference.name.rpartition('.')[0].replace('/', '_')
    for key in (flat, reference.path.stem, reference.prompt):
      known.setdefault(naming.canonical(key), reference)
  known.pop('', None)
  pairs, alone = [], []
  for clip in clips:
    stem = clip.path.stem
    keys = (stem, stem.rpartition('-')[0], clip.prompt)
    found = (known.get(naming.canonical(key)) for key in keys)
    reference = next((r for r in found if r is not None), None)
    if reference is None:
      alone.append(clip)
    else:
      pairs.append((clip, reference))
  return pairs, alone


class Comparison:
  """Compares a clip with its reference while somebody else reads its frames."""

  def __init__(self, reference: Reference, ends: bool = False):
    """Compares with a reference, and its blends if the clip was given both."""
    self._reference = reference
    self._ends = ends
    self._errors: list[np.ndarray] = []
    self._ssim: list[np.ndarray] = []
    self._seen = 0
    self._problem: UserError | None = None

  def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the frames [H, W, 3] of the clip as they come."""
    real = self._reference.read()
    for chunk in chunks(frames):
      if self._problem is None:
        try:
          self._compare(chunk, list(itertools.islice(real, len(chunk))))
        except UserError as error:
          self._problem = error
      self._seen += len(chunk)
      yield from chunk

  def _compare(self, chunk: np.ndarray, found: Sequence[np.ndarray]) -> None:
    if len(found) < len(chunk):
      raise UserError(
        f'{self._reference.path} has {self._seen + len(found)} frames at '
        f'{self._reference.fps:g} per second, which is less than the clip has; '
        'give a reference that is as long.'
      )
    made, real = unit_pixels(chunk), unit_pixels(np.stack(found))
    self._errors.append(_error(made, real))
    if min(made.shape[1:3]) >= _SIDE:
      self._ssim.append(temporal.ssim(made[:, None], real[:, None]))

  def result(self) -> Fidelity:
    """What was seen, after all frames were.

    UserError if the reference cannot be read, or is shorter than the clip.
    """
    if self._problem is not None:
      raise self._problem
    ssim = np.concatenate(self._ssim) if self._ssim else np.empty(0)
    blends = np.empty(0), np.empty(0)
    if self._ends:
      blends = _blends(self._reference, self._seen)
    return Fidelity(np.concatenate(self._errors), ssim, *blends)


@functools.lru_cache(maxsize=1)
def _blends(reference: Reference, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Errors [T] of a cross-fade and of the nearest end, over `count` frames."""
  first = last = np.empty(0)
  for t, frame in enumerate(itertools.islice(reference.read(), count)):
    first = first if t else frame
    last = frame
  first, last = unit_pixels(first), unit_pixels(last)
  fade, nearest, start = [], [], 0
  for chunk in chunks(itertools.islice(reference.read(), count)):
    real = unit_pixels(chunk)
    shares = np.arange(start, start + len(real)) / max(count - 1, 1)
    shares = shares[:, None, None, None].astype(np.float32)
    fade.append(_error((1 - shares) * first + shares * last, real))
    nearest.append(_error(np.where(shares <= 0.5, first, last), real))
    start += len(real)
  return np.concatenate(fade), np.concatenate(nearest)


def values(fidelity: Fidelity, given: tuple[int, int]) -> dict[str, float]:
  """The numbers of one clip by name; `given` counts its given end frames."""
  found = {'PSNR': _decibel(fidelity.errors)}
  if fidelity.ssim.size:
    found['SSIM'] = float(fidelity.ssim.mean())
  made = slice(given[0], len(fidelity.errors) - given[1])
  if any(given) and fidelity.errors[made].size:
    found['PSNR, made frames'] = _decibel(fidelity.errors[made])
    if fidelity.ssim.size:
      found['SSIM, made frames'] = float(fidelity.ssim[made].mean())
  if all(given) and fidelity.errors[made].size:
    found['PSNR of a cross-fade'] = _decibel(fidelity.fade[made])
    found['PSNR of the nearest end'] = _decibel(fidelity.nearest[made])
  return found


def _error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Mean squared error of each frame of [k, H, W, 3], [k]."""
  return np.square(a - b).mean(axis=(1, 2, 3), dtype=np.float64)


def _decibel(errors: np.ndarray) -> float:
  return float(temporal.to_decibel(errors.mean()))
