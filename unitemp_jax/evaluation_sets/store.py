"""An evaluation set on disk, shared by every process that works on it.

set.json              what the set is: suite, seed, model, orders, sizes
clips.jsonl           one line per clip that must be there in the end
videos/ORDER/...mp4   clips under the names of the benchmark, and nothing else
records/ORDER/...json what is known of a clip; written last: it is finished
posters/ORDER/...png  a small picture of it
plans/ORDER.json      the table of rows that was run
progress/             journals: who works on it, and when what was done
partial/              files that are being written

All but progress/ and partial/ is the same, bit for bit, however often and
wherever the work was interrupted.
"""

import collections
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError, foreign
from unitemp_jax.evaluation_sets.clips import Clip
from unitemp_jax.files import is_alive
from unitemp_jax.generate import clip_file
from unitemp_jax.parallel import locks
from unitemp_jax.progress import duration, mean_rate

# What may grow; all other settings stay.
_GROWING = ('orders', 'prompts', 'clips', 'samples', 'plans')


class Store:
  """Paths, atomic writing and reading of one set."""

  def __init__(self, root: Path):
    self.root = root
    self._partial = root / 'partial'

  def video(self, clip: Clip) -> Path:
    """The clip's mp4."""
    return self.root / 'videos' / f'{clip.path}.mp4'

  def record(self, clip: Clip) -> Path:
    """The JSON file that marks the clip as finished."""
    return self.root / 'records' / f'{clip.path}.json'

  def poster(self, clip: Clip) -> Path:
    """A small picture of the clip."""
    return self.root / 'posters' / f'{clip.path}.png'

  def writing(self, path: Path) -> AbstractContextManager[Path]:
    """As `files.writing`, in `partial/`: nothing else may lie beside clips."""
    return files.writing(path, within=self._partial)

  def write_json(self, path: Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file atomically."""
    text = json.dumps(value, indent=indent) + '\n'
    files.write(path, text, within=self._partial)

  def read_settings(self) -> dict[str, Any]:
    """Reads set.json; raises UserError if this is no set."""
    path = self.root / 'set.json'
    if not path.exists():
      raise UserError(
        f'{self.root} is no evaluation set (set.json is missing); make one '
        'with "unitemp evaluate generate".'
      )
    mend = 'run "unitemp evaluate generate" again with its settings'
    sizes = ('frames', 'fps', 'height', 'width')
    found = files.read_json(path, 'an evaluation set', mend, keys=sizes)
    whole = all(type(found[name]) is int for name in sizes if name != 'fps')
    fps = found['fps']
    if not whole or type(fps) not in (int, float) or not 0 < fps < 1e4:
      raise UserError(f'{path}: {", ".join(sizes)} must be numbers; {mend}.')
    return found

  def read_clips(self) -> list[dict[str, Any]]:
    """Reads clips.jsonl; raises UserError if it is missing or damaged."""
    path = self.root / 'clips.jsonl'
    try:
      found = [files.parse_json(line) for line in files.read_lines(path)]
      for line in found:
        for name in ('video', 'record', 'order', 'key'):
          if not isinstance(line[name], str):
            raise ValueError(f'{name} is no text')
        for name in ('video', 'record'):
          # Nothing beside the set is read, or deleted to be made again.
          parts = line[name].split('/')
          if parts[0] != f'{name}s' or '..' in parts or '\0' in line[name]:
            raise ValueError(f'{line[name]!r:.60} is no {name}')
      return found
    except (*files.UNREADABLE, RecursionError, UserError) as error:
      raise UserError(
        f'{path} cannot be read ({error}); run "unitemp evaluate generate" '
        'with its settings again to restore it.'
      ) from error

  def begin(self, settings: dict[str, Any], clips: Sequence[Clip]) -> None:
    """Writes what the set is, or checks that this command continues it.

    UserError: see `check`.
    """
    text = self.check(settings, clips)
    path = self.root / 'clips.jsonl'
    if not path.exists() or path.read_text(encoding='utf-8') != text:
      files.write(path, text, within=self._partial)
    self.write_json(self.root / 'set.json', settings)

  def check(self, settings: dict[str, Any], clips: Sequence[Clip]) -> str:
    """Checks that a command makes this set or continues it; its list of clips.

    A set may grow (more orders, samples or prompts), and never changes.
    UserError if the folder holds another set, or other files.
    """
    lines = [describe(clip) for clip in clips]
    text = ''.join(json.dumps(line, sort_keys=True) + '\n' for line in lines)
    path = self.root / 'clips.jsonl'
    self.check_no_links(lines)
    # Other shards may begin at the same moment.
    there = set(os.listdir(self.root)) if self.root.exists() else set()
    if 'set.json' in there:
      self._check_continues(settings, lines)
    elif there - {'clips.jsonl', 'partial', locks.LOCK}:
      raise UserError(
        f'--out={self.root} holds other files; choose an empty or new folder.'
      )
    elif 'clips.jsonl' in there and files.read_text(path) != text:
      raise foreign(path, 'of no set like this')
    return text

  def check_no_links(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Refuses, by UserError, links that lead out of the set."""
    folders = {str(Path(line['record']).parent) for line in lines}
    names = [
      folder.replace('records', kind, 1)
      for folder in folders
      for kind in ('videos', 'records', 'posters')
    ]
    files.check_no_links(self.root, [*names, 'plans', 'progress', 'partial'])

  def _check_continues(self, settings, lines) -> None:
    old = self.read_settings()
    other = sorted(
      name
      for name in {*old, *settings} - {*_GROWING}
      if old.get(name) != settings.get(name)
    )
    if other:
      shown = ', '.join(
        f'{name} {old.get(name)!r} instead of {settings.get(name)!r}'
        for name in other
      )
      raise UserError(
        f'--out={self.root} holds a set with {shown}; choose another folder.'
      )
    if not (self.root / 'clips.jsonl').exists():
      return
    keys = {line['video']: line['key'] for line in lines}
    for line in self.read_clips():
      if keys.get(line['video']) != line['key']:
        what = 'otherwise' if line['video'] in keys else 'not at all'
        raise UserError(
          f'--out={self.root} holds a set whose clip {line["video"]} this '
          f'command would make {what}; a set may grow but not change: choose '
          'another folder.'
        )

  def is_finished(self, clip: Clip) -> bool:
    """Whether the clip is there, whole, and made as asked.

    UserError if what would replace it is not of this set, or was changed.
    """
    record = self.read_record(self.record(clip))
    sizes = [(self.video(clip), record.get('bytes'))]
    if mark := clip_file.marks_of(record).get('.png'):
      sizes.append((self.poster(clip), int(mark.partition('-')[0])))
    if record.get('key') == clip.key and all(
      path.is_file() and path.stat().st_size == size for path, size in sizes
    ):
      return True
    for path, own in self.written(clip.path, record, clip.key).items():
      if not own:
        raise foreign(path)
    return False

  def written(
    self, path: str, record: Mapping[str, Any], key: str
  ) -> dict[Path, bool]:
    """The files of a clip that are there, and whether this set wrote them.

    Args:
      path: `Clip.path`.
      record: of the clip; without marks, the key among the mp4's tags counts.
      key: of the clip.
    """
    told, found = clip_file.marks_of(record), {}
    video = self.root / 'videos' / f'{path}.mp4'
    tagged = clip_file.tags_of(video).get('key') == key
    poster = self.root / 'posters' / f'{path}.png'
    for one, other in ((video, tagged), (poster, tagged or bool(record))):
      if os.path.lexists(one):
        mark = told.get(one.suffix)
        found[one] = clip_file.is_ours(one, mark) if mark else other
    return found

  def read_record(self, path: Path) -> dict[str, Any]:
    """Reads a record; empty if it is missing or damaged."""
    return files.read_known(path)

  def leave(self, *folders: Path) -> None:
    """Removes this process's empty folders."""
    for folder in (self._partial, *folders):
      with contextlib.suppress(OSError):
        folder.rmdir()


def describe(clip: Clip) -> dict[str, Any]:
  """The clip's line in clips.jsonl."""
  source = clip.prompt.image or clip.prompt.clip
  return {
    'video': f'videos/{clip.path}.mp4',
    'record': f'records/{clip.path}.json',
    'order': clip.order,
    'name': clip.prompt.name,
    'prompt': clip.prompt.text,
    'id': clip.prompt.id,
    'dimension': list(clip.prompt.dimensions),
    'sample': clip.sample,
    'seed': clip.seed,
    'key': clip.key,
    'source': None if source is None else str(source),
  }


# A shard on another machine that wrote nothing for so long counts as stopped;
# compiling a large model takes minutes.
_SILENCE = 900.0


class Journal:
  """Progress log of one shard."""

  def __init__(self, root: Path, shard: tuple[int, int]):
    name = f'{shard[0]}-of-{shard[1]}'
    self.folder = root / 'progress' / name  # locked while the shard is made
    self._path = root / 'progress' / f'{name}.jsonl'

  def log(self, event: str, **more: Any) -> None:
    """Appends a line.

    Args:
      event: 'start' with the `clips` to be made, 'batch' with `clips` and
        `seconds` since the last line, or 'end' when all are there.
      **more: numbers of the event.

    Raises:
      UserError: it cannot be written.
    """
    line = {'event': event, 'time': round(time.time(), 1), **more}
    line |= {'host': socket.gethostname(), 'pid': os.getpid()}
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with files.append_to(self._path) as file:
        # The line before may have been cut short by a kill.
        file.write('\n' + json.dumps(line))
    except OSError as error:
      raise UserError(
        f'cannot write {self._path} ({error.strerror or error}); make room and '
        'run the same command again: what is finished stays.'
      ) from error


@dataclasses.dataclass(frozen=True)
class Worker:
  """The latest process of a shard, by the shard's journal."""

  shard: str  # such as '0/2'
  state: str  # 'running', 'finished' or 'stopped'
  made: int  # clips
  todo: int  # clips that it had to make
  rate: float  # clips per second
  silent: float  # seconds since its last line


@dataclasses.dataclass(frozen=True)
class Effort:
  """Clips that were finished, and seconds in which some process worked."""

  clips: int
  seconds: float

  def __str__(self):
    rate = 60 * self.clips / max(self.seconds, 1e-9)
    return (
      f'{self.clips:,} clips in {duration(self.seconds)}, {rate:.1f} per minute'
    )


@dataclasses.dataclass(frozen=True)
class Status:
  """The state of a set."""

  there: dict[str, int]  # finished clips by order
  wanted: dict[str, int]  # all clips by order
  workers: list[Worker]  # the latest process of each shard
  missing_bytes: int  # about what the missing clips will take; 0 if unknown
  free_bytes: int  # on the disk
  # over all shards and attempts; None before the first batch
  effort: Effort | None = None

  @property
  def missing(self) -> int:
    """Clips that are not finished."""
    return sum(self.wanted.values()) - sum(self.there.values())

  @property
  def seconds_left(self) -> float | None:
    """Until the last running shard is done; None if that cannot be told."""
    running = [w for w in self.workers if w.state == 'running']
    left = [(w.todo - w.made) / w.rate for w in running if w.rate]
    covered = sum(w.todo - w.made for w in running)
    if not left or len(left) < len(running) or covered < self.missing:
      return None
    return max(left)


def read_status(root: Path) -> Status:
  """Looks at names and sizes only; see `verify` for whether clips are whole.

  UserError if this is no set.
  """
  store = Store(root)
  store.read_settings()
  folders: dict[Path, dict[str, int]] = {}

  def size(path: Path) -> int | None:
    if path.parent not in folders:
      folders[path.parent] = {
        entry.name: entry.stat().st_size
        for entry in (os.path.isdir(path.parent) and os.scandir(path.parent))
        or ()
        if entry.is_file()
      }
    return folders[path.parent].get(path.name)

  there: collections.Counter = collections.Counter()
  wanted: collections.Counter = collections.Counter()
  sizes = []
  for line in store.read_clips():
    wanted[line['order']] += 1
    video = size(root / line['video'])
    finished = video is not None and size(root / line['record']) is not None
    there[line['order']] += finished
    sizes += [video or 0] * finished
  missing = wanted.total() - len(sizes)
  return Status(
    dict(there),
    dict(wanted),
    [w for path in _journals(root) if (w := _read(path)) is not None],
    missing * sum(sizes) // max(len(sizes), 1),
    shutil.disk_usage(root).free,
    read_effort(root),
  )


def _journals(root: Path) -> list[Path]:
  return sorted((root / 'progress').glob('*-of-*.jsonl'))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
  try:
    whole = path.read_text(encoding='utf-8', errors='replace')
  except OSError:
    return
  for text in whole.split('\n'):
    try:
      line = json.loads(text)
    except (ValueError, RecursionError):
      continue  # empty, or cut short by a kill
    if _is_line(line):
      yield line


def _is_line(line: Any) -> bool:
  kinds = {
    'start': {'time': float, 'pid': int, 'clips': int},
    'batch': {'time': float, 'pid': int, 'clips': int, 'seconds': float},
    'end': {'time': float, 'pid': int},
  }
  if not isinstance(line, dict) or str(line.get('event')) not in kinds:
    return False
  return isinstance(line.get('host'), str) and all(
    isinstance(line.get(name), kind | int) and 0 <= line[name] < 2**60
    for name, kind in kinds[line['event']].items()
  )


def _read(path: Path) -> Worker | None:
  lines: list[dict[str, Any]] = []
  for line in _lines(path):
    lines = [line] if line['event'] == 'start' else [*lines, line]
  if not lines or lines[0]['event'] != 'start':
    return None
  last = lines[-1]
  silent = time.time() - last['time']
  here = last['host'] == socket.gethostname()
  alive = is_alive(last['pid']) if here else silent < _SILENCE
  times = [(x['clips'], x['seconds']) for x in lines if x['event'] == 'batch']
  state = 'running' if alive else 'stopped'
  return Worker(
    shard=path.stem.replace('-of-', '/'),
    state='finished' if last['event'] == 'end' else state,
    made=sum(count for count, _ in times),
    todo=lines[0]['clips'],
    rate=mean_rate(times),
    silent=silent,
  )


def read_effort(root: Path) -> Effort | None:
  """Adds up the journals; None before the first batch.

  A process that was killed counts up to the last line it wrote.
  """
  spans: list[list[float]] = []
  clips = 0
  for line in (line for path in _journals(root) for line in _lines(path)):
    if line['event'] == 'start':
      spans.append([line['time'], line['time']])
    elif spans:
      spans[-1][1] = line['time']
    clips += line['clips'] if line['event'] == 'batch' else 0
  seconds, end = 0.0, 0.0
  for begin, last in sorted(spans):
    seconds += max(last - max(begin, end), 0.0)
    end = max(end, last)
  return Effort(clips, seconds) if clips else None


def to_text(status: Status) -> str:
  """The status as lines to be read."""
  lines = [
    f'{order:22} {status.there[order]:6} of {wanted} there, '
    f'{wanted - status.there[order]} missing'
    for order, wanted in status.wanted.items()
  ]
  for worker in status.workers:
    text = f'shard {worker.shard:8} {worker.state:9} {worker.made} of '
    text += f'{worker.todo} made since its start'
    if worker.state == 'running':
      text += f', {60 * worker.rate:.1f} per minute' if worker.rate else ''
      text += f', last heard of {duration(worker.silent)} ago'
    lines.append(text)
  if status.effort is not None:
    lines.append(f'made so far: {status.effort}')
  if not status.missing:
    lines.append('complete; "unitemp evaluate verify" looks into the files')
  elif status.seconds_left is not None:
    lines.append(f'about {duration(status.seconds_left)} left')
  elif any(worker.state == 'running' for worker in status.workers):
    lines.append(
      'no estimate: a shard has just begun, or clips belong to shards that do '
      'not run'
    )
  else:
    lines.append('nobody works on it; run the same command again to continue')
  if status.missing and status.missing_bytes:
    need, free = status.missing_bytes / 1e9, status.free_bytes / 1e9
    lines.append(
      f'about {need:.2f} GB to be written, {free:.2f} GB free'
      + (': the disk will be FULL' if need > free else '')
    )
  return '\n'.join(lines)
