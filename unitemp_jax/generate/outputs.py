"""Whose the files of a clip are: its own and whole, to be made again, or not.

The sidecar has a mark of each file beside it, and the mp4 says in its tags what
the sidecar says. Older sidecars have no marks: there the key among the mp4's
tags speaks for all files.
"""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.video.read import read_metadata

MARKS = 'files'  # of a sidecar: what follows the clip's name -> mark
_START, _END = 2**10, 2**16  # bytes that are hashed of a file of any size
_MARK = re.compile(r'\d{1,18}-\w+-\w+')
_PICTURE = re.compile(r'\.frames/\d{5,}\.png')


def foreign(path: Path) -> UserError:
  """The complaint about a file that is not this request's."""
  return UserError(
    f'{path} is there already and was not made by this command; choose another '
    '--out, or move it away.'
  )


def mark(path: Path) -> str:
  """Size of a file, and hashes of its start and of its end."""
  with path.open('rb') as file:
    start, size = file.read(_START), file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    return f'{size}-{_short(start)}-{_short(file.read())}'


def _short(content: bytes) -> str:
  return files.sha256(content)[:16]


def marks(folder: Path, stem: str) -> dict[str, str]:
  """Marks of all files of a clip in a folder that holds nothing else."""
  found = sorted(path for path in folder.rglob('*') if path.is_file())
  names = [path.relative_to(folder).as_posix() for path in found]
  return {
    name.removeprefix(stem): mark(path)
    for name, path in zip(names, found, strict=True)
  }


def _marks_of(record: Mapping[str, Any]) -> dict[str, str]:
  """What a sidecar says; {} if it is of before, or was damaged."""
  told = record.get(MARKS)
  return {
    name: text
    for name, text in (told.items() if isinstance(told, dict) else ())
    if isinstance(text, str) and _MARK.fullmatch(text)
  }


def is_told(
  video: Path, record: Mapping[str, Any], tags: Mapping[str, Any]
) -> bool:
  """Whether an mp4 with such tags is the clip that a sidecar tells of."""
  told = _marks_of(record).get('.mp4')
  same = told is None or mark(video) == told
  # Another program's tags mean other things; a set's size has its own checks.
  names = {*tags} & {*record} - {'scale'} if 'key' in tags else ()
  return same and all(record[name] == tags[name] for name in names)


def are_whole(
  video: Path, endings: Sequence[str], record: Mapping[str, Any], key: str
) -> bool:
  """Whether all files of a clip are there as they were written.

  One that is missing, empty or cut short will be made again.

  Args:
    video: path of the mp4.
    endings: of the clip's files, without the sidecar's.
    record: the sidecar, which has this key; empty where there is none.
    key: of the request.

  Raises:
    UserError: a file was not written for this request; nothing replaces it.
  """
  tags = tags_of(video)
  own, told = tags.get('key') == key, _marks_of(record)
  whole = bool(record)
  for ending in endings:
    there = _files_of(video.with_suffix(ending), ending)
    for name, path in there.items():
      usual = name == ending or _PICTURE.fullmatch(name)
      if not told and own and usual and (record or name == '.mp4'):
        whole &= path.is_file() and path.stat().st_size > 0
      elif name not in told or not _is_ours(path, told[name]):
        raise foreign(path) if name != '.mp4' or not record else _other(video)
      else:
        whole &= mark(path) == told[name]
    lost = {name for name in told if name.split('/')[0] == ending} - {*there}
    whole &= bool(there) and not lost
  if record and tags and not is_told(video, {**record, MARKS: {}}, tags):
    raise _other(video)
  return whole


def tags_of(video: Path) -> dict[str, Any]:
  """The tags of a video; {} where there is none that can be read."""
  with contextlib.suppress(UserError):
    return read_metadata(video) if video.is_file() else {}
  return {}


def _other(video: Path) -> UserError:
  sidecar = video.with_suffix('.json').name
  return UserError(
    f'{video} is not the clip that {sidecar} tells of; choose another --out, '
    'or move both away.'
  )


def _files_of(path: Path, ending: str) -> dict[str, Path]:
  """The files of an output that are there, by what follows the clip's name."""
  if path.is_dir() and ending == '.frames':
    return {f'{ending}/{own.name}': own for own in sorted(path.iterdir())}
  return {ending: path} if os.path.lexists(path) else {}


def _is_ours(path: Path, told: str) -> bool:
  """Whether a file is what was written, or what a fault has left of it."""
  if not path.is_file():
    return False
  now, (size, start, _) = mark(path), told.split('-')
  if now == told:
    return True
  left, begins, _ = now.split('-')
  cut = _START <= int(left) < int(size) and begins == start
  return left == '0' or cut
