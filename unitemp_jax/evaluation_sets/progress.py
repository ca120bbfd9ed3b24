"""Who works on a set: a journal per shard, appended to as batches finish."""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax.errors import UserError
from unitemp_jax.files import is_alive

# A shard on another machine that wrote nothing for so long counts as stopped;
# compiling a large model takes minutes.
_SILENCE = 900.0


class Journal:
  """Writes what one shard does."""

  def __init__(self, root: Path, shard: tuple[int, int]):
    self._path = root / 'progress' / f'{shard[0]}-of-{shard[1]}.jsonl'

  def start(self, clips: int) -> None:
    """A process begins with so many clips to make."""
    self._append('start', clips=clips)

  def batch(self, clips: int, seconds: float) -> None:
    """So many clips were finished since the line before."""
    self._append('batch', clips=clips, seconds=round(seconds, 3))

  def end(self) -> None:
    """All clips of the shard are there."""
    self._append('end')

  def _append(self, event: str, **more: Any) -> None:
    line = {
      'event': event,
      'time': round(time.time(), 1),
      'host': socket.gethostname(),
      'pid': os.getpid(),
      **more,
    }
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with self._path.open('a', encoding='utf-8') as file:
        # The line before may have been cut short by a kill.
        file.write('\n' + json.dumps(line))
    except OSError as error:
      raise UserError(
        f'cannot write {self._path} ({error.strerror or error}); make room and '
        'run the same command again: what is finished stays.'
      ) from error


@dataclasses.dataclass(frozen=True)
class Worker:
  """What the journal of one shard says of its latest process.

  Attributes:
    shard: such as '0/2'.
    state: 'running', 'finished' or 'stopped'.
    made: clips that it has finished since it started.
    todo: clips that it had to make when it started.
    rate: clips per second, 0 before the first batch.
    silent: seconds since it wrote a line.
  """

  shard: str
  state: str
  made: int
  todo: int
  rate: float
  silent: float


@dataclasses.dataclass(frozen=True)
class Effort:
  """What a set has cost so far, over all shards and attempts.

  Attributes:
    clips: that were finished.
    seconds: of wall time in which at least one process worked.
  """

  clips: int
  seconds: float

  def __str__(self):
    rate = 60 * self.clips / max(self.seconds, 1e-9)
    return (
      f'{self.clips:,} clips in {duration(self.seconds)}, {rate:.1f} per minute'
    )


def read_effort(root: Path) -> Effort | None:
  """Adds up the journals; None before the first batch.

  A process that was killed counts up to the last line it wrote.
  """
  spans: list[list[float]] = []
  clips = 0
  for path in sorted((root / 'progress').glob('*-of-*.jsonl')):
    for line in _lines(path):
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


def read_workers(root: Path) -> list[Worker]:
  """Reads the journals of all shards."""
  paths = sorted((root / 'progress').glob('*-of-*.jsonl'))
  return [worker for path in paths if (worker := _read(path)) is not None]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
  for text in path.read_text(encoding='utf-8').split('\n'):
    try:
      yield json.loads(text)
    except ValueError:
      continue  # empty, or cut short by a kill


def _read(path: Path) -> Worker | None:
  lines: list[dict[str, Any]] = []
  for line in _lines(path):
    if line['event'] == 'start':
      lines = []
    lines.append(line)
  if not lines or lines[0]['event'] != 'start':
    return None
  last = lines[-1]
  silent = time.time() - last['time']
  here = last['host'] == socket.gethostname()
  alive = is_alive(last['pid']) if here else silent < _SILENCE
  times = [
    (line['clips'], line['seconds'])
    for line in lines
    if line['event'] == 'batch'
  ]
  state = 'running' if alive else 'stopped'
  return Worker(
    shard=path.stem.replace('-of-', '/'),
    state='finished' if last['event'] == 'end' else state,
    made=sum(count for count, _ in times),
    todo=lines[0]['clips'],
    rate=mean_rate(times),
    silent=silent,
  )


def mean_rate(times: Sequence[tuple[int, float]]) -> float:
  """Clips per second of batches (clips, seconds); 0 if there is none.

  The first batch compiles: it counts only as long as it is alone.
  """
  timed = times[1:] or times
  seconds = sum(took for _, took in timed)
  return sum(count for count, _ in timed) / seconds if seconds else 0.0


def duration(seconds: float) -> str:
  """A time span to be read: '40 s', '12 min', '3 h 20 min', '2 d 4 h'."""
  seconds = round(seconds)
  if seconds < 100:
    return f'{seconds} s'
  minutes = round(seconds / 60)
  if minutes < 100:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 48:
    return f'{hours} h {minutes} min'
  return f'{hours // 24} d {hours % 24} h'
