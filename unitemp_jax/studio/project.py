"""A project on disk: its timeline, what was given to it, and its versions.

    PROJECT/studio.json           the timeline, its past, and what was given
    PROJECT/given/ID.png          pictures and clips, named by their content
    PROJECT/0001/studio.json      a version: timeline, command and state
    PROJECT/0001/long/0000-*.mp4  its files, as `unitemp generate` writes them

A version that is queued is in the queue, one that is running when the program
starts was interrupted. Versions without a record, made by the command line, are
as good as any other.
"""

import contextlib
import dataclasses
import functools
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.generate.clips import Job
from unitemp_jax.report import read as report
from unitemp_jax.studio import timeline as lines
from unitemp_jax.studio.timeline import Piece, Timeline
from unitemp_jax.video import read, write

Jobs = Callable[[list[str]], list[Job]]
Script = Callable[[list[str]], str]
RECORD, GIVEN = 'studio.json', 'given'
QUEUED, RUNNING, DONE = 'queued', 'running', 'done'
FAILED, CANCELLED = 'failed', 'cancelled'
# Of a finished clip, on a page.
_SHOWN = ('prompt', 'order', 'seed', 'frames', 'fps', 'width', 'height')
_SHOWN += ('block_frames', 'boundary_frames', 'timings')
_MOST_STEPS = 100  # that undo goes back over
_MOST_WAITING = 100  # versions of a project in the queue
_MOST_PIXELS = 64 * 2**20  # of one picture
_MOST_SIDE, _MOST_RATIO = 16384, 32  # of a picture: pixels, long by short side
_MOST_BYTES = 2**30  # of the frames of one clip
_TILES, _TILE = 16, 64  # of a strip: number and height
# First bytes -> ending. Nothing else is handed to a decoder: text that names
# other files, as play lists do, is no clip.
_MAGIC = {
  rb'\x89PNG': '.png',
  rb'\xff\xd8\xff': '.jpg',
  rb'BM': '.bmp',
  rb'RIFF....WEBP': '.webp',
  rb'RIFF....AVI ': '.avi',
  rb'GIF8': '.gif',
  rb'\x1aE\xdf\xa3': '.mkv',
  rb'....ftyp': '.mp4',
}


@dataclasses.dataclass(frozen=True)
class Version:
  """One video of a project.

  Attributes:
    name: of the version in the project.
    record: what the studio knows of it; empty if it was made elsewhere.
    clip: its mp4, which need not be there yet.
  """

  name: str
  record: Mapping[str, Any]
  clip: Path

  @property
  def state(self) -> str:
    """One of the constants of this file."""
    state = self.record.get('state', DONE)
    # The command line may have finished what was stopped here.
    stopped = state in (CANCELLED, FAILED)
    return DONE if stopped and self.sidecar.is_file() else state

  @property
  def sidecar(self) -> Path:
    """What is written last of a clip."""
    return self.clip.with_suffix('.json')

  @property
  def frames_file(self) -> Path:
    """The exact frames where they were kept."""
    exact = self.clip.with_suffix('.mkv')
    return exact if exact.is_file() else self.clip


class Project:
  """A folder of versions; used by several threads."""

  def __init__(
    self, folder: Path, model: Path, card: Any, jobs: Jobs, script: Script
  ):
    """Opens it.

    Args:
      folder: of the project.
      model: folder of the model.
      card: of the model.
      jobs: words of `unitemp generate` to the clips they ask for.
      script: the same to the Python that makes their frames.
    """
    self.folder, self.name = folder, folder.name
    self.model, self.card, self.script = model, card, script
    self._jobs, self._lock = jobs, threading.RLock()

  def _record(self) -> dict[str, Any]:
    path = self.folder / RECORD
    return files.read_json(path) if path.is_file() else {}

  @property
  def timeline(self) -> Timeline:
    """As it stands on the pages."""
    with self._lock, contextlib.suppress(UserError, KeyError):
      return Timeline.read(self._record()['timeline'])
    return Timeline(self.card.frames)

  @property
  def given(self) -> dict[str, dict[str, Any]]:
    """What was given, by id: name, file, frames, width and height."""
    return self._record().get('given', {})

  def _keep(self, **values: Any) -> None:
    with self._lock:
      record = self._record() | values
      files.write_json(self.folder / RECORD, record)

  def keep_timeline(self, line: Timeline, step: bool = True) -> None:
    """Puts it on all pages; `step`: undo goes back to the one before."""
    with self._lock:
      before = self.timeline.record()
      values: dict[str, Any] = {'timeline': line.record()}
      if step and before != values['timeline']:
        past = [*self._record().get('past', []), before]
        values |= {'past': past[-_MOST_STEPS:], 'future': []}
      self._keep(**values)

  def steps(self) -> tuple[int, int]:
    """How far undo and redo can go."""
    record = self._record()
    return len(record.get('past', ())), len(record.get('future', ()))

  def undo(self, back: str = 'past', on: str = 'future') -> Timeline:
    """Goes a step back, or on again with the two changed; the new timeline."""
    with self._lock:
      record = self._record()
      if record.get(back):
        *rest, line = record[back]
        undone = [*record.get(on, []), record['timeline']]
        self._keep(**{'timeline': line, back: rest, on: undone})
      return self.timeline

  def give(self, upload: Path, name: str) -> str:
    """Keeps what was uploaded and returns its id.

    Raises:
      UserError: it is neither a picture nor a clip, or too large.
    """
    frames, ending = read_upload(upload, self.card.fps)
    source = files.file_sha256(upload)[:16]
    path = self.folder / GIVEN / f'{source}{ending}'
    path.parent.mkdir(parents=True, exist_ok=True)
    write.write_image(self.strip(source), strip(frames))
    os.replace(upload, path)
    count, height, width, _ = frames.shape
    name = re.sub(r'[^\w .()-]', '_', name)[-80:].lstrip('.') or 'picture'
    about = {'file': path.name, 'frames': count}
    about |= {'width': width, 'height': height}
    with self._lock:
      others = {k: v for k, v in self.given.items() if k != source}
      taken = {other['name'] for other in others.values()}
      about['name'] = _unique(name, taken)
      self._keep(given={**others, source: about})
    return source

  def strip(self, source: str) -> Path:
    """The picture that shows what was given."""
    return self.folder / GIVEN / f'{source}.strip.png'

  def _source(self, name: str) -> Path:
    given = self.given.get(name)
    if given:
      return self.folder / GIVEN / given['file']
    version = self.versions().get(name)
    if version is None or version.state != DONE:
      raise UserError('a piece of the timeline is not there; remove it.')
    return version.frames_file

  def _files(self, line: Timeline, folder: Path) -> dict[Piece, Path]:
    """Files of the pieces; those that are cut are written to the folder."""
    paths = {p.source: self._source(p.source) for p in line.pieces}
    fps = self.card.fps
    counts = {name: len(frames_of(path, fps)) for name, path in paths.items()}
    if lines.hole(line, counts):
      return {piece: paths[piece.source] for piece in line.pieces}
    return {p: _cut(paths[p.source], p, fps, folder) for p in line.pieces}

  def job(self, line: Timeline, out: Path, cuts: Path) -> tuple[Job, list[str]]:
    """What a timeline asks for, and the words that say so.

    Args:
      line: the timeline.
      out: folder of the version.
      cuts: where cut pieces and a storyboard are written.

    Raises:
      UserError: it cannot be made, in the words of the program.
    """
    pieces = self._files(line, cuts)
    words = [f'--model={self.model}', f'--out={out}']
    board = _board(line, pieces, cuts)
    words += lines.words(line, pieces, board, self.card.frames)
    try:
      return self.job_of(words), words
    except UserError as error:
      # A page knows neither folders nor lines of a file that it did not write.
      text = re.sub(r'\S*/([\w-]+)\.yaml(:\d+)?: ', '', str(error))
      raise UserError(text) from error

  def job_of(self, words: Sequence[str]) -> Job:
    """The one clip that words of `unitemp generate` ask for."""
    [job] = self._jobs(list(words))
    return job

  def storyboard(self, line: Timeline) -> str:
    """The timeline as a storyboard of what was given, by name."""
    names = {}
    for piece, path in self._files(line, self.folder / GIVEN).items():
      source = path.stem
      if source not in self.given:
        copy = path.with_name(f'{path.name}.copy')
        shutil.copyfile(path, copy)
        label = f'{piece.source} {piece.first}-{piece.last}{path.suffix}'
        source = self.give(copy, label)
      names[piece] = self.given[source]['name']
    return lines.to_storyboard(line, names)

  def open_storyboard(self, text: bytes) -> Timeline:
    """The timeline of a storyboard of what was given, by name."""
    sources = {
      about['name']: (source, about['frames'])
      for source, about in self.given.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
      path = Path(scratch) / 'storyboard'
      path.write_bytes(text)
      try:
        return lines.from_storyboard(path, self.card, sources)
      except UserError as error:
        raise UserError(str(error).replace(f'{scratch}/', '')) from error

  def queue(self, line: Timeline) -> str:
    """Puts a version into the queue and returns its name."""
    with self._lock:
      waiting = [v for v in self.versions().values() if v.state == QUEUED]
      if len(waiting) >= _MOST_WAITING:
        raise UserError(
          f'{len(waiting)} videos wait already; cancel some, or let them be '
          'made first.'
        )
      numbers = [int(n) for n in self._names() if n.isdecimal()]
      name = f'{max(numbers, default=0) + 1:04d}'
      folder = self.folder / name
      job, words = self.job(line, folder, self.folder / GIVEN)
      record = {
        'state': QUEUED,
        'since': time.time(),
        'timeline': line.record(),
        'words': words,
        'clip': job.path.relative_to(folder).as_posix(),
      }
      files.write_json(folder / RECORD, record)
    return name

  def note(self, name: str, **values: Any) -> None:
    """Changes what is known of a version of the studio."""
    path = self.folder / name / RECORD
    with self._lock:
      files.write_json(path, files.read_json(path) | values)

  def _names(self) -> list[str]:
    with (
      contextlib.suppress(FileNotFoundError),
      os.scandir(self.folder) as all_,
    ):
      return sorted(entry.name for entry in all_ if entry.is_dir())
    return []

  def versions(self) -> dict[str, Version]:
    """All versions by name, those of the studio in the order of their making.

    Those of the command line are named FOLDER:CLIP.
    """
    found, own = {}, {}
    for name in self._names():
      folder = self.folder / name
      if (folder / RECORD).is_file():
        with contextlib.suppress(UserError):
          record = files.read_json(folder / RECORD, keys=('clip', 'state'))
          own[name] = Version(name, record, folder / record['clip'])
      elif name != GIVEN:
        for sidecar in sorted(folder.glob('*.json')):
          key = f'{name}:{sidecar.stem}'
          found[key] = Version(key, {}, sidecar.with_suffix('.mp4'))
    return found | own

  def about(self, version: Version) -> dict[str, Any]:
    """What a page shows of a version."""
    record, sidecar = version.record, version.sidecar
    shown: dict[str, Any] = {'name': version.name, 'state': version.state}
    shown |= {k: record[k] for k in ('timeline',) if k in record}
    if 'problem' in record:
      shown['problem'] = without_folders(record['problem'])
    if 'words' in record:
      words = ['unitemp', 'generate', *record['words']]
      shown['command'] = shlex.join(words)
    if version.state == DONE:
      try:
        shown |= _facts(sidecar, sidecar.stat().st_mtime_ns)
      except (OSError, UserError) as error:
        shown |= {'state': FAILED, 'problem': without_folders(str(error))}
    else:
      shown['partial'] = version.clip.with_suffix('.partial.mp4').is_file()
    return shown


def without_folders(sentence: str) -> str:
  """The sentence with files' names alone: a page knows no folders."""
  return re.sub(r'(?<![\w.:/])/(?:[^\s/]+/)+', '', sentence)


def _unique(name: str, taken: Container[str]) -> str:
  """The name, with a number where another has it: storyboards go by names."""
  path, number, found = Path(name), 1, name
  while found in taken:
    number += 1
    found = f'{path.stem} {number}{path.suffix}'
  return found


def _board(line: Timeline, pieces: Mapping[Piece, Path], cuts: Path) -> Path:
  if line.order != 'scenes':
    return cuts
  # Paths are relative to its own folder.
  names = {p: os.path.relpath(path, cuts) for p, path in pieces.items()}
  text = lines.to_storyboard(line, names)
  return files.write(cuts / f'{files.sha256(text)[:16]}.yaml', text)


@functools.lru_cache(1024)
def _facts(sidecar: Path, _: int) -> dict[str, Any]:
  clip = report.read_clip(sidecar.parents[1], sidecar)
  facts = {name: getattr(clip, name) for name in _SHOWN}
  return facts | {'frame_difference': list(clip.frame_difference)}


def frames_of(path: Path, fps: float) -> np.ndarray:
  """Frames `[n, H, W, 3]` of a picture or clip; those of a few are kept."""
  return _frames(path, path.stat().st_mtime_ns, fps)


def _cut(path: Path, piece: Piece, fps: float, folder: Path) -> Path:
  """The file of a piece: that of the source if it is all of it."""
  frames = frames_of(path, fps)
  if piece.last >= len(frames):
    raise UserError('a piece of the timeline ends after its source; trim it.')
  if piece.count == len(frames):
    return path
  ending = 'png' if piece.count == 1 else 'mkv'
  key = files.sha256(str(path.resolve()))[:8]
  name = f'{key}-{piece.first}-{piece.last}.{ending}'
  cut = folder / name
  if not cut.is_file():
    own = frames[piece.first : piece.last + 1]
    if ending == 'png':
      write.write_image(cut, own[0])
    else:
      with write.open_video(cut, fps, kind='mkv') as append:
        append(own)
  return cut


@functools.lru_cache(8)
def _frames(path: Path, _: int, fps: float) -> np.ndarray:
  return read.read_frames(path, fps)


def read_upload(path: Path, fps: float) -> tuple[np.ndarray, str]:
  """Frames `[n, H, W, 3]` of a file that somebody sent, and its ending.

  Raises:
    UserError: it is neither a picture nor a clip, is damaged, or too large.
  """
  with path.open('rb') as file:
    head = file.read(16)
  endings = [e for m, e in _MAGIC.items() if re.match(m, head, re.DOTALL)]
  if not endings:
    raise UserError(
      'this is neither a picture (PNG, JPEG, WebP, BMP) nor a clip (mp4, mov, '
      'webm, mkv, avi, GIF).'
    )
  picture = endings[0] in ('.png', '.jpg', '.bmp', '.webp')
  with read.reading(path):
    if picture or endings[0] == '.gif':
      with Image.open(path) as image:
        width, height = image.size
        if getattr(image, 'n_frames', 1) == 1:
          picture = True
    else:
      with av.open(str(path)) as container:
        context = read.video_stream('this clip', container).codec_context
        ratio = float(context.sample_aspect_ratio or 1)
        width = round(context.width * max(ratio, 1))
        height = round(context.height / min(ratio, 1))
  if width * height > _MOST_PIXELS:
    raise UserError(
      f'{width}x{height} pixels are too many; use at most {_MOST_PIXELS}.'
    )
  if max(width, height) > min(_MOST_SIDE, _MOST_RATIO * min(width, height)):
    raise UserError(
      f'{width}x{height} pixels are no picture for a video; use at most '
      f'{_MOST_SIDE} a side, and sides up to 1:{_MOST_RATIO}.'
    )
  try:
    if picture:  # A still GIF too; pictures are read by what they hold.
      ending = '.png' if endings[0] == '.gif' else endings[0]
      return read.read_image(path)[None], ending
    return read.read_video(path, fps, _MOST_BYTES)[0], endings[0]
  except UserError as error:  # Its name here says nothing to who sent it.
    raise UserError(str(error).replace(str(path), 'this file')) from error


def strip(frames: np.ndarray) -> np.ndarray:
  """Evenly spaced frames side by side, of one height."""
  count, height, width, _ = frames.shape
  shown = np.linspace(0, count - 1, min(count, _TILES)).round().astype(int)
  wide = min(max(round(_TILE * width / height), 1), 8 * _TILE)
  return np.concatenate([read.fit(frames[k], _TILE, wide) for k in shown], 1)
