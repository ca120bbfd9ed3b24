"""What of a set is there, who works on it, and how long it will take."""

import dataclasses
import os
import shutil
from pathlib import Path

from unitemp_jax.evaluation_sets import progress
from unitemp_jax.evaluation_sets.progress import Effort, Worker, duration
from unitemp_jax.evaluation_sets.store import Store


@dataclasses.dataclass(frozen=True)
class Status:
  """The state of a set.

  Attributes:
    there: finished clips by order.
    wanted: all clips by order.
    workers: the latest process of each shard.
    missing_bytes: about what the missing clips will take; 0 if unknown.
    free_bytes: on the disk.
    effort: clips and wall time so far; None before the first batch.
  """

  there: dict[str, int]
  wanted: dict[str, int]
  workers: list[Worker]
  missing_bytes: int
  free_bytes: int
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

  Raises:
    UserError: this is no set.
  """
  store = Store(root)
  store.read_settings()
  there: dict[str, int] = {}
  wanted: dict[str, int] = {}
  size = count = 0
  folders: dict[str, dict[str, int]] = {}

  def sizes(folder: str) -> dict[str, int]:
    if folder not in folders:
      folders[folder] = _sizes(root / folder)
    return folders[folder]

  for line in store.read_clips():
    order = line['order']
    wanted[order] = wanted.get(order, 0) + 1
    folder, _, name = line['video'].rpartition('/')
    video = sizes(folder).get(name)
    folder, _, name = line['record'].rpartition('/')
    finished = video is not None and name in sizes(folder)
    there[order] = there.get(order, 0) + finished
    if finished:
      size, count = size + (video or 0), count + 1
  missing = sum(wanted.values()) - count
  return Status(
    there,
    wanted,
    progress.read_workers(root),
    missing * size // count if count else 0,
    shutil.disk_usage(root).free,
    progress.read_effort(root),
  )


def _sizes(folder: Path) -> dict[str, int]:
  """Name -> bytes of the files in a folder, in one listing."""
  if not folder.is_dir():
    return {}
  with os.scandir(folder) as entries:
    return {
      entry.name: entry.stat().st_size for entry in entries if entry.is_file()
    }


def to_text(status: Status) -> str:
  """The status as lines to be read."""
  lines = []
  for order, wanted in status.wanted.items():
    there = status.there[order]
    lines.append(
      f'{order:22} {there:6} of {wanted} there, {wanted - there} missing'
    )
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
    return '\n'.join(lines)
  left = status.seconds_left
  if left is not None:
    lines.append(f'about {duration(left)} left')
  elif any(worker.state == 'running' for worker in status.workers):
    lines.append(
      'no estimate: a shard has just begun, or clips belong to shards that do '
      'not run'
    )
  else:
    lines.append('nobody works on it; run the same command again to continue')
  need, free = (
    f'{size / 1e9:.2f} GB' for size in (status.missing_bytes, status.free_bytes)
  )
  if status.missing_bytes:
    full = status.missing_bytes > status.free_bytes
    warning = ': the disk will be FULL' if full else ''
    lines.append(f'about {need} to be written, {free} free{warning}')
  return '\n'.join(lines)
