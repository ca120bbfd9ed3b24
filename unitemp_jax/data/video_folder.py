"""Clips of a folder of the user's own videos: scene changes, windows, pixels.

Each file is decoded once, in little memory, to find scene changes (at the
file's own rate, where they are sharpest) and to see whether it can be read at
all. What was found is kept, so that an interrupted run goes on with the next
file, and another length or rate decodes nothing again. The pixels of a clip
are decoded when they are needed.
"""

import collections
import dataclasses
import functools
import io
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitemp_jax import files, timeline
from unitemp_jax.data.video_list import (
  SHORT,
  Bucket,
  VideoFolderSpec,
  open_video,
  sha256_of,
)
from unitemp_jax.errors import UserError
from unitemp_jax.video import read
from unitemp_jax.video.read import fit

_THUMBNAIL = (36, 64)  # height, width
_MIN_CHANGE = 10.0  # mean grey levels
_MIN_RATIO = 2.0
_NEIGHBOURS = 3  # steps on either side
_SEEK = 2.0  # seconds from which on a window is looked for in the file


@dataclasses.dataclass(frozen=True)
class Scan:
  """What a file holds."""

  times: np.ndarray  # float64 [n], seconds of its frames since the first
  rate: float  # its frames per second
  cuts: np.ndarray  # int [c], numbers of the frames that begin another scene
  size: tuple[int, int]  # height and width in pixels, as shown
  sha256: str  # of the file

  def shown(self, fps: float) -> np.ndarray:
    """Int [k], the frame that is shown at each time of another rate."""
    numbered = ((t, self.rate, i) for i, t in enumerate(self.times.tolist()))
    return np.array(list(read.resample(numbered, fps)), np.int64)


@dataclasses.dataclass(frozen=True)
class Clip:
  """One window of a file."""

  file: str  # path below the folder, with slashes; TAR/NAME for one in a tar
  caption: str  # what is seen
  frames: np.ndarray  # int [T], numbers of the file's frames
  times: np.ndarray  # float64 [T], their seconds
  sha256: str  # of the file


def find_cuts(changes: np.ndarray) -> np.ndarray:
  """Finds hard cuts.

  A cut is a step that is large and at least twice as large as each of the steps
  around it: fast motion is large for several steps, a flash makes two. Slow
  dissolves are not found.

  Args:
    changes: [n - 1], mean absolute difference of following thumbnails.

  Returns:
    int [c], numbers of the frames that begin another scene.
  """
  cuts = []
  for step in np.flatnonzero(changes > _MIN_CHANGE):
    low = max(step - _NEIGHBOURS, 0)
    around = np.delete(changes[low : step + _NEIGHBOURS + 1], step - low)
    if changes[step] > _MIN_RATIO * around.max(initial=0.0):
      cuts.append(step + 1)
  return np.array(cuts, np.int64)


def plan_windows(
  shown: np.ndarray,
  cuts: np.ndarray,
  lengths: Sequence[int],
  short: str = 'drop',
) -> list[np.ndarray]:
  """Cuts a resampled video into windows that lie within one scene.

  Args:
    shown: int [k], the file's frame shown at each time of the new rate.
    cuts: see `find_cuts`.
    lengths: frames of a window; each gets the longest that is left.
    short: see `VideoFolderSpec`.

  Returns:
    Windows int [T], each of one of the lengths.
  """
  scene, windows = np.searchsorted(cuts, shown, side='right'), []
  for number in np.unique(scene):
    frames = shown[scene == number]
    for length in sorted(set(lengths), reverse=True):
      while len(frames) >= length:
        windows.append(frames[:length])
        frames = frames[length:]
    least = min(lengths)
    if short == 'pad' and 2 * len(frames) >= least:
      windows.append(np.pad(frames, (0, least - len(frames)), mode='edge'))
  return windows


def nearest_bucket(
  size: tuple[int, int], buckets: Sequence[Bucket]
) -> tuple[int, int]:
  """Height and width of the bucket of the nearest aspect ratio."""
  ratio = np.log(size[0] / size[1])
  return min(
    ((height, width) for height, width, _ in buckets),
    key=lambda bucket: abs(np.log(bucket[0] / bucket[1]) - ratio),
  )


def clips(
  spec: VideoFolderSpec, file: str, caption: str, found: Scan
) -> list[Clip]:
  """The clips of a file that belong to this set.

  UserError if no scene is long enough.
  """
  buckets = spec.buckets or (spec.bucket,)
  shape = nearest_bucket(found.size, buckets)
  lengths = [bucket[2] for bucket in buckets if bucket[:2] == shape]
  shown = found.shown(spec.fps)
  windows = plan_windows(shown, found.cuts, lengths, spec.short)
  if not windows:
    raise UserError(_too_short(spec, file, found, shown, min(lengths)))
  if shape != spec.bucket[:2]:
    return []
  return [
    Clip(file, caption, window, found.times[window], found.sha256)
    for window in windows
    if len(window) == spec.num_frames
  ]


def _too_short(
  spec: VideoFolderSpec, file: str, found: Scan, shown: np.ndarray, least: int
) -> str:
  count = len(found.cuts)
  scenes = f'{count + 1} scenes' if count else 'one scene'
  scene = np.searchsorted(found.cuts, shown, side='right')
  longest = max(collections.Counter(scene.tolist()).values())
  mends = []
  fits = 1 + timeline.STRIDE * ((longest - 1) // timeline.STRIDE)
  if fits > 1:
    mends.append(f'num_frames={fits}')
  if spec.short == 'drop' and 2 * longest >= least:
    mends.append('short=pad')
  mend = f'; {" or ".join(mends)} would keep it' if mends else ''
  return (
    f'{os.path.join(spec.videos, file)} is too short: {len(shown)} frames at '
    f'{spec.fps:g} fps in {scenes}, {least} are needed in one{mend}.'
  )


def choices(
  spec: VideoFolderSpec, scans: Sequence[Scan]
) -> list[tuple[str, int, float]]:
  """What each choice of length would keep, of the files that can be read.

  Returns:
    The choice, in options; clips; the share of the frames that they show.
  """
  if spec.buckets:
    return []
  shorter = {
    1 + timeline.STRIDE * round((spec.num_frames - 1) * part / timeline.STRIDE)
    for part in (0.95, 0.75, 0.5)
  }
  lengths = [spec.num_frames, *sorted(shorter - {spec.num_frames, 1})[::-1]]
  shown = [found.shown(spec.fps) for found in scans]
  total = max(sum(map(len, shown)), 1)
  table = []
  for length in lengths:
    for short in SHORT:
      made = [
        window
        for frames, found in zip(shown, scans, strict=True)
        for window in plan_windows(frames, found.cuts, [length], short)
      ]
      kept = sum(len(np.unique(window)) for window in made)
      name = f'--num_frames={length} --short={short}'
      table.append((name, len(made), min(kept / total, 1.0)))
  return table


def scan(spec: VideoFolderSpec, file: str, kept: str | None = None) -> Scan:
  """Decodes a file once, unless what it holds is known.

  Args:
    spec: the folder.
    file: path below it.
    kept: folder of what was found in files before; those that have changed
      since are read again.

  Raises:
    UserError: the file cannot be read.
  """
  record = None
  if kept is not None:
    base = file.partition('.tar/')[0] + '.tar' if '.tar/' in file else file
    stat = os.stat(os.path.join(spec.videos, base))
    key = files.sha256(f'{file} {stat.st_size} {stat.st_mtime_ns}')[:24]
    record = pathlib.Path(kept) / key[:2] / f'{key[2:]}.npz'
    found = _read_scan(record)
    if found is not None:
      return found
  found = _scan(spec.videos, file)
  if record is not None:
    content = io.BytesIO()
    np.savez_compressed(content, **dataclasses.asdict(found))
    files.write(record, content.getvalue())
  return found


# NumPy reads headers by ast.literal_eval, which in Python 3.11 is not safe to
# call from several threads: "AST constructor recursion depth mismatch".
_READING = threading.Lock()


def _read_scan(path: pathlib.Path) -> Scan | None:
  if not path.is_file():
    return None
  try:
    with _READING, np.load(path) as arrays:
      height, width = arrays['size'].tolist()
      # Increasing times of the frames, and numbers of some of them.
      times = [np.float64(arrays['times']), np.float64(arrays['cuts'])]
      if any(x.ndim != 1 or not (np.diff(x) >= 0).all() for x in times):
        raise ValueError('its frames are in no order')
      if not len(times[0]) or not 0 < float(arrays['rate']) < np.inf:
        raise ValueError('it has no frames or no rate')
      return Scan(
        arrays['times'],
        float(arrays['rate']),
        arrays['cuts'],
        (height, width),
        str(arrays['sha256']),
      )
  except (*files.UNREADABLE, KeyError):
    return None  # It is made again.


def _scan(videos: str, file: str) -> Scan:
  path, content = open_video(videos, file)
  times, changes, rates = [], [], []
  previous = None
  for time, rate, frame in read.decode(path, file=content, size=_THUMBNAIL):
    times.append(time)
    rates.append(rate)
    small = frame.astype(np.int16)
    if previous is not None:
      changes.append(float(np.abs(small - previous).mean()))
    previous = small
  _, content = open_video(videos, file)
  size = next(read.decode(path, file=content))[2].shape[:2]
  return Scan(
    np.array(times, np.float64),
    rates[0],
    find_cuts(np.array(changes)),
    (size[0], size[1]),
    sha256_of(videos, file),
  )


@functools.lru_cache(maxsize=4096)
def _unchanged(videos: str, file: str, sha256: str) -> bool:
  return sha256_of(videos, file) == sha256


def read_clip(videos: str, clip: Clip, height: int, width: int) -> np.ndarray:
  """Decodes a clip, resized and cropped.

  Args:
    videos: folder of the file.
    clip: which frames of it.
    height: pixels.
    width: pixels.

  Returns:
    uint8 [T, height, width, 3].

  Raises:
    UserError: the file is missing, cannot be read, or is another one by now.
  """
  if not _unchanged(videos, clip.file, clip.sha256):
    raise UserError(
      f'{os.path.join(videos, clip.file)} has changed since it was indexed; '
      'restore it, or run the command again for a new index.'
    )
  made = None
  if clip.times[0] > _SEEK:
    made = _read(videos, clip, height, width, seek=True)
  if made is None:
    made = _read(videos, clip, height, width, seek=False)
  if made is None:
    raise UserError(
      f'{os.path.join(videos, clip.file)} ends before frame '
      f'{clip.frames[-1]}; run the command again for a new index.'
    )
  return made


def _read(
  videos: str, clip: Clip, height: int, width: int, seek: bool
) -> np.ndarray | None:
  """The frames of a clip, None if they are not all found."""
  path, content = open_video(videos, clip.file)
  wanted = clip.times if seek else clip.frames
  # From well before it, since frames are not stored in the order of time.
  start = float(clip.times[0]) - _SEEK / 2 if seek else 0.0
  out = np.empty((len(wanted), height, width, 3), np.uint8)
  place = 0
  frames = read.decode(path, file=content, start=start)
  for number, (time, _, frame) in enumerate(frames):
    here = time if seek else number
    if here == wanted[place]:
      out[place] = fit(frame, height, width)
      place += 1
      while place < len(wanted) and wanted[place] == here:
        out[place] = out[place - 1]
        place += 1
    elif here > wanted[place]:
      return None
    if place == len(wanted):
      return out
  return None


class VideoClips:
  """Clips of an index, decoded when they are asked for: [i] -> dict.

  Beside what the record says, `video` uint8 [T, height, width, 3] and `index`.
  """

  def __init__(self, source: Any, videos: str, height: int, width: int):
    """Of a data source of records, and the folder of the videos."""
    self.records = source
    self._videos, self._size = videos, (height, width)

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, i: int) -> dict[str, Any]:
    row = self.records[i]
    file, caption, sha256 = (
      value.decode() if isinstance(value, bytes) else value
      for value in (row['file'], row['caption'], row['sha256'])
    )
    clip = Clip(file, caption, row['frames'], row['times'], sha256)
    video = read_clip(self._videos, clip, *self._size)
    return {**row, 'video': video, 'index': i}
