"""Measures many clips, several at a time, and keeps what was measured.

What is kept of a clip lies in a folder of small files, under a name made from
its path, size and time of writing: an interrupted command continues, and a clip
that was replaced is measured again.
"""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files, storage
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
  """One video to be measured."""

  path: Path  # of the file
  # how many times its pixels were repeated when it was written; it is measured
  # as it was made
  scale: int = 1
  # cuts it into clips of this shape, as real footage is; None takes it as one
  # clip, as it is
  window: Window | None = None
  reference: Reference | None = None  # what the clip should resemble, or None
  ends: bool = False  # whether the clip was given the ends of its reference

  def key(self) -> str:
    """Hash of all that decides what is measured."""
    words: list[object] = [_VERSION, self.scale, self.ends]
    paths = [self.path]
    for shape in (self.window, self.reference):
      words.append(shape and dataclasses.astuple(shape))
    if self.reference is not None:
      paths.append(self.reference.path)
    for path in paths:
      about = path.stat()
      name = storage.addressed(str(path.resolve()))  # the same elsewhere
      words += [name, about.st_size, about.st_mtime_ns]
    return files.sha256(repr(words))[:24]


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured of one file."""

  path: Path  # of the file
  # one entry per clip in it; a generated clip is one
  curves: tuple[Curves, ...]
  problem: str = ''  # why there is none, or ''
  cuts: int = 0  # windows left out because a scene changes in them
  fidelity: Fidelity | None = None  # to its reference, or None
  unlike: str = ''  # why there is none though there is a reference, or ''

  def to_arrays(self) -> dict[str, np.ndarray]:
    """All but the path, for an npz."""
    arrays = {
      'count': np.array(len(self.curves)),
      'cuts': np.array(self.cuts),
      'unlike': np.array(self.unlike),
    }
    for number, clip in enumerate(self.curves):
      arrays |= {f'{number} {k}': v for k, v in clip.to_arrays().items()}
    own = dataclasses.asdict(self.fidelity) if self.fidelity else {}
    return arrays | {f'likeness {name}': value for name, value in own.items()}

  @classmethod
  def from_arrays(cls, path: Path, arrays: dict[str, np.ndarray]) -> 'Measured':
    """Undoes `to_arrays`; see `Curves.from_arrays`."""

    def starting(start: str) -> dict[str, np.ndarray]:
      names = [name for name in arrays if name.startswith(start)]
      return {name.removeprefix(start): arrays[name] for name in names}

    fidelity = starting('likeness ')
    clips = (starting(f'{k} ') for k in range(int(arrays['count'])))
    return cls(
      path,
      tuple(Curves.from_arrays(own) for own in clips),
      cuts=int(arrays['cuts']),
      fidelity=Fidelity(**fidelity) if fidelity else None,
      unlike=str(arrays['unlike']),
    )


@dataclasses.dataclass(frozen=True)
class Measurer:
  """Measures files in processes; what was measured is kept in a folder."""

  folder: Path
  workers: int = 1

  def measure(
    self,
    jobs: Sequence[Job],
    keep: Callable[[int, Measured], Any] = lambda _, measured: measured,
  ) -> list[Any]:
    """Measures files, in the order given; prints the progress now and then.

    Args:
      jobs: one per file.
      keep: makes of a job's number and what was measured what is returned:
        less, where there are many files.
    """
    # Clips of one reference follow each other: it is decoded once for them all.
    order = sorted(range(len(jobs)), key=lambda i: str(jobs[i].reference))
    found: dict[int, Any] = {}
    began, told = time.monotonic(), 0.0
    size = max(1, min(_TOGETHER, len(jobs) // self.workers))
    ordered = [jobs[i] for i in order]
    results = spread(self.one, ordered, self.workers, size)
    for i, measured in zip(order, results, strict=True):
      found[i] = keep(i, measured)
      now = time.monotonic()
      if now - told > 10 or len(found) == len(jobs):
        left = (now - began) / len(found) * (len(jobs) - len(found))
        print(f'  {len(found)}/{len(jobs)} files measured, {left:.0f} s left')
        told = now
    with contextlib.suppress(OSError):
      (self.folder / 'partial').rmdir()
    return [found[i] for i in range(len(jobs))]

  def one(self, job: Job) -> Measured:
    """What is kept of a file, or else what is measured now."""
    try:
      place = self.folder / f'{job.key()}.npz'
      if place.exists():
        # What is damaged is measured again.
        with contextlib.suppress(UserError, *files.UNREADABLE):
          return Measured.from_arrays(job.path, files.read_arrays(place, ''))
      measured = _measure(job)
    except (UserError, OSError) as error:
      return Measured(job.path, (), str(error))
    # What cannot be kept was measured all the same.
    with contextlib.suppress(UserError):
      # Elsewhere: a folder of many files is not searched for leftovers.
      partial = self.folder / 'partial'
      classifier.save_arrays(place, measured.to_arrays(), partial)
    return measured


def spread(
  function: Callable, items: Sequence[Any], workers: int, together: int
) -> Iterator[Any]:
  """Maps a function in processes, several items at a time, in their order."""
  # All start at once.
  workers = min(workers, -(-len(items) // together), os.cpu_count() or 1)
  if workers < 2:
    yield from map(function, items)
    return
  # Not a fork: threads of the decoder and of jax would not survive it.
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    # They start here; ^C is for this process alone, which ends them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    results = pool.map(function, items, chunksize=together)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    yield from results


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
  """Cuts footage into whole windows; a remainder is left out."""
  found, cuts, clip = [], 0, []
  for frame in read.resample(decoded, window.fps):
    clip.append(fit(frame, window.height, window.width))
    if len(clip) == window.frames:
      measured, clip = curves.measure(clip), []
      if has_cut(measured.steps):
        cuts += 1
      else:
        found.append(measured)
  return Measured(path, tuple(found), cuts=cuts)


def has_cut(steps: np.ndarray) -> bool:
  """Whether the scene changes within a clip, from its steps [T-1]."""
  largest = steps.max()
  return bool(
    largest > _CUT_STEP and largest > _CUT_RATIO * max(np.median(steps), 1e-3)
  )
