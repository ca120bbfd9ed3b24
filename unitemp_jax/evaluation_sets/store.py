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
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets.clips import Clip

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
    self._write_text(path, json.dumps(value, indent=indent) + '\n')

  def _write_text(self, path: Path, text: str) -> None:
    with self.writing(path) as temporary:
      temporary.write_text(text, encoding='utf-8')

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
        found = [json.loads(line) for line in lines]
      for line in found:
        for name in ('video', 'record', 'order', 'key'):
          if not isinstance(line[name], str):
            raise ValueError(f'{name} is no text')
      return found
    except (OSError, ValueError, LookupError, TypeError) as error:
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
      self._write_text(path, text)
    self.write_json(self.root / 'set.json', settings)

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
