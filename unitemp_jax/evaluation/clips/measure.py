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
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import classifier
from unitemp_jax.evaluation.clips.fidelity import (
  Comparison,
  Fidelity,
  Reference,
)
from unitemp_jax.evaluation.metrics import curves
from unitemp_jax.evaluation.metrics.curves import Curves
from unitemp_jax.video import read
from unitemp_jax.video.read import fit

_VERSION = 2  # of what is computed of a clip
# Clips of one reference that one process takes together.
_TOGETHER = 8
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
class Job:
  """One file to be measured.

  Attributes:
    path: of the video.
    scale: how many times its pixels were repeated when it was written; it is
      measured as it was made.
    window: cuts it into clips of this shape, as real footage is; None takes it
      as one clip, as it is.
    reference: what the clip should resemble, or None.
    ends: whether the clip was given the ends of its reference.
  """

  path: Path
  scale: int = 1
  window: Window | None = None
  reference: Reference | None = None
  ends: bool = False


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured of one file.

  Attributes:
    path: of the file.
    curves: one entry per clip in it; a generated clip is one.
    problem: why there is none, or ''.
    cuts: windows left out because a scene changes in them.
    fidelity: to its reference, or None.
    unlike: why there is none though there is a reference, or ''.
  """

  path: Path
  curves: tuple[Curves, ...]
  problem: str = ''
  cuts: int = 0
  fidelity: Fidelity | None = None
  unlike: str = ''


def measure(
  jobs: Sequence[Job],
  cache: Path,
  *,
  workers: int = 1,
  report: Callable[[str], None] = print,
  keep: Callable[[int, Measured], Any] = lambda _, measured: measured,
) -> list[Any]:
  """Measures files, in the order given.

  Args:
    jobs: one per file.
    cache: folder for what was measured.
    workers: processes.
    report: is given a line about the progress now and then.
    keep: makes of a job's number and what was measured what is returned: less,
      where there are many files.
  """
  one = functools.partial(_measure_or_read, cache=cache)
  # Clips of one reference follow each other: it is decoded once for them all.
  order = sorted(range(len(jobs)), key=lambda i: str(jobs[i].reference))
  found: dict[int, Any] = {}
  began, told = time.monotonic(), 0.0
  results = _map(one, [jobs[i] for i in order], workers)
  for i, measured in zip(order, results, strict=True):
    found[i] = keep(i, measured)
    now = time.monotonic()
    if now - told > 10 or len(found) == len(jobs):
      left = (now - began) / len(found) * (len(jobs) - len(found))
      report(f'  {len(found)}/{len(jobs)} files measured, {left:.0f} s left')
      told = now
  with contextlib.suppress(OSError):
    (cache / 'partial').rmdir()
  return [found[i] for i in range(len(jobs))]


def _map(function, items, workers) -> Iterator:
  if workers == 1 or len(items) < 2:
    yield from map(function, items)
    return
  # Not a fork: threads of the decoder and of jax would not survive it.
  context = multiprocessing.get_context('spawn')
  size = max(1, min(_TOGETHER, len(items) // workers))
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    yield from pool.map(function, items, chunksize=size)


def _measure_or_read(job: Job, *, cache: Path) -> Measured:
  try:
    place = cache / f'{_key(job)}.npz'
    if place.exists():
      try:
        return _from_arrays(job.path, classifier.load_arrays(place))
      except (UserError, KeyError, ValueError):
        pass  # damaged: measured again
    measured = _measure(job)
  except (UserError, OSError) as error:
    return Measured(job.path, (), str(error))
  # What cannot be kept was measured all the same.
  with contextlib.suppress(UserError):
    # Elsewhere: a folder of many files is not searched for leftovers.
    classifier.save_arrays(place, _to_arrays(measured), cache / 'partial')
  return measured


def _key(job: Job) -> str:
  words: list[object] = [_VERSION, job.scale, job.ends]
  paths = [job.path]
  for shape in (job.window, job.reference):
    words.append(shape and dataclasses.astuple(shape))
  if job.reference is not None:
    paths.append(job.reference.path)
  for path in paths:
    about = path.stat()
    words += [str(path.resolve()), about.st_size, about.st_mtime_ns]
  return files.sha256(repr(words))[:24]


def _measure(job: Job) -> Measured:
  decoded = read.decode(job.path)
  if job.window is not None:
    return _measure_windows(job.path, job.window, decoded)
  frames = (_shrink(pixels, job.scale) for _, _, pixels in decoded)
  if job.reference is None:
    return Measured(job.path, (curves.measure(frames),))
  comparison = Comparison(job.reference, job.ends)
  measured = (curves.measure(comparison.watch(frames)),)
  try:
    return Measured(job.path, measured, fidelity=comparison.result())
  except UserError as error:
    return Measured(job.path, measured, unlike=str(error))


def _shrink(frame: np.ndarray, scale: int) -> np.ndarray:
  height, width = (side // scale for side in frame.shape[:2])
  return fit(frame, height, width)


def _measure_windows(path: Path, window: Window, decoded) -> Measured:
  found, cuts = [], 0
  for clip in _windows(read.resample(decoded, window.fps), window):
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
    clip.append(fit(frame, window.height, window.width))
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
  arrays = {
    'count': np.array(len(measured.curves)),
    'cuts': np.array(measured.cuts),
    'unlike': np.array(measured.unlike),
  }
  for number, clip in enumerate(measured.curves):
    arrays |= {f'{number} {k}': v for k, v in clip.to_arrays().items()}
  if measured.fidelity is not None:
    own = dataclasses.asdict(measured.fidelity)
    arrays |= {f'likeness {name}': value for name, value in own.items()}
  return arrays


def _from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Measured:
  found = [
    Curves.from_arrays(_starting(arrays, f'{number} '))
    for number in range(int(arrays['count']))
  ]
  fidelity = _starting(arrays, 'likeness ')
  return Measured(
    path,
    tuple(found),
    cuts=int(arrays['cuts']),
    fidelity=Fidelity(**fidelity) if fidelity else None,
    unlike=str(arrays['unlike']),
  )


def _starting(
  arrays: dict[str, np.ndarray], start: str
) -> dict[str, np.ndarray]:
  """The arrays whose names start so, without the start."""
  return {
    name.removeprefix(start): value
    for name, value in arrays.items()
    if name.startswith(start)
  }
