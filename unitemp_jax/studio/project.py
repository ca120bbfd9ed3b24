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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.layout import is_list
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
# Of a finished clip, on a page.
_SHOWN = ('prompt', 'order', 'seed', 'frames', 'fps', 'width', 'height')
_SHOWN += ('block_frames', 'boundary_frames', 'timings')
# What each value of a record must be, where it is there.
_Kinds = Mapping[str, Callable[[Any], bool]]


def _is(kind: Any) -> Callable[[Any], bool]:
  return lambda value: isinstance(value, kind)


def _is_place(value: Any) -> bool:
  """Whether it is the path of a video below a folder."""
  parts = value.split('/') if isinstance(value, str) else ['']
  return '' not in parts and '..' not in parts and value.endswith('.mp4')


def _is_given(value: Any) -> bool:
  kinds = {'file': str, 'name': str, 'frames': int, 'width': int, 'height': int}
  return isinstance(value, dict) and all(
    isinstance(about, dict)
    and all(isinstance(about.get(name), kind) for name, kind in kinds.items())
    and '/' not in about['file']
    for about in value.values()
  )


_PROJECT: _Kinds = {
  'timeline': _is(dict),
  'past': is_list(_is(dict)),
  'future': is_list(_is(dict)),
  'given': _is_given,
}
_VERSION: _Kinds = {
  'clip': _is_place,
  'state': (QUEUED, RUNNING, DONE, FAILED, CANCELLED).__contains__,
  'timeline': _is(dict),
  'since': _is(int | float),
  'starts': _is(int),
  'words': is_list(_is(str)),
  'problem': _is(str),
}


def _read(path: Path, kinds: _Kinds, *keys: str) -> dict[str, Any]:
  """A record of these kinds, which has the keys; UserError if it is damaged."""
  what, mend = f'the record of {path.parent.name}', 'delete it: videos stay'
  record = files.read_json(path, what, mend, keys=keys)
  for key, check in kinds.items():
    if key in record and not check(record[key]):
      why = f'its {key} is {repr(record[key])[:60]}'
      raise UserError(f'{path} cannot be read as {what} ({why}); {mend}.')
  return record


_MOST_STEPS = 100  # that undo goes back over
_MOST_WAITING = 100  # versions of a project in the queue


@dataclasses.dataclass(frozen=True)
class Version:
  """One video of a project."""

  name: str  # of the version in the project
  record: Mapping[str, Any]  # of the studio; empty if it was made elsewhere
  clip: Path  # its mp4, which need not be there yet

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

  def __init__(self, folder: Path, home: Path, model: Model):
    """Opens a project of the model of a folder, its home."""
    self.folder, self.name = folder, folder.name
    self.home, self.model, self.card = home, model, model.card
    self._lock = threading.RLock()

  def _record(self) -> dict[str, Any]:
    path = self.folder / RECORD
    return _read(path, _PROJECT) if path.is_file() else {}

  def _keep(self, **values: Any) -> None:
    files.write_json(self.folder / RECORD, self._record() | values)

  @property
  def timeline(self) -> Timeline:
    """As it stands on the pages."""
    with contextlib.suppress(UserError, KeyError):
      return Timeline.read(self._record()['timeline'])
    return Timeline(self.card.frames)

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
        undone = [*record.get(on, []), self.timeline.record()]
        self._keep(**{'timeline': line, back: rest, on: undone})
      return self.timeline

  @property
  def given(self) -> dict[str, dict[str, Any]]:
    """What was given, by id: name, file, frames, width and height."""
    return self._record().get('given', {})

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
    about = {'file': path.name, 'frames': count}
    about |= {'width': width, 'height': height}
    name = re.sub(r'[^\w .()-]', '_', name)[-80:].lstrip('.') or 'picture'
    with self._lock:
      others = {k: v for k, v in self.given.items() if k != source}
      stem, number = Path(name).stem, 1
      while name in [other['name'] for other in others.values()]:
        number += 1  # Storyboards go by names.
        name = f'{stem} {number}{ending}'
      self._keep(given={**others, source: {**about, 'name': name}})
    return source

  def strip(self, source: str) -> Path:
    """The picture that shows what was given."""
    return self.folder / GIVEN / f'{source}.strip.png'

  def _sources(self, line: Timeline) -> dict[str, Source]:
    given, found = self.given, {}
    versions = self.versions()
    for name in {piece.source for piece in line.pieces}:
      if name in given:
        path = self.folder / GIVEN / given[name]['file']
        found[name] = Source(path, given[name]['frames'])
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
    if 'timeline' not in version.record:  # It is damaged.
      raise UserError(version.record['problem'])
    line = Timeline.read(version.record['timeline'])
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
      names[piece] = self.given[source]['name']
    return storyboards.write(line, names)

  def open_storyboard(self, text: bytes) -> Timeline:
    """The timeline of a storyboard of what was given, by name."""
    sources = {
      about['name']: (source, about['frames'])
      for source, about in self.given.items()
    }
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
    with self._lock:
      record = self._version(name) | values
      files.write_json(self.folder / name / RECORD, record)

  def _version(self, name: str) -> dict[str, Any]:
    path = self.folder / name / RECORD
    return _read(path, _VERSION, 'clip', 'state', 'timeline')

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
          record = self._version(name)
          clip = folder / record['clip']
        except UserError as error:
          record = {'state': FAILED, 'problem': str(error)}
          clip = min(folder.glob('*/*.mp4'), default=folder / 'none.mp4')
        own[name] = Version(name, record, clip)
      elif name != GIVEN:
        for sidecar in sorted(folder.glob('[!.]*.json')):
          key = f'{name}:{sidecar.stem}'
          found[key] = Version(key, {}, sidecar.with_suffix('.mp4'))
    return found | own

  def about(self, version: Version) -> dict[str, Any]:
    """What a page shows of a version."""
    record, sidecar = version.record, version.sidecar
    shown: dict[str, Any] = {'name': version.name, 'state': version.state}
    with contextlib.suppress(UserError, KeyError):
      shown['timeline'] = Timeline.read(record['timeline']).record()
    if 'problem' in record:
      shown['problem'] = record['problem']
    if 'words' in record:
      shown['command'] = shlex.join(['unitemp', 'generate', *record['words']])
    if version.state == DONE:
      try:
        shown |= _facts(sidecar, sidecar.stat().st_mtime_ns)
      except (OSError, UserError) as error:
        shown |= {'state': FAILED, 'problem': str(error)}
    else:
      shown['partial'] = version.clip.with_suffix('.partial.mp4').is_file()
    if 'problem' in shown:
      shown['problem'] = without_folders(shown['problem'])
    return shown


@functools.lru_cache(1024)
def _facts(sidecar: Path, _: int) -> dict[str, Any]:
  clip = report.read_clip(sidecar.parents[1], sidecar)
  facts = {name: getattr(clip, name) for name in _SHOWN}
  return facts | {'frame_difference': list(clip.frame_difference)}


def without_folders(sentence: str) -> str:
  """The sentence with files' names alone: a page knows no folders."""
  return re.sub(r'(?<![\w.:/])/(?:[^\s/]+/)+', '', sentence)
