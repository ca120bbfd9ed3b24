"""Reads a PyTorch `.pt` without PyTorch and without running code in it.

A `.pt` is a zip of uncompressed files: a pickle that describes the tensors and
one file of raw bytes per storage. Unpickling may call any function that the
pickle names, so that names are looked up in a list of our own: the few that
rebuild tensors. All else is refused.
"""

import collections
import dataclasses
import pickle
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from unitemp_jax.convert.tensors import FileTensor, contiguous
from unitemp_jax.errors import UserError

_LOCAL_HEADER = 30  # bytes before the name in the zip's header of a file
# Storage class -> (bytes per element, type or None if weights have another).
_STORAGES: dict[str, tuple[int, Any]] = {
  'DoubleStorage': (8, np.float64),
  'FloatStorage': (4, np.float32),
  'HalfStorage': (2, np.float16),
  'BFloat16Storage': (2, ml_dtypes.bfloat16),
  'LongStorage': (8, None),
  'IntStorage': (4, None),
  'ShortStorage': (2, None),
  'CharStorage': (1, None),
  'ByteStorage': (1, None),
  'BoolStorage': (1, None),
}


class _Refused(pickle.UnpicklingError):
  """The pickle asks for something that is not on the list."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
  itemsize: int
  dtype: np.dtype | None


@dataclasses.dataclass(frozen=True)
class _Storage:
  path: Path
  offset: int
  numel: int
  kind: _StorageType


def _rebuild_tensor(storage, offset, size, stride, *_) -> FileTensor:
  """Stands in for torch._utils._rebuild_tensor_v2; checks every number."""
  size, stride = tuple(size), tuple(stride)
  numbers = (offset, *size, *stride)
  if (
    not isinstance(storage, _Storage)
    or len(size) != len(stride)
    or any(not isinstance(n, int) or n < 0 for n in numbers)
  ):
    raise pickle.UnpicklingError('a tensor is described wrongly')
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if 0 not in size and last >= storage.numel:
    raise pickle.UnpicklingError('a tensor reaches beyond its storage')
  return FileTensor(
    storage.path,
    storage.offset + offset * storage.kind.itemsize,
    size,
    storage.kind.dtype,
    None if contiguous(size, stride) else stride,
  )


def _rebuild_parameter(data, *_) -> FileTensor:
  if not isinstance(data, FileTensor):
    raise pickle.UnpicklingError('a parameter holds no tensor')
  return data


_ALLOWED: dict[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch', 'Size'): tuple,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
} | {
  ('torch', name): _StorageType(size, None if kind is None else np.dtype(kind))
  for name, (size, kind) in _STORAGES.items()
}


class _Unpickler(pickle.Unpickler):
  """Knows tensors and plain containers, nothing else."""

  def __init__(self, file: IO[bytes], storages: '_Storages'):
    super().__init__(file, encoding='utf-8')
    self._storages = storages

  def find_class(self, module: str, name: str) -> Any:
    """Looks a name up in the list."""
    if (module, name) not in _ALLOWED:
      raise _Refused(f'{module}.{name}')
    return _ALLOWED[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    """Finds the file of a storage."""
    match pid:
      case ('storage', _StorageType() as kind, str(key), _, int(numel)):
        return self._storages.find(kind, key, numel)
    raise pickle.UnpicklingError('a storage is described wrongly')


class _Storages:
  """Where in the zip the bytes of every storage begin."""

  def __init__(self, path: Path, archive: zipfile.ZipFile, root: str):
    self._path = path
    self._archive = archive
    self._root = root

  def find(self, kind: _StorageType, key: str, numel: int) -> _Storage:
    """Returns a storage whose bytes are all there."""
    try:
      info = self._archive.getinfo(f'{self._root}data/{key}')
    except KeyError as error:
      missing = f'the data of storage {key} is missing'
      raise pickle.UnpicklingError(missing) from error
    if info.compress_type != zipfile.ZIP_STORED:
      raise pickle.UnpicklingError('its tensors are compressed')
    if numel < 0 or info.file_size < numel * kind.itemsize:
      raise pickle.UnpicklingError(f'storage {key} is shorter than it says')
    with self._path.open('rb') as file:
      file.seek(info.header_offset)
      header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b'PK\x03\x04':
      raise pickle.UnpicklingError(f'storage {key} is not where it should be')
    name, extra = struct.unpack('<HH', header[26:30])
    offset = info.header_offset + _LOCAL_HEADER + name + extra
    if offset + info.file_size > self._path.stat().st_size:
      raise pickle.UnpicklingError(f'storage {key} is cut off')
    return _Storage(self._path, offset, numel, kind)


def read(path: Path) -> Any:
  """Returns what a `.pt` holds: containers, with FileTensors for tensors.

  Raises:
    UserError: the file is cut off, no `.pt`, of the form from before PyTorch
      1.6, or its pickle asks for anything but tensors.
  """
  resave = (
    'open it in PyTorch, if you trust it, and save the state dict alone: '
    'torch.save(state_dict, "weights.pt").'
  )
  with path.open('rb') as file:
    start = file.read(4)
  if start[:1] == b'\x80':
    raise UserError(
      f'{path} is a bare pickle, which PyTorch wrote before 1.6, and is not '
      f'opened because that runs its code; {resave}'
    )
  if start != b'PK\x03\x04':
    raise UserError(
      f'{path} is no PyTorch file: it starts with {start!r} and not as a zip; '
      'check the download.'
    )
  try:
    with zipfile.ZipFile(path) as archive:
      return _read_archive(path, archive)
  except _Refused as error:
    raise UserError(
      f'{path} is not opened: its pickle asks to call {error}, and only '
      f'functions that rebuild tensors are allowed; {resave}'
    ) from error
  except zipfile.BadZipFile as error:
    raise UserError(
      f'{path} is cut off or damaged ({error}); copy or download it again.'
    ) from error
  except (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    RecursionError,
    TypeError,
    UnicodeDecodeError,
    ValueError,
  ) as error:  # What the unpickler raises on bytes that are no pickle.
    raise UserError(
      f'{path} cannot be read as a PyTorch file ({error}); copy or download it '
      'again.'
    ) from error


def _read_archive(path: Path, archive: zipfile.ZipFile) -> Any:
  pickles = [
    n for n in archive.namelist() if n.rpartition('/')[2] == 'data.pkl'
  ]
  if len(pickles) != 1:
    raise pickle.UnpicklingError(f'it has {len(pickles)} files data.pkl')
  root = pickles[0][: -len('data.pkl')]
  order = f'{root}byteorder'
  if order in archive.namelist() and archive.read(order) != b'little':
    raise pickle.UnpicklingError('its numbers are big-endian')
  with archive.open(pickles[0]) as file:
    return _Unpickler(file, _Storages(path, archive, root)).load()
