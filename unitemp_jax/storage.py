"""gs:// paths: a folder of this machine that follows one of a bucket.

What a command names by gs:// is fetched before it starts, to a cache, and the
command works there, so that every format can be written and every lock taken.
What it writes is copied to the bucket a few seconds later, whole file by whole
file, and at its end. So the same command goes on on any machine.

Objects appear whole. Files that belong together (a checkpoint) become so by a
list of what a machine has copied, which is written after them: what no list
names is of a copy that was cut off, and is not fetched.

etils.epath does not replace this: it opens gs:// by TensorFlow or gcsfs, which
hold no locks and give no file that a video is written to or a log appended to,
and a checkpoint, which must be whole, would need the list all the same.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError, optional
from unitemp_jax.parallel import locks

_ADDRESS = re.compile(r'gs://[^\s,;]*')
_SETTING = re.compile(r':[-+.\d]+$')  # of what follows a path: a strength
_EVERY = 5.0  # seconds between two copies to the bucket
_STALE = 60.0  # seconds without a sign of life of a lock's holder
_LIST = '.unitemp-copied-'
_mirrors: list['Mirror'] = []  # of the command that runs
# Names that are not copied: temporary files, locks, and pixels of a stream.
_OWN = re.compile(r'\.unitemp-|\.orbax-checkpoint-tmp|^\.writer\.json|^pixels$')


def _cache() -> Path:
  default = Path.home() / '.cache' / 'unitemp'
  return Path(os.environ.get('UNITEMP_CACHE', default)) / 'gs'


def addressed(text: str) -> str:
  """The text with gs:// addresses in the place of their copies' paths."""
  return text.replace(f'{_cache()}/', 'gs://')


def _client() -> Any:
  from google.cloud import storage

  # What it warns of is said in the sentence that follows.
  logging.getLogger('google.auth').setLevel(logging.ERROR)
  if os.environ.get('STORAGE_EMULATOR_HOST'):
    from google.auth.credentials import AnonymousCredentials

    return storage.Client('unitemp', credentials=AnonymousCredentials())
  return storage.Client()


@contextlib.contextmanager
def _complaining(address: str) -> Iterator[None]:
  """Turns what the cloud's library raises into a UserError."""
  with optional(f'{address} is in a bucket', 'gcs'):
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
  try:
    yield
  except (exceptions.GoogleAPIError, GoogleAuthError, OSError) as error:
    why = (
      f' cannot be reached ({str(error)[:80]!r}); check the network and try '
    )
    why += 'again.'
    if isinstance(error, exceptions.NotFound):
      why = ': there is no such bucket; create it, or check the name.'
    elif isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
      why = (
        ': you may not read or write there; ask for the role Storage Object '
      )
      why += 'User, or choose another bucket.'
    elif isinstance(error, GoogleAuthError):
      why = ': there are no credentials of Google Cloud here; run: gcloud auth '
      why += 'application-default login.'
    raise UserError(f'{address}{why}') from error


class Mirror:
  """A file or folder of a bucket and its copy here."""

  def __init__(self, address: str, client: Any):
    """Takes gs://BUCKET/PATH; nothing is read yet."""
    bucket, _, self.path = address.removeprefix('gs://').partition('/')
    self.path = self.path.strip('/')
    self.address = f'gs://{bucket}/{self.path}'
    self.local = _cache() / bucket / self.path
    self._bucket = client.bucket(bucket)
    self._client = client
    self._copied: dict[str, tuple[int, int]] = {}  # path -> size and time
    self._seen: dict[str, int] = {}  # object -> its generation
    self._locks: dict[str, int] = {}  # likewise
    self._turn = threading.Lock()
    self.pushed = 0

  @property
  def _list(self) -> str:
    """The object that lists what was copied from this cache."""
    own = files.sha256(f'{files.this_machine()} {self.local}')[:12]
    return f'{self.path}/{_LIST}{own}'

  def __contains__(self, path: Path) -> bool:
    return path == self.local or self.local in path.parents

  def _found(self) -> tuple[dict[str, Any], set[str]]:
    """The objects there by name, and the names of those that are whole."""
    found = {
      blob.name: blob
      for blob in self._client.list_blobs(
        self._bucket, prefix=self.path or None
      )
      if blob.name == self.path
      or blob.name.startswith(f'{self.path}/' if self.path else '')
    }
    lists = [b for b in found.values() if _LIST in b.name]
    wanted = {name for name in found if not _OWN.search(Path(name).name)}
    if lists:
      named: set[str] = set()
      for blob in lists:
        named |= set(json.loads(blob.download_as_bytes()))
      wanted &= named
    return found, wanted

  def names(self) -> set[Path]:
    """What is there, as it is called here."""
    return {self._here(name) for name in self._found()[1]}

  def exchange(self, folder: Path) -> None:
    """Copies what is new here, and fetches what others wrote to a folder."""
    self.push()
    self.pull(folder)

  def pull(self, folder: Path | None = None) -> None:
    """Fetches what is new or other than here, of a folder or all of it."""
    with self._turn:
      self._pull(folder or self.local)

  def _pull(self, folder: Path) -> None:
    found, wanted = self._found()
    for name in sorted(wanted):
      blob, path = found[name], self._here(name)
      if path != folder and folder not in path.parents:
        continue
      if self._seen.get(name) == blob.generation:
        continue
      here = path.is_file()
      if here and self._copied.get(name, _stamp(path)) != _stamp(path):
        continue  # It was written since, and will be copied.
      if not here or not _same(path, blob):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.unitemp-{os.getpid()}.tmp')
        blob.download_to_filename(temporary)
        # The same on every machine: what is measured of a file is kept by it.
        os.utime(temporary, times=(blob.updated.timestamp(),) * 2)
        os.replace(temporary, path)
      self._copied[name], self._seen[name] = _stamp(path), blob.generation
    own = self._list
    if own in found:  # What this machine copied and others deleted is gone.
      for name in set(json.loads(found[own].download_as_bytes())) - set(found):
        self._here(name).unlink(missing_ok=True)

  def push(self) -> None:
    """Copies what is new or has changed here, and deletes what is gone."""
    with self._turn:
      self._push()

  def _push(self) -> None:
    changed = False
    here = {self._name(path): path for path in self._files()}
    for name, path in sorted(here.items(), key=lambda pair: _time(pair[1])):
      with contextlib.suppress(FileNotFoundError):  # It was temporary.
        stamp = _stamp(path)
        if self._copied.get(name) == stamp:
          continue
        blob = self._bucket.blob(name)
        blob.upload_from_filename(path)
        self._copied[name], self._seen[name] = stamp, blob.generation
        changed, self.pushed = True, self.pushed + 1
    gone = [name for name in self._copied if name not in here]
    for name in gone:
      del self._copied[name]
      self._seen.pop(name, None)
    if changed or gone:
      listed = json.dumps(sorted(self._copied))
      if self.local.is_dir():
        self._bucket.blob(self._list).upload_from_string(listed)
    for name in gone:
      with contextlib.suppress(Exception):
        self._bucket.blob(name).delete()
    self._beat()

  def _files(self) -> list[Path]:
    """Files of the copy here that belong to the bucket."""
    if self.local.is_file():
      return [self.local]
    found = []
    for folder, folders, names in os.walk(self.local):
      folders[:] = [name for name in folders if not _OWN.search(name)]
      found += [Path(folder) / n for n in names if not _OWN.search(n)]
    return found

  def _here(self, name: str) -> Path:
    if name == self.path:
      return self.local
    return self.local / name.removeprefix(f'{self.path}/')

  def _name(self, path: Path) -> str:
    if path == self.local:
      return self.path
    inside = path.relative_to(self.local).as_posix()
    return f'{self.path}/{inside}' if self.path else inside

  @contextlib.contextmanager
  def lock(self, folder: Path) -> Iterator[None]:
    """Keeps other machines from writing to a folder of the bucket.

    Raises:
      UserError: another one does (which, since when).
    """
    name = f'{self._name(folder)}/{locks.LOCK}'
    about = {'host': socket.gethostname(), 'machine': files.this_machine()}
    about['since'] = time.strftime('%Y-%m-%d %H:%M:%S %Z')
    self._take(name, json.dumps(about))
    try:
      yield
    finally:
      with self._turn, contextlib.suppress(Exception):
        generation = self._locks.pop(name, None)
        self._bucket.blob(name).delete(if_generation_match=generation)

  def _take(self, name: str, about: str) -> None:
    from google.api_core.exceptions import PreconditionFailed

    held = self._bucket.get_blob(name)
    generation = 0
    if held is not None:
      holder = json.loads(held.download_as_bytes())
      age = time.time() - held.updated.timestamp()
      if age < _STALE and holder.get('machine') != files.this_machine():
        raise UserError(
          f'{holder.get("host")} has been writing to {self.address} since '
          f'{holder.get("since")}; wait for it or choose another folder.'
        )
      generation = held.generation
    blob = self._bucket.blob(name)
    try:
      blob.upload_from_string(about, if_generation_match=generation)
    except PreconditionFailed as error:
      raise UserError(
        f'another machine has just begun to write to {self.address}; wait for '
        'it or choose another folder.'
      ) from error
    self._locks[name] = blob.generation

  def _beat(self) -> None:
    """Shows that the locks' holder lives."""
    for name, generation in list(self._locks.items()):
      blob = self._bucket.get_blob(name)
      if blob is None or blob.generation != generation:
        raise UserError(
          f'another machine has taken over {self.address}, which this one did '
          'not reach for a minute; run the command again.'
        )
      blob.metadata = {'alive': str(time.time())}
      blob.patch()
      self._locks[name] = blob.generation


def _same(path: Path, blob: Any) -> bool:
  if path.stat().st_size != blob.size:
    return False
  if blob.md5_hash is None:  # A composed object has none.
    return False
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'md5').digest()
  return base64.b64encode(digest).decode() == blob.md5_hash


def _stamp(path: Path) -> tuple[int, int]:
  about = path.stat()
  return about.st_size, about.st_mtime_ns


def _time(path: Path) -> int:
  with contextlib.suppress(FileNotFoundError):
    return path.stat().st_mtime_ns
  return 0


def existing(paths: Sequence[Path]) -> list[Path]:
  """Those of some files that are there, here or in a bucket."""
  names: set[Path] = set()
  for mirror in _mirrors:
    if any(path in mirror for path in paths):
      with _complaining(mirror.address):
        names |= mirror.names()
  return [path for path in paths if path in names or path.exists()]


def exchange(folder: Path) -> None:
  """Fetches what others wrote to a folder of a bucket, and shows them ours."""
  for mirror in _mirrors:
    if folder in mirror:
      with _complaining(mirror.address):
        mirror.exchange(folder)


@contextlib.contextmanager
def mirrored(argv: Sequence[str]) -> Iterator[list[str]]:
  """Yields arguments in which what is named by gs:// is a path of this machine.

  Hosts that make parts share a folder so. Those that train write every
  checkpoint together: a UserError tells them to mount the bucket.
  """
  addresses = [
    _SETTING.sub('', address)
    for word in argv
    for address in _ADDRESS.findall(word)
  ]
  many = re.search(r'--hosts[= ](?!1( |$))', ' '.join(argv))
  if argv[0] == 'train' and many:
    raise UserError(
      f'{addresses[0]}: hosts that train together write each checkpoint '
      'together and need one folder; mount the bucket (gcsfuse, as '
      'launch/tpu_pod.py does), and name it there.'
    )
  with _complaining(addresses[0]):
    client = _client()
    mirrors = {a: Mirror(a, client) for a in dict.fromkeys(addresses)}
    for mirror in mirrors.values():
      mirror.pull()
  words = list(argv)
  for address in sorted(mirrors, key=len, reverse=True):
    local = str(mirrors[address].local)
    words = [word.replace(address, local) for word in words]

  done, trouble = threading.Event(), []

  def follow() -> None:
    while not done.wait(_EVERY):
      try:
        for mirror in mirrors.values():
          mirror.push()
      except UserError as error:
        trouble.append(error)
        return
      except Exception as error:  # The network: the next turn tries again.
        print(f'note: not copied yet ({str(error)[:80]})', file=sys.stderr)

  thread = threading.Thread(target=follow, daemon=True)

  def lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    for mirror in mirrors.values():
      if folder in mirror:
        return mirror.lock(folder)
    return contextlib.nullcontext()

  _mirrors.extend(mirrors.values())
  with locks.also_locked(lock):
    thread.start()
    try:
      yield words
    except UserError as error:  # In the user's words.
      raise UserError(addressed(str(error))) from error
    finally:
      for mirror in mirrors.values():
        _mirrors.remove(mirror)
      done.set()
      thread.join()
      if trouble:
        raise trouble[0]
      for mirror in mirrors.values():
        with _complaining(mirror.address):
          mirror.push()
        if mirror.pushed:
          print(f'copied {mirror.pushed} files to {mirror.address}')
