"""PSNR and SSIM of clips against the real clips they should resemble.

Frames are read one by one. Where the ends were given, the frames between them
are also compared, beside the plain blends that every inbetween must beat.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unitemp_jax.data import video_decode, video_io
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import naming, temporal
from unitemp_jax.evaluation.clip_folder import ClipFile
from unitemp_jax.evaluation.frames import unit_pixels

_SIDE = 11  # of the window of SSIM


@dataclasses.dataclass(frozen=True)
class Likeness:
  """One clip against its reference.

  Attributes:
    errors: [T] mean squared error of each frame, pixels in [0, 1].
    ssim: [T], or [0] where frames are too small.
    fade: [T] error of the blend from the first to the last reference frame.
    nearest: [T] error of holding the nearer end.
  """

  errors: np.ndarray
  ssim: np.ndarray
  fade: np.ndarray
  nearest: np.ndarray


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


def compare(clip: ClipFile, reference: ClipFile) -> Likeness:
  """Compares a clip with its reference, which takes the clip's size and rate.

  Raises:
    UserError: a file cannot be read, or the reference is shorter.
  """
  count = sum(1 for _ in video_decode.decode(clip.path))
  first, last = _ends(reference.path, clip, count)
  errors, similar, fade, nearest = [], [], [], []
  pairs = zip(
    (pixels for _, _, pixels in video_decode.decode(clip.path)),
    _resampled(reference.path, clip),
    strict=False,
  )
  for t, (made, real) in enumerate(pairs):
    made, real = unit_pixels(made), unit_pixels(real)
    share = t / max(count - 1, 1)
    errors.append(_error(made, real))
    fade.append(_error((1 - share) * first + share * last, real))
    nearest.append(_error(first if share <= 0.5 else last, real))
    if min(made.shape[:2]) >= _SIDE:
      similar.append(temporal.ssim(made[None, None], real[None, None])[0])
  return Likeness(*map(np.array, (errors, similar, fade, nearest)))


def values(likeness: Likeness, given: tuple[int, int]) -> dict[str, float]:
  """The numbers of one clip by name; `given` counts its given end frames."""
  found = {'PSNR': _decibel(likeness.errors)}
  if likeness.ssim.size:
    found['SSIM'] = float(likeness.ssim.mean())
  made = slice(given[0], len(likeness.errors) - given[1])
  if any(given) and likeness.errors[made].size:
    found['PSNR, made frames'] = _decibel(likeness.errors[made])
    if likeness.ssim.size:
      found['SSIM, made frames'] = float(likeness.ssim[made].mean())
  if all(given) and likeness.errors[made].size:
    found['PSNR of a cross-fade'] = _decibel(likeness.fade[made])
    found['PSNR of the nearest end'] = _decibel(likeness.nearest[made])
  return found


def _resampled(path: Path, clip: ClipFile) -> Iterator[np.ndarray]:
  frames = video_decode.resample(video_decode.decode(path), clip.fps)
  return (video_io.fit(frame, clip.height, clip.width) for frame in frames)


def _ends(path: Path, clip: ClipFile, count: int):
  """First and last reference frame that the clip of `count` frames covers."""
  first, last, seen = None, None, 0
  for frame in itertools.islice(_resampled(path, clip), count):
    first = frame if first is None else first
    last, seen = frame, seen + 1
  if seen < count:
    raise UserError(
      f'{path} has {seen} frames at {clip.fps:g} per second, but {clip.name} '
      f'has {count}; give a reference that is as long.'
    )
  return unit_pixels(first), unit_pixels(last)


def _error(a: np.ndarray, b: np.ndarray) -> float:
  return float(np.square(a - b).mean(dtype=np.float64))


def _decibel(errors: np.ndarray) -> float:
  return float(temporal.to_decibel(errors.mean()))
