"""A folder of the user's own videos: captions, scene changes, windows.

Each file is decoded twice and never held in memory: once to find scene changes
(at the file's own rate, where they are sharpest) and to see whether it can be
read at all, once to cut the windows.
"""

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from unitemp_jax.errors import UserError
from unitemp_jax.video import read
from unitemp_jax.video.read import fit

SUFFIXES = ('.mp4', '.mov', '.webm', '.gif', '.mkv', '.avi', '.m4v')
_THUMBNAIL = (64, 36)  # width, height
_MIN_CHANGE = 10.0  # mean grey levels
_MIN_RATIO = 2.0
_NEIGHBOURS = 3  # steps on either side

Skip = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class VideoFolderSpec:
  """What to make of a folder of videos.

  Attributes:
    videos: folder, searched with all its subfolders.
    fps: frames per second of the clips.
    height: pixels.
    width: pixels.
    num_frames: T, frames per clip.
    captions: CSV or JSONL file with the columns `file` (path below the folder)
      and `caption`; None reads `name.txt` beside each `name.mp4`.
  """

  videos: str
  fps: float
  height: int
  width: int
  num_frames: int
  captions: str | None = None

  def __post_init__(self):
    numbers = (self.fps, self.height, self.width, self.num_frames)
    if min(numbers) <= 0:
      raise UserError(
        'fps, height, width and num_frames must be positive, got '
        f'{", ".join(map(str, numbers))}.'
      )
    if not os.path.isdir(self.videos):
      raise UserError(f'There is no folder {self.videos}.')


@dataclasses.dataclass(frozen=True)
class Video:
  """One file: its path below the folder, its caption, its windows.

  Attributes:
    file: path below the folder, with slashes.
    caption: what is seen.
    windows: int [n, T], numbers of the file's frames that make up each clip.
    cuts: int [c], numbers of the frames that begin another scene.
  """

  file: str
  caption: str
  windows: np.ndarray
  cuts: np.ndarray


def list_videos(spec: VideoFolderSpec, skip: Skip) -> list[tuple[str, str]]:
  """Lists the videos that have a caption.

  Args:
    spec: the folder and where its captions are.
    skip: called with a file and the reason why it is left out.

  Returns:
    (path below the folder, caption) per video, sorted.

  Raises:
    UserError: the caption file is missing or cannot be understood, or the
      folder holds no video.
  """
  root = pathlib.Path(spec.videos)
  files = sorted(
    path.relative_to(root).as_posix()
    for path in root.rglob('*')
    if path.suffix.lower() in SUFFIXES and path.is_file()
  )
  if not files:
    raise UserError(
      f'There is no video in {spec.videos}: looked for {", ".join(SUFFIXES)}.'
    )
  captions = _read_captions(spec.captions) if spec.captions else {}
  for file in sorted(set(captions) - set(files)):
    skip(file, f'is named in {spec.captions} but is not in {spec.videos}')
  listed = []
  for file in files:
    sidecar = (root / file).with_suffix('.txt')
    wanted = f'a row in {spec.captions}' if spec.captions else sidecar.name
    try:
      if spec.captions:
        caption = captions.get(file, '')
      else:
        caption = sidecar.read_text('utf-8-sig') if sidecar.exists() else ''
    except (OSError, UnicodeDecodeError) as error:
      skip(file, f'its caption {sidecar.name} cannot be read: {error}')
      continue
    if caption.strip():
      listed.append((file, ' '.join(caption.split())))
    else:
      skip(file, f'has no caption: write {wanted}')
  return listed


def _read_captions(path: str) -> dict[str, str]:
  """Reads a caption file: file -> caption."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      lines = file.read()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'Cannot read the captions {path}: {error}.') from error
  if path.endswith('.csv'):
    rows = _csv_rows(path, lines)
  elif path.endswith(('.jsonl', '.json')):
    rows = _jsonl_rows(path, lines)
  else:
    raise UserError(f'The caption file {path} must end in .csv or .jsonl.')
  captions: dict[str, str] = {}
  for number, row in rows:
    name, caption = row.get('file'), row.get('caption')
    if not isinstance(name, str) or not isinstance(caption, str):
      raise UserError(
        f'Line {number} of {path} lacks a file or a caption: both are needed.'
      )
    name = pathlib.PurePath(os.path.normpath(name)).as_posix()
    if name in captions:
      raise UserError(f'Line {number} of {path} names {name} a second time.')
    captions[name] = caption
  return captions


def _csv_rows(path: str, text: str) -> Iterator[tuple[int, dict]]:
  reader = csv.DictReader(text.splitlines(keepends=True))
  columns = reader.fieldnames or []
  if not {'file', 'caption'} <= set(columns):
    raise UserError(
      f'{path} needs the columns file and caption, its first line has '
      f'{", ".join(columns) or "nothing"}.'
    )
  try:
    for row in reader:
      yield reader.line_num, row
  except csv.Error as error:
    raise UserError(f'Line {reader.line_num} of {path}: {error}.') from error


def _jsonl_rows(path: str, text: str) -> Iterator[tuple[int, dict]]:
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as error:
      raise UserError(
        f'Line {number} of {path} is no JSON: {error}.'
      ) from error
    if not isinstance(row, dict):
      raise UserError(f'Line {number} of {path} is no JSON object.')
    yield number, row


def thumbnail(frame: np.ndarray) -> np.ndarray:
  """Shrinks uint8 [H, W, 3] to what the scene detector looks at, float32."""
  image = Image.fromarray(np.ascontiguousarray(frame))
  small = image.resize(_THUMBNAIL, Image.Resampling.BOX)
  return np.asarray(small, np.float32)


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
  shown: np.ndarray, cuts: np.ndarray, num_frames: int
) -> np.ndarray:
  """Cuts a resampled video into windows that lie within one scene.

  Args:
    shown: int [k], the file's frame shown at each time of the new rate.
    cuts: see `find_cuts`.
    num_frames: T; what remains of a scene is left out.

  Returns:
    int [n, T].
  """
  scene = np.searchsorted(cuts, shown, side='right')
  windows = [np.empty((0, num_frames), np.int64)]
  for number in np.unique(scene):
    frames = shown[scene == number]
    count = len(frames) // num_frames
    windows.append(frames[: count * num_frames].reshape(count, num_frames))
  return np.concatenate(windows)


def scan(spec: VideoFolderSpec, file: str, caption: str) -> Video:
  """Decodes a file once: finds its cuts and its windows.

  Raises:
    UserError: the file cannot be read, or no scene is long enough.
  """
  path = os.path.join(spec.videos, file)
  changes: list[float] = []

  def numbered() -> Iterator[tuple[float, float, int]]:
    previous = None
    for number, (time, rate, frame) in enumerate(read.decode(path)):
      small = thumbnail(frame)
      if previous is not None:
        changes.append(float(np.abs(small - previous).mean()))
      previous = small
      yield time, rate, number

  shown = np.array(list(read.resample(numbered(), spec.fps)), np.int64)
  cuts = find_cuts(np.array(changes))
  windows = plan_windows(shown, cuts, spec.num_frames)
  if not len(windows):
    scenes = f'{len(cuts) + 1} scenes' if len(cuts) else 'one scene'
    raise UserError(
      f'{path} is too short: {len(shown)} frames at {spec.fps:g} fps in '
      f'{scenes}, {spec.num_frames} are needed in one.'
    )
  return Video(file, caption, windows, cuts)


def read_windows(spec: VideoFolderSpec, video: Video) -> Iterator[np.ndarray]:
  """Decodes the windows of a file, resized and cropped.

  Yields:
    uint8 [T, height, width, 3] for each window.

  Raises:
    UserError: the file cannot be read.
  """
  wanted = video.windows.reshape(-1)
  path, place, clip = os.path.join(spec.videos, video.file), 0, []
  for number, (_, _, frame) in enumerate(read.decode(path)):
    while place < len(wanted) and wanted[place] == number:
      clip.append(fit(frame, spec.height, spec.width))
      place += 1
      if len(clip) == spec.num_frames:
        yield np.stack(clip)
        clip = []
