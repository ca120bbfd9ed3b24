"""Atomic writes, hashes and JSON.

What is written appears under its name when it is complete, or not at all. It
is made beside its target under a name that nobody can guess, never through a
link. What killed writers leave behind is removed by the next write there.
"""

import collections
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from unitemp_jax import errors
from unitemp_jax.errors import UserError

Name = str | os.PathLike[str]
# What numpy and zipfile raise on damaged npy and npz files, and on those whose
# header asks for more memory than there is.
UNREADABLE = (
  *(OSError, ValueError, EOFError, MemoryError, LookupError, TypeError),
  *(SyntaxError, RuntimeError, OverflowError, AttributeError),
  *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, struct.error),
)
HASHES = '.written.json'  # of files in its folder, see `write_all`
_DAY = 24 * 3600.0
_MOST_TEXT = 2**28  # bytes of a text that is held in memory
_writing: set[Path] = set()  # Temporary files of this process.
_TEMPORARY = re.compile(
  r'\.unitemp-([0-9a-f]{12})-(\d{1,10})-[0-9a-f]{16}\.tmp'
)


def is_web_address(path: Name) -> bool:
  """Whether what was given for a path starts like https://."""
  return bool(re.match(r'[A-Za-z][\w+.-]+:/', os.fspath(path)))


def check_here(path: Name) -> None:
  """Refuses, by UserError, to write to what is no place on this machine."""
  if is_web_address(path):
    raise UserError(
      f'{os.fspath(path)} is no place on this machine; write to one and copy '
      'it there, or mount it.'
    )


def no_file(path: Name) -> UserError:
  """The complaint about a path that is no file."""
  name = os.fspath(path)
  if is_web_address(path):
    return UserError(f'{name}: web addresses are not read; download it first.')
  if os.path.isdir(path):
    return UserError(f'{name} is a folder; name a file.')
  if os.path.lexists(path):
    return UserError(f'{name} is no file that can be read; name another.')
  return UserError(f'There is no file {name}.')


def write(
  path: Name,
  content: bytes | str,
  *,
  replace: bool = True,
  within: Name | None = None,
) -> Path:
  """Writes a file and its folder, all or nothing, and returns its path.

  Text is written as UTF-8. Unless `replace`, no file of other content is
  replaced; see `writing` for `within`.
  """
  path = Path(path)
  data = _bytes(content)
  if not replace and os.path.lexists(path):
    if path.is_file() and path.read_bytes() == data:
      return path
    raise UserError(f'{path} exists; delete it or choose another name.')
  with writing(path, within=within) as temporary, temporary.open('r+b') as file:
    file.write(data)
  return path


def write_all(
  contents: Mapping[Path, bytes | str], record: Path | None = None
) -> None:
  """Writes several files: all of them appear, or none.

  Their hashes go to the file `record`, for `check_unchanged`.
  """
  if record is not None:
    hashes = {
      os.path.relpath(path, record.parent): sorted(
        # The present one's too, until it is replaced.
        {sha256(content)} | ({file_sha256(path)} if path.is_file() else set())
      )
      for path, content in contents.items()
    }
    # What is written last here appears first.
    contents = {**contents, record: json.dumps(hashes, indent=1) + '\n'}
  with contextlib.ExitStack() as stack:
    for path, content in contents.items():
      data = _bytes(content)
      with stack.enter_context(writing(path)).open('r+b') as file:
        file.write(data)
        # All must have found room before the first one appears.
        file.flush()
        os.fsync(file.fileno())


def check_unchanged(record: Path) -> None:
  """Refuses, by UserError, files that are not as `write_all` wrote them."""
  hashes = read_json(record, mend='delete it') if record.is_file() else {}
  for name, known in hashes.items():
    path = record.parent / name
    if path.is_file() and file_sha256(path) not in str(known):
      raise UserError(
        f'{path} was changed since it was written; move it away, or choose '
        'another folder.'
      )


def check_no_links(out: Path, names: Iterable[Name]) -> None:
  """Refuses links, by UserError, in the places of folders that are written.

  `out` may be one itself, or lie behind one.
  """
  paths = map(Path, names)
  for name in sorted({p for own in paths for p in (own, *own.parents)}):
    if name.parts and (out / name).is_symlink():
      raise UserError(
        f'{out / name} is a link, and nothing is written through links; remove '
        'it, or choose another folder.'
      )


def append_to(path: Name) -> TextIO:
  """Opens a text to append to; OSError if it is a link."""

  def opener(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)

  return open(path, 'a', encoding='utf-8', opener=opener)


def write_json(path: Name, value: Any, *, indent: int | None = 1) -> Path:
  """Writes JSON that ends with a line break; see `write`."""
  return write(path, json.dumps(value, indent=indent) + '\n')


def write_generated(path: Name, text: str, command: str) -> None:
  """Writes a Markdown file that a command generates, as a whole."""
  check_generated(path, command)
  write(path, f'{_generated_by(command)}\n\n{text.strip()}\n')


def check_generated(path: Name, command: str) -> None:
  """Refuses a file, by UserError, that `command` did not generate."""
  path = Path(path)
  mark = _generated_by(command)
  if os.path.lexists(path) and not (
    path.is_file() and path.read_bytes().startswith(mark.encode())
  ):
    raise UserError(
      f'{path} exists and is no file that `{command}` generated; choose '
      'another name.'
    )


def _generated_by(command: str) -> str:
  return f'<!-- Generated by `{command}`: run it again, do not edit. -->'


@contextlib.contextmanager
def writing(
  path: Name,
  *,
  folder: bool = False,
  within: Name | None = None,
  merge: bool = False,
) -> Iterator[Path]:
  """Yields an empty file that takes the name `path` when the block succeeds.

  With `folder` a folder, where there is none or an empty one; with `merge` its
  files are moved to their names in `path`, JSON first: it tells what the others
  are. The temporary file lies `within` a folder of the same disk, or beside it.
  """
  check_here(path)
  path, temporary = Path(path), None
  try:
    if path.is_dir() and not folder:
      raise IsADirectoryError(0, 'it is a folder')
    near = Path(within or path.parent)
    sweep(near)
    temporary = _make_temporary(near, folder)
    made = temporary.stat()
    yield temporary
    if temporary.stat().st_ino != made.st_ino:
      temporary.chmod(made.st_mode)  # Safetensors' own is for its owner alone.
    _sync(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = sorted(temporary.rglob('*')) if merge else []
    for own in sorted(made, key=lambda own: own.suffix != '.json'):
      target = path / own.relative_to(temporary)
      if own.is_dir():
        target.mkdir(exist_ok=True)
      else:
        os.replace(own, target)
    if not merge:
      os.replace(temporary, path)
    _sync(path.parent)
  except Exception as error:
    cause = errors.system_error(error)
    if cause is None:
      raise
    raise UserError(
      f'cannot write {_final(path)} ({cause.strerror or cause}); make room or '
      'choose another folder.'
    ) from error
  finally:
    if temporary is not None:
      _remove(temporary)
      _writing.discard(temporary)


@contextlib.contextmanager
def scratch(near: Path) -> Iterator[Path]:
  """Yields an empty folder in `near`, which goes with all that is in it."""
  sweep(near)
  made = _make_temporary(near, folder=True)
  try:
    yield made
  finally:
    _remove(made)
    _writing.discard(made)


def _final(path: Path) -> Path:
  """Where a file of a temporary folder will lie."""
  return Path(*(p for p in path.parts if not p.startswith('.unitemp-')))


def _make_temporary(near: Path, folder: bool) -> Path:
  name = f'.unitemp-{this_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp'
  temporary = near / name
  _writing.add(temporary)
  flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
  for left in range(99, -1, -1):
    near.mkdir(parents=True, exist_ok=True)
    try:
      if folder:
        temporary.mkdir()
      else:
        os.close(os.open(temporary, flags, 0o666))
      break
    except FileNotFoundError:  # Another process has just tidied up `near`.
      if not left:
        raise
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
  for path in folder.glob('.unitemp-*.tmp'):
    named = _TEMPORARY.fullmatch(path.name)
    if path in _writing or not named:
      continue
    machine, pid = named.groups()
    # One of this process's number that it does not write is of a former one.
    dead = machine == this_machine() and (
      int(pid) == os.getpid() or not is_alive(int(pid))
    )
    with contextlib.suppress(OSError):
      if dead or time.time() - path.lstat().st_mtime > _DAY:
        _remove(path)


def this_machine() -> str:
  """What has process numbers of its own: a start of a host or container."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):
    parts.append(os.readlink('/proc/self/ns/pid'))
    parts.append(Path('/proc/sys/kernel/random/boot_id').read_text())
  return sha256(' '.join(parts))[:12]


def is_alive(pid: int) -> bool:
  """Whether a process of this machine runs."""
  return bool(birth(pid))


def birth(pid: int) -> str:
  """When a process began, which tells it from a later one; '' if it ended."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return ''
  except PermissionError:
    pass
  try:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  except OSError:
    return 'unknown'
  return '' if fields[0] in 'ZX' else fields[19]


def sha256(content: bytes | str) -> str:
  """The hash of bytes or of a text in 64 hex digits."""
  return hashlib.sha256(_bytes(content)).hexdigest()


def _bytes(content: bytes | str) -> bytes:
  """A text as UTF-8, with `\\udcff` for what a file's name has beyond it."""
  if isinstance(content, bytes):
    return content
  return content.encode('utf-8', 'backslashreplace')


def file_sha256(*paths: Name) -> str:
  """Returns the hash of a file's content, or of several, one after another."""
  digest = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      hashlib.file_digest(file, lambda: digest)
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
    what: it should be, such as 'a list of prompts'.
    mend: how to mend it.
    kind: type of the value.
    keys: that a table must have.
  """
  try:
    value = parse_json(_decoded(path))
  except OSError as error:
    why = 'it is missing'
    if not isinstance(error, FileNotFoundError):
      why = str(error.strerror or error)
  except UnicodeDecodeError:
    why = 'it is not text in UTF-8'
  except RecursionError:
    why = 'it is nested too deep'
  except ValueError as error:
    why = f'it is not JSON: {error}'
  else:
    why = _unfit(value, kind, keys)
    if not why:
      return value
  raise UserError(f'{path} cannot be read as {what} ({why}); {mend}.')


def read_known(path: Name) -> dict[str, Any]:
  """A table of JSON; {} where it is missing or damaged."""
  with contextlib.suppress(UserError):
    return read_json(path)
  return {}


def read_arrays(
  path: Name, mend: str, names: Collection[str] | None = None
) -> dict[str, Any]:
  """Arrays of an npz by name, or that of an npy under ''; UserError if neither.

  Only those of `names`; None for all. `mend` ends the sentence.
  """
  import numpy as np  # Here, so that light verbs do not wait for it.

  path = Path(path)
  if not path.is_file():
    raise no_file(path)
  try:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
      if names is not None and '' not in names:
        raise ValueError('it is no npz')
      return {'': loaded}
    with loaded:
      return {n: loaded[n] for n in loaded.files if names is None or n in names}
  except UNREADABLE as error:
    # numpy takes what it does not know for pickled, and advises to load it.
    why = 'it is no npy or npz' if 'pickle' in str(error) else error
    raise UserError(f'{path} cannot be read ({why}); {mend}.') from error


def parse_json(text: str | bytes) -> Any:
  """The value of JSON.

  ValueError, also for a key that is there twice, and for texts that no file can
  hold.
  """
  value = json.loads(text, object_pairs_hook=_table)
  if '\\u' in (text if isinstance(text, str) else text.decode()):
    json.dumps(value, ensure_ascii=False).encode()
  return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    keys = collections.Counter(key for key, _ in pairs)
    twice = keys.most_common(1)[0][0]
    raise ValueError(f'the key {twice!r:.60} is there twice')
  return found


def read_lines(path: Name) -> list[str]:
  """The lines of a text that are not blank, without outer spaces."""
  # Not str.splitlines, which cuts at characters that a prompt may hold.
  lines = read_text(path).split('\n')
  return [line.strip() for line in lines if not errors.is_blank(line)]


def read_text(path: Name) -> str:
  """Reads a text in UTF-8; UserError if it cannot be read as that."""
  if not _ends(path):
    raise no_file(path)
  try:
    return _decoded(path)
  except UnicodeDecodeError as error:
    why = f'no text in UTF-8 (see its byte {error.start}); save it as UTF-8'
    raise UserError(f'{path} is {why}, or name another file.') from error
  except OSError as error:
    why = f'({error.strerror}); mend its permissions'
    raise UserError(f'{path} cannot be read {why} or name another.') from error


def _ends(path: Name) -> bool:
  """Whether it is a file, or a pipe that a shell has opened: `<(...)`."""
  opened = re.fullmatch(r'/dev/(stdin|fd/\d+)', os.fspath(path))
  return os.path.isfile(path) or (bool(opened) and not os.path.isdir(path))


def _decoded(path: Name) -> str:
  """The text of a file that ends; OSError or UnicodeDecodeError."""
  if os.path.exists(path) and not _ends(path):
    kind = 'a folder' if os.path.isdir(path) else 'no file'
    raise OSError(errno.EINVAL, f'it is {kind}')
  with open(path, 'rb') as file:
    data = file.read(_MOST_TEXT + 1)
  if len(data) > _MOST_TEXT:
    raise OSError(errno.EFBIG, f'it has more than {_MOST_TEXT >> 20} MiB')
  return io.TextIOWrapper(io.BytesIO(data), encoding='utf-8-sig').read()


def _unfit(value: Any, kind: Any, keys: Collection[str]) -> str:
  """Says how a value is not of the shape that is asked for, '' if it is."""
  if not isinstance(value, kind):
    names: dict[Any, str] = {dict: 'a table', list: 'a list', str: 'a text'}
    found = names.get(type(value), repr(value)[:20])
    return f'it holds {found}, not {names.get(kind, kind.__name__)}'
  missing = [key for key in keys if key not in value]
  return f'it lacks {", ".join(missing)}' if missing else ''
