"""One writer per folder, on the file systems that people use."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError

LOCK = '.writer.json'
_BEAT = 5.0  # seconds between two signs of life of a lock's holder
_WATCHED = 20.0  # seconds without one, after which it counts as dead
_also_locked: list[Callable[[Path], contextlib.AbstractContextManager]] = []


@contextlib.contextmanager
def also_locked(
  take: Callable[[Path], contextlib.AbstractContextManager[None]],
) -> Iterator[None]:
  """While it lasts, `lock` takes this too, which is given the folder."""
  _also_locked.append(take)
  try:
    yield
  finally:
    _also_locked.remove(take)


@contextlib.contextmanager
def lock(folder: files.Name, part: tuple[int, int] = (0, 1)) -> Iterator[None]:
  """Keeps other processes from writing to a folder, which is made.

  It goes again if it is empty at the end and was not there before.

  Who writes part i of n, `part`, lets the other parts of n write beside it.

  The holder is known by a file with its host and process number, and shows
  that it lives by touching it, since not every shared disk knows locks. The
  lock of a process that died is taken over: at once if it ran on this machine,
  otherwise after watching it for some seconds.

  Raises:
    UserError: another process holds it (which, on which host, since when), or
      the folder cannot be written.
  """
  files.check_here(folder)
  folder, (index, count) = Path(folder), part
  own = folder / f'.part-{index}-of-{count}' if count > 1 else folder
  path, made = own / LOCK, not os.path.lexists(folder)
  about = {
    'host': socket.gethostname(),
    'machine': files.this_machine(),
    'pid': os.getpid(),
    'born': files.birth(os.getpid()),
    'since': time.strftime('%Y-%m-%d %H:%M:%S %Z'),
    'token': secrets.token_hex(8),
  }
  try:
    while not _take(path, about):
      _take_over(path, folder)
  except OSError as error:
    raise UserError(
      f'{folder} cannot be written ({error.strerror}); choose another folder '
      'or mend its permissions.'
    ) from error
  done = threading.Event()
  beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
  beat.start()
  try:
    # Two that begin at once see each other: each has taken its own before.
    for other in [folder / LOCK, *folder.glob(f'.part-*-of-*/{LOCK}')]:
      beside = count > 1 and other.parent.name.endswith(f'-of-{count}')
      if other != path and not beside and os.path.lexists(other):
        _take_over(other, folder)
        _leave(other.parent, folder)
    with contextlib.ExitStack() as stack:
      for take in _also_locked:
        stack.enter_context(take(own))
      yield
  finally:
    done.set()
    beat.join()
    if files.read_known(path).get('token') == about['token']:
      path.unlink(missing_ok=True)
    _leave(own, folder)
    if made:  # And nothing came to lie in it.
      with contextlib.suppress(OSError):
        folder.rmdir()


def _leave(own: Path, folder: Path) -> None:
  """Removes the place of a part's lock."""
  if own != folder:
    with contextlib.suppress(OSError):
      own.rmdir()


def _take(path: Path, about: dict[str, Any]) -> bool:
  flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    descriptor = os.open(path, flags, 0o666)
  except (FileExistsError, FileNotFoundError):  # `_leave` of another.
    return False
  with os.fdopen(descriptor, 'w') as file:
    json.dump(about, file)
  return True


def _take_over(path: Path, folder: Path) -> None:
  """Removes the lock of a dead process; UserError if the holder lives."""
  holder = files.read_known(path)
  mine = holder.get('machine') == files.this_machine()
  if mine and isinstance(holder.get('pid'), int):
    born = files.birth(holder['pid'])
    alive = born != '' and born == holder.get('born')
  else:
    alive = _beats(path)
  if alive:
    who = f'process {holder.get("pid")} on {holder.get("host")}'
    raise UserError(
      f'{who} has been writing to {folder} since {holder.get("since")}; '
      'wait for it or choose another folder.'
    )
  # Two may see the same dead holder: what was moved is looked at again.
  aside = path.with_name(f'{path.name}.{secrets.token_hex(8)}')
  with contextlib.suppress(FileNotFoundError):
    os.rename(path, aside)
    if files.read_known(aside) == holder:
      aside.unlink()
    elif not os.path.lexists(path):
      os.rename(aside, path)


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
