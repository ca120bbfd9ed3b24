"""Measures many clips, several at a time, and keeps what was measured.

What is kept of a clip lies in a folder of small files, under a name made from
its path, size and time of writing: an interrupted command continues, and a clip
that was replaced is measured again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitemp_jax.data import video_decode, video_io
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import classifier, curves
from unitemp_jax.evaluation.curves import Curves

_VERSION = 1  # of what `curves.measure` computes
# A step this large, and this much larger than the median one, is a cut.
_CUT_STEP, _CUT_RATIO = 0.08, 8.0


@dataclasses.dataclass(frozen=True)
class Window:
  """The shape of the clips that real footage is cut into."""

  frames: int
  fps: float
  height: int
  width: int


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured of one file.

  Attributes:
    path: of the file.
    curves: one entry per clip in it; a generated clip is one.
    problem: why there is none, or ''.
    cuts: windows left out because a scene changes in them.
  """

  path: Path
  curves: tuple[Curves, ...]
  problem: str = ''
  cuts: int = 0


def measure(
  paths: Sequence[Path],
  cache: Path,
  *,
  window: Window | None = None,
  workers: int = 1,
  report: Callable[[str], None] = print,
) -> list[Measured]:
  """Measures files, in the order given.

  Args:
    paths: of videos.
    cache: folder for what was measured.
    window: cuts each file into clips of this shape, as real footage is; None
      takes each file as one clip, as it is.
    workers: processes.
    report: is given a line about the progress now and then.
  """
  cache.mkdir(parents=True, exist_ok=True)
  one = functools.partial(_measure_or_read, cache=cache, window=window)
  found, began, told = [], time.monotonic(), 0.0
  for measured in _map(one, paths, workers):
    found.append(measured)
    now = time.monotonic()
    if now - told > 10 or len(found) == len(paths):
      left = (now - began) / len(found) * (len(paths) - len(found))
      report(f'  {len(found)}/{len(paths)} files measured, {left:.0f} s left')
      told = now
  return found


def _map(function, items, workers) -> Iterator:
  if workers == 1 or len(items) < 2:
    yield from map(function, items)
    return
  # Not a fork: threads of the decoder and of jax would not survive it.
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    yield from pool.map(function, items, chunksize=4)


def _measure_or_read(
  path: Path, *, cache: Path, window: Window | None
) -> Measured:
  try:
    place = cache / f'{_key(path, window)}.npz'
    if place.exists():
      try:
        return _from_arrays(path, classifier.load_arrays(place))
      except (UserError, KeyError, ValueError):
        pass  # damaged: measured again
    measured = _measure(path, window)
  except (UserError, OSError) as error:
    return Measured(path, (), str(error))
  # What cannot be kept was measured all the same.
  with contextlib.suppress(OSError):
    classifier.save_arrays(place, _to_arrays(measured))
  return measured


def _key(path: Path, window: Window | None) -> str:
  about = path.stat()
  shape = window and dataclasses.astuple(window)
  words = [_VERSION, str(path.resolve()), about.st_size, about.st_mtime_ns]
  return hashlib.sha256(repr([*words, shape]).encode()).hexdigest()[:24]


def _measure(path: Path, window: Window | None) -> Measured:
  decoded = video_decode.decode(path)
  if window is None:
    frames = (pixels for _, _, pixels in decoded)
    return Measured(path, (curves.measure(frames),))
  found, cuts = [], 0
  for clip in _windows(video_decode.resample(decoded, window.fps), window):
    measured = curves.measure(clip)
    if has_cut(measured.steps):
      cuts += 1
    else:
      found.append(measured)
  return Measured(path, tuple(found), cuts=cuts)


def _windows(
  frames: Iterable[np.ndarray], window: Window
) -> Iterator[list[np.ndarray]]:
  """Cuts a stream into whole windows; a remainder is left out."""
  clip: list[np.ndarray] = []
  for frame in frames:
    clip.append(video_io.fit(frame, window.height, window.width))
    if len(clip) == window.frames:
      yield clip
      clip = []


def has_cut(steps: np.ndarray) -> bool:
  """Whether the scene changes within a clip, from its steps [T-1]."""
  largest = steps.max()
  return bool(
    largest > _CUT_STEP and largest > _CUT_RATIO * max(np.median(steps), 1e-3)
  )


def _to_arrays(measured: Measured) -> dict[str, np.ndarray]:
  arrays = {'count': np.array(len(measured.curves)), 'cuts': measured.cuts}
  for number, clip in enumerate(measured.curves):
    arrays |= {f'{number} {k}': v for k, v in clip.to_arrays().items()}
  return {name: np.asarray(value) for name, value in arrays.items()}


def _from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Measured:
  found = []
  for number in range(int(arrays['count'])):
    start = f'{number} '
    fields = {
      name.removeprefix(start): value
      for name, value in arrays.items()
      if name.startswith(start)
    }
    found.append(Curves.from_arrays(fields))
  return Measured(path, tuple(found), cuts=int(arrays['cuts']))
