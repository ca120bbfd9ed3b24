"""Atomic writes, hashes, JSON, and one writer per folder.

What is written appears under its name when it is complete, or not at all. It
is made beside its target under a name that nobody can guess, never through a
link. What killed writers leave behind is removed by the next write there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from unitemp_jax.errors import UserError

Name = str | os.PathLike[str]
LOCK = '.writer.json'
_DAY = 24 * 3600.0
_BEAT = 5.0  # seconds between two signs of life of a lock's holder
_WATCHED = 20.0  # seconds without one, after which it counts as dead
_writing: set[Path] = set()  # Temporary files of this process.


def write(path: Name, content: bytes | str, *, replace: bool = True) -> Path:
  """Writes a file and its folder, all or nothing, and returns its path.

  Args:
    path: of the file.
    content: text is written as UTF-8.
    replace: whether a file of other content may be replaced.

  Raises:
    UserError: it cannot be written, or may not be replaced.
  """
  path = Path(path)
  data = content.encode() if isinstance(content, str) else content
  if not replace and os.path.lexists(path):
    if path.is_file() and path.read_bytes() == data:
      return path
    raise UserError(f'{path} exists; delete it or choose another name.')
  with writing(path) as temporary, temporary.open('r+b') as file:
    file.write(data)
  return path


def write_json(path: Name, value: Any, *, indent: int | None = 1) -> Path:
  """Writes JSON that ends with a line break; see `write`."""
  return write(path, json.dumps(value, indent=indent) + '\n')


@contextlib.contextmanager
def writing(
  path: Name, *, folder: bool = False, within: Name | None = None
) -> Iterator[Path]:
  """Yields an empty file that takes the name `path` when the block succeeds.

  Args:
    path: of the file; its folder is made.
    folder: yields a folder instead; `path` must then not exist, or be empty.
    within: where the temporary file lies, on the same disk; beside `path`
      otherwise.

  Raises:
    UserError: it cannot be written, for want of space or rights.
  """
  path, temporary = Path(path), None
  try:
    if path.is_dir() and not folder:
      raise IsADirectoryError(0, 'it is a folder')
    near = Path(within or path.parent)
    near.mkdir(parents=True, exist_ok=True)
    sweep(near)
    temporary = _make_temporary(near, folder)
    yield temporary
    _sync(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, path)
    _sync(path.parent)
  except (OSError, UserError) as error:
    cause = error.__cause__ if isinstance(error, UserError) else error
    if not isinstance(cause, OSError):
      raise
    raise UserError(
      f'cannot write {path} ({cause.strerror or cause}); make room or choose '
      'another folder.'
    ) from error
  finally:
    if temporary is not None:
      _remove(temporary)
      _writing.discard(temporary)


def _make_temporary(near: Path, folder: bool) -> Path:
  name = f'.unitemp-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp'
  temporary = near / name
  _writing.add(temporary)
  if folder:
    temporary.mkdir()
  else:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
    os.close(os.open(temporary, flags, 0o666))
  return temporary


def _sync(path: Path) -> None:
  """Waits until a file is on the disk; folders cannot do so everywhere."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError:
    if not path.is_dir():
      raise
  finally:
    os.close(descriptor)


def _remove(path: Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
  """Removes temporary files of `writing` that no living process writes.

  Those of other machines count as left behind after a day.
  """
  for path in folder.glob('.unitemp-*-*-*.tmp'):
    if path in _writing:
      continue
    _, machine, pid, _ = path.name.split('-', 3)
    dead = machine == _machine() and not is_alive(int(pid), but_this=True)
    with contextlib.suppress(OSError):
      if dead or time.time() - path.lstat().st_mtime > _DAY:
        _remove(path)


def _machine() -> str:
  """What has process numbers of its own: a start of a host or container."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):
    parts.append(os.readlink('/proc/self/ns/pid'))
    parts.append(Path('/proc/sys/kernel/random/boot_id').read_text())
  return sha256(' '.join(parts))[:12]


def is_alive(pid: int, *, but_this: bool = False) -> bool:
  """Whether a process of this machine runs; `but_this`: and is another one."""
  if pid == os.getpid():
    return not but_this
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    return True
  return True


def sha256(content: bytes | str) -> str:
  """Returns the hash of bytes or of a text in 64 hex digits."""
  data = content.encode() if isinstance(content, str) else content
  return hashlib.sha256(data).hexdigest()


def file_sha256(*paths: Name) -> str:
  """Returns the hash of a file's content, or of several, one after another."""
  digest = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      while piece := file.read(2**20):
        digest.update(piece)
  return digest.hexdigest()


def read_json(
  path: Name,
  what: str = 'JSON',
  mend: str = 'check the path',
  *,
  kind: type = dict,
  keys: Collection[str] = (),
) -> Any:
  """Reads JSON from a file.

  Args:
    path: of the file.
    what: it should be, such as 'a list of prompts', for the message.
    mend: how to mend it, for the message.
    kind: type of the value.
    keys: that a table must have.

  Raises:
    UserError: it is missing, unreadable, no JSON, or of another shape.
  """
  try:
    value = json.loads(Path(path).read_text(encoding='utf-8'))
  except OSError as error:
    why = 'it is missing'
    if not isinstance(error, FileNotFoundError):
      why = str(error.strerror or error)
  except UnicodeDecodeError:
    why = 'it is no text in UTF-8'
  except RecursionError:
    why = 'it is nested too deep'
  except ValueError as error:
    why = f'it is no JSON: {error}'
  else:
    why = _unfit(value, kind, keys)
    if not why:
      return value
  raise UserError(f'{path} cannot be read as {what} ({why}); {mend}.')


def _unfit(value: Any, kind: Any, keys: Collection[str]) -> str:
  """Says how a value is not of the shape that is asked for, '' if it is."""
  if not isinstance(value, kind):
    names: dict[Any, str] = {dict: 'a table', list: 'a list', str: 'a text'}
    found = names.get(type(value), repr(value)[:20])
    return f'it holds {found}, not {names.get(kind, kind.__name__)}'
  missing = [key for key in keys if key not in value]
  return f'it lacks {", ".join(missing)}' if missing else ''


@contextlib.contextmanager
def lock(folder: Name) -> Iterator[None]:
  """Keeps other processes from writing to a folder, which is made.

  The holder is known by a file with its host and process number, and shows
  that it lives by touching it, since not every shared disk knows locks. The
  lock of a process that died is taken over: at once if it ran on this machine,
  otherwise after watching it for some seconds.

  Raises:
    UserError: another process holds it (which, on which host, since when), or
      the folder cannot be written.
  """
  path = Path(folder) / LOCK
  about = {
    'host': socket.gethostname(),
    'machine': _machine(),
    'pid': os.getpid(),
    'since': time.strftime('%Y-%m-%d %H:%M:%S %Z'),
    'token': secrets.token_hex(8),
  }
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _take(path, about):
      _take_over(path)
  except OSError as error:
    raise UserError(
      f'{folder} cannot be written ({error.strerror}); choose another folder '
      'or mend its permissions.'
    ) from error
  done = threading.Event()
  beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
  beat.start()
  try:
    yield
  finally:
    done.set()
    beat.join()
    if _holder(path).get('token') == about['token']:
      path.unlink(missing_ok=True)


def _take(path: Path, about: dict[str, Any]) -> bool:
  flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
  try:
    descriptor = os.open(path, flags, 0o666)
  except FileExistsError:
    return False
  with os.fdopen(descriptor, 'w') as file:
    json.dump(about, file)
  return True


def _take_over(path: Path) -> None:
  """Removes the lock of a dead process; UserError if the holder lives."""
  holder = _holder(path)
  mine = holder.get('machine') == _machine()
  if mine and isinstance(holder.get('pid'), int):
    alive = is_alive(holder['pid'])
  else:
    alive = _beats(path)
  if alive:
    who = f'process {holder.get("pid")} on {holder.get("host")}'
    raise UserError(
      f'{who} has been writing to {path.parent} since {holder.get("since")}; '
      'wait for it or choose another folder.'
    )
  # Two may see the same dead holder: what was moved is looked at again.
  aside = path.with_name(f'{path.name}.{secrets.token_hex(8)}')
  with contextlib.suppress(FileNotFoundError):
    os.rename(path, aside)
    if _holder(aside) == holder:
      aside.unlink()
    elif not os.path.lexists(path):
      os.rename(aside, path)


def _holder(path: Path) -> dict[str, Any]:
  try:
    return read_json(path)
  except UserError:
    return {}


def _beats(path: Path) -> bool:
  """Watches whether the holder of a lock on another machine touches it."""
  first, until = None, time.monotonic() + _WATCHED
  while True:
    try:
      # Opening asks the server of a shared disk for the newest state.
      with path.open('rb') as file:
        now = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
      return False
    if first is not None and now != first:
      return True
    if time.monotonic() > until:
      return False
    first = now
    time.sleep(min(1.0, _BEAT / 2))


def _beat(path: Path, done: threading.Event) -> None:
  while not done.wait(_BEAT):
    with contextlib.suppress(OSError):
      os.utime(path)
