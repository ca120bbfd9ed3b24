"""An evaluation set on disk, shared by every process that works on it.

set.json              what the set is: suite, seed, model, orders, sizes
clips.jsonl           one line per clip that must be there in the end
videos/ORDER/...mp4   clips under the names of the benchmark, and nothing else
records/ORDER/...json what is known of a clip; written last: it is finished
posters/ORDER/...png  a small picture of it
plans/ORDER.json      the table of rows that was run
progress/             who works on it, and when what was done
partial/              files that are being written

All but progress/ and partial/ is the same, bit for bit, however often and
wherever the work was interrupted.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets.clips import Clip

_DAY = 24 * 3600.0


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

  @contextlib.contextmanager
  def writing(self, path: Path) -> Iterator[Path]:
    """Yields a path in `partial/` that replaces `path` when all went well.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    with files.writing(path, within=self._partial) as temporary:
      yield temporary

  def write_text(self, path: Path, text: str) -> None:
    """Writes a file atomically."""
    with self.writing(path) as temporary:
      temporary.write_text(text, encoding='utf-8')

  def write_json(self, path: Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file atomically."""
    self.write_text(path, json.dumps(value, indent=indent) + '\n')

  def read_settings(self) -> dict[str, Any]:
    """Reads set.json; raises UserError if this is no set."""
    path = self.root / 'set.json'
    if not path.exists():
      raise UserError(
        f'{self.root} is no evaluation set (set.json is missing); make one '
        'with "unitemp evaluate generate".'
      )
    return files.read_json(path, 'an evaluation set')

  def read_clips(self) -> list[dict[str, Any]]:
    """Reads clips.jsonl; raises UserError if it is missing or damaged."""
    path = self.root / 'clips.jsonl'
    try:
      with path.open(encoding='utf-8') as lines:
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
      raise UserError(
        f'{path} cannot be read ({error}); run "unitemp evaluate generate" '
        'with its settings again to restore it.'
      ) from error

  def begin(self, settings: dict[str, Any], clips: Sequence[Clip]) -> None:
    """Writes what the set is, or checks that this command continues it.

    A set may grow (more orders, samples or prompts), and never changes.

    Raises:
      UserError: the folder holds another set, or other files.
    """
    if self.root.exists() and not self.root.is_dir():
      raise UserError(f'--out={self.root} is a file; name a folder.')
    lines = [describe(clip) for clip in clips]
    # Other shards may begin at the same moment.
    there = set(os.listdir(self.root)) if self.root.exists() else set()
    if 'set.json' in there:
      self._check_continues(settings, lines)
    elif there - {'clips.jsonl', 'partial'}:
      raise UserError(
        f'--out={self.root} holds other files; choose an empty or new folder.'
      )
    text = ''.join(json.dumps(line, sort_keys=True) + '\n' for line in lines)
    path = self.root / 'clips.jsonl'
    if not path.exists() or path.read_text(encoding='utf-8') != text:
      self.write_text(path, text)
    self.write_json(self.root / 'set.json', settings)

  def _check_continues(self, settings, lines) -> None:
    old = self.read_settings()
    grows = ('orders', 'prompts', 'clips', 'samples', 'plans')
    other = sorted(
      name
      for name in {*old, *settings} - {*grows}
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
    """Whether the clip is there, whole, and made as asked."""
    record = self.read_record(self.record(clip))
    try:
      size = self.video(clip).stat().st_size
    except OSError:
      return False
    return (record.get('key'), record.get('bytes')) == (clip.key, size)

  def read_record(self, path: Path) -> dict[str, Any]:
    """Reads a record; empty if it is missing or damaged."""
    try:
      return files.read_json(path)
    except UserError:
      return {}

  def sweep(self) -> None:
    """Removes what killed processes left in `partial/`.

    Earlier versions kept a folder per process there; these go after a day.
    """
    files.sweep(self._partial)
    for folder in self._partial.glob('*-*'):
      with contextlib.suppress(OSError):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _DAY:
          shutil.rmtree(folder, ignore_errors=True)

  def leave(self) -> None:
    """Removes `partial/` if nobody writes there."""
    with contextlib.suppress(OSError):
      self._partial.rmdir()


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
