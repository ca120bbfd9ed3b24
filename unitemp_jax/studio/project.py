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
from pathlib import Path
from typing import Any, TypeVar

from unitemp_jax import files
from unitemp_jax.data import typed_json
from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file
from unitemp_jax.generate.call import Call
from unitemp_jax.generate.clip_file import Job
from unitemp_jax.generate.workflows import Model
from unitemp_jax.report import read as report
from unitemp_jax.studio import given as pieces
from unitemp_jax.studio import storyboards
from unitemp_jax.studio import timeline as lines
from unitemp_jax.studio.timeline import Piece, Source, Timeline
from unitemp_jax.video import write

RECORD, GIVEN = 'studio.json', 'given'
QUEUED, RUNNING, DONE = 'queued', 'running', 'done'
FAILED, CANCELLED = 'failed', 'cancelled'
_MOST_STEPS = 100  # that undo goes back over
_MOST_WAITING = 100  # versions of a project in the queue
# Of a finished clip, on a page.
_SHOWN = ('prompt', 'order', 'seed', 'frames', 'fps', 'width', 'height')
_SHOWN += ('block_frames', 'boundary_frames', 'timings')
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Given:
  """A picture or clip that was given."""

  file: str
  name: str
  frames: int
  width: int
  height: int

  def __post_init__(self):
    """Refuses, by ValueError, a file that lies elsewhere."""
    if '/' in self.file:
      raise ValueError(f'its file is {self.file:.60}')


@dataclasses.dataclass(frozen=True)
class State:
  """What is known of a project; timelines are read when they are needed."""

  timeline: dict = dataclasses.field(default_factory=dict)
  past: tuple[dict, ...] = ()
  future: tuple[dict, ...] = ()
  given: dict[str, Given] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Record:
  """What the studio knows of a version."""

  state: str  # one of the constants above
  timeline: dict  # empty if it was made elsewhere
  clip: str  # its mp4, in the version's folder
  since: float = 0.0  # when it was queued
  starts: int = 0
  words: tuple[str, ...] = ()  # options of `unitemp generate`
  problem: str = ''

  def __post_init__(self):
    """Refuses, by ValueError, a clip that lies elsewhere."""
    parts = self.clip.split('/')
    if '' in parts or '..' in parts or not self.clip.endswith('.mp4'):
      raise ValueError(f'its clip is {self.clip:.60}')


_ELSEWHERE = Record(DONE, {}, '.mp4')


def _read(path: Path, kind: type[T]) -> T:
  what, mend = f'the record of {path.parent.name}', 'delete it: videos stay'
  return typed_json.read(path, kind, what, mend)


@dataclasses.dataclass(frozen=True)
class Version:
  """One video of a project."""

  name: str  # of the version in the project
  clip: Path  # its mp4, which need not be there yet
  record: Record

  @property
  def state(self) -> str:
    """One of the constants of this file."""
    # The command line may have finished what was stopped here.
    stopped = self.record.state in (CANCELLED, FAILED)
    return DONE if stopped and self.sidecar.is_file() else self.record.state

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

  def __init__(self, folder: Path, home: Path, model: Model):
    """Opens a project of the model of a folder, its home."""
    self.folder, self.name = folder, folder.name
    self.home, self.model, self.card = home, model, model.card
    self._lock = threading.RLock()

  def _state(self) -> State:
    path = self.folder / RECORD
    return _read(path, State) if path.is_file() else State()

  def _keep(self, **values: Any) -> None:
    state = dataclasses.replace(self._state(), **values)
    files.write_json(self.folder / RECORD, dataclasses.asdict(state))

  @property
  def timeline(self) -> Timeline:
    """As it stands on the pages."""
    with contextlib.suppress(UserError):
      return Timeline.read(self._state().timeline)
    return Timeline(self.card.frames)

  def keep_timeline(self, line: Timeline, step: bool = True) -> None:
    """Puts it on all pages; `step`: undo goes back to the one before."""
    with self._lock:
      state, before, after = self._state(), self.timeline, line.record()
      if step and before != line:
        past = (*state.past, before.record())[-_MOST_STEPS:]
        self._keep(timeline=after, past=past, future=())
      else:
        self._keep(timeline=after)

  def steps(self) -> tuple[int, int]:
    """How far undo and redo can go."""
    state = self._state()
    return len(state.past), len(state.future)

  def undo(self, back: str = 'past', on: str = 'future') -> Timeline:
    """Goes a step back, or on again with the two changed; the new timeline."""
    with self._lock:
      state = self._state()
      if steps := getattr(state, back):
        undone = (*getattr(state, on), self.timeline.record())
        self._keep(**{'timeline': steps[-1], back: steps[:-1], on: undone})
      return self.timeline

  @property
  def given(self) -> dict[str, Given]:
    """What was given, by id."""
    return self._state().given

  def give(self, upload: Path, name: str) -> str:
    """Keeps what was uploaded and returns its id.

    Raises:
      UserError: it is neither a picture nor a clip, or too large.
    """
    frames, ending = pieces.read_upload(upload, self.card.fps)
    source = files.file_sha256(upload)[:16]
    path = self.folder / GIVEN / f'{source}{ending}'
    path.parent.mkdir(parents=True, exist_ok=True)
    write.write_image(self.strip(source), pieces.strip(frames))
    os.replace(upload, path)
    count, height, width, _ = frames.shape
    name = re.sub(r'[^\w .()-]', '_', name)[-80:].lstrip('.') or 'picture'
    with self._lock:
      others = {k: v for k, v in self.given.items() if k != source}
      stem, number = Path(name).stem, 1
      while name in [other.name for other in others.values()]:
        number += 1  # Storyboards go by names.
        name = f'{stem} {number}{ending}'
      about = Given(path.name, name, count, width, height)
      self._keep(given=others | {source: about})
    return source

  def strip(self, source: str) -> Path:
    """The picture that shows what was given."""
    return self.folder / GIVEN / f'{source}.strip.png'

  def _sources(self, line: Timeline) -> dict[str, Source]:
    given, found = self.given, {}
    versions = self.versions()
    for name in {piece.source for piece in line.pieces}:
      if name in given:
        path = self.folder / GIVEN / given[name].file
        found[name] = Source(path, given[name].frames)
      elif name in versions and versions[name].state == DONE:
        frames = self.about(versions[name]).get('frames', 0)
        found[name] = Source(versions[name].frames_file, frames)
      else:
        raise UserError('a piece of the timeline is not there; remove it.')
    return found

  def call(self, line: Timeline, cuts: Path) -> Call:
    """What a timeline asks for.

    Args:
      line: the timeline.
      cuts: folder to which cut pieces and a storyboard are written.

    Raises:
      UserError: it cannot be made, in the words of the program.
    """
    sources = self._sources(line)

    def cut(piece: Piece) -> str:
      source = sources[piece.source]
      return str(pieces.cut(source, piece, self.card.fps, cuts))

    if line.order != 'scenes':
      return lines.call(line, sources, cut, self.card.frames)
    # Paths are relative to its own folder.
    names = {p: os.path.relpath(cut(p), cuts) for p in line.pieces}
    text = storyboards.write(line, names)
    board = files.write(cuts / f'{files.sha256(text)[:16]}.yaml', text)
    return Call('storyboard', {'path': str(board)})

  def job(self, call: Call, out: Path, decode: str) -> Job:
    """The clip of a call, as `unitemp generate --out=OUT` names it.

    Raises:
      UserError: it cannot be made, in the words of the program.
    """
    try:
      request = call.request(self.model)
    except UserError as error:
      # A page knows neither folders nor lines of a file that it did not write.
      text = re.sub(r'\S*/([\w-]+)\.yaml(:\d+)?: ', '', str(error))
      raise UserError(text) from error
    title = request.prompts[0]
    if call.workflow == 'storyboard':
      title = Path(call.arguments['path']).stem
    name = clip_file.clip_name(0, title)
    output = clip_file.Output(('mkv',))
    return Job(out / request.workflow / name, request, decode, output)

  def remade(self, version: Version) -> tuple[Call, str]:
    """The call of a version of the studio, and how it is decoded."""
    line = Timeline.read(version.record.timeline)
    return self.call(line, self.folder / GIVEN), line.decode

  def storyboard(self, line: Timeline) -> str:
    """The timeline as a storyboard of what was given, by name."""
    sources, names = self._sources(line), {}
    for piece in line.pieces:
      folder = self.folder / GIVEN
      path = pieces.cut(sources[piece.source], piece, self.card.fps, folder)
      source = path.stem
      if source not in self.given:
        copy = path.with_name(f'{path.name}.copy')
        shutil.copyfile(path, copy)
        label = f'{piece.source} {piece.first}-{piece.last}{path.suffix}'
        source = self.give(copy, label)
      names[piece] = self.given[source].name
    return storyboards.write(line, names)

  def open_storyboard(self, text: bytes) -> Timeline:
    """The timeline of a storyboard of what was given, by name."""
    sources = {a.name: (source, a.frames) for source, a in self.given.items()}
    with tempfile.TemporaryDirectory() as scratch:
      path = Path(scratch) / 'storyboard'
      path.write_bytes(text)
      return storyboards.read(path, self.card, sources)

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
      call = self.call(line, self.folder / GIVEN)
      job = self.job(call, folder, line.decode)
      words = [f'--model={self.home}', f'--out={folder}', *call.words()]
      words += [f'--decode={line.decode}', '--lossless']
      clip = job.path.relative_to(folder).as_posix()
      record = Record(QUEUED, line.record(), clip, time.time(), 0, tuple(words))
      files.write_json(folder / RECORD, dataclasses.asdict(record))
    return name

  def note(self, name: str, **values: Any) -> None:
    """Changes what is known of a version of the studio."""
    path = self.folder / name / RECORD
    with self._lock:
      record = dataclasses.replace(_read(path, Record), **values)
      files.write_json(path, dataclasses.asdict(record))

  def _names(self) -> list[str]:
    with contextlib.suppress(OSError):
      return sorted(p.name for p in self.folder.iterdir() if p.is_dir())
    return []

  def versions(self) -> dict[str, Version]:
    """All versions by name, those of the studio in the order of their making.

    Those of the command line are named FOLDER:CLIP.
    """
    found, own = {}, {}
    for name in self._names():
      folder = self.folder / name
      if (folder / RECORD).is_file():
        try:
          record = _read(folder / RECORD, Record)
          clip = folder / record.clip
        except UserError as error:
          record = Record(FAILED, {}, '.mp4', problem=str(error))
          clip = min(folder.glob('*/*.mp4'), default=folder / 'none.mp4')
        own[name] = Version(name, clip, record)
      elif name != GIVEN:
        for sidecar in sorted(folder.glob('[!.]*.json')):
          key = f'{name}:{sidecar.stem}'
          found[key] = Version(key, sidecar.with_suffix('.mp4'), _ELSEWHERE)
    return found | own

  def about(self, version: Version) -> dict[str, Any]:
    """What a page shows of a version."""
    record, state = version.record, version.state
    shown: dict[str, Any] = {'problem': record.problem}
    with contextlib.suppress(UserError):
      shown['timeline'] = Timeline.read(record.timeline).record()
    if record.words:
      shown['command'] = shlex.join(['unitemp', 'generate', *record.words])
    if state == DONE:
      try:
        sidecar = version.sidecar
        shown |= _facts(sidecar, sidecar.stat().st_mtime_ns)
      except (OSError, UserError) as error:
        state, shown['problem'] = FAILED, str(error)
    else:
      shown['partial'] = version.clip.with_suffix('.partial.mp4').is_file()
    return shown | {'name': version.name, 'state': state}


@functools.lru_cache(1024)
def _facts(sidecar: Path, _: int) -> dict[str, Any]:
  clip = report.read_clip(sidecar.parents[1], sidecar)
  facts = {name: getattr(clip, name) for name in _SHOWN}
  return facts | {'frame_difference': list(clip.frame_difference)}
