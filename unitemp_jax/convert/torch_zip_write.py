"""Writes a PyTorch `.pt` without PyTorch, one tensor at a time.

The file is what `torch.save` writes of nested dicts of tensors, and what
`torch.load(weights_only=True)` and `torch_zip.read` open.
"""

import dataclasses
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files

_STORAGES = {
  'float64': 'DoubleStorage',
  'float32': 'FloatStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
}
_ROOT = 'archive/'
_ALIGNMENT = 64
_LOCAL_HEADER = 30
_ZIP64_EXTRA = 20  # what zipfile adds to the header of a large file
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever they are written


@dataclasses.dataclass(frozen=True)
class Lazy:
  """A tensor that is read when its turn comes; two uses share one storage.

  Attributes:
    shape: its shape.
    dtype: its type.
    read: returns the values.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]


def write(
  path: Path,
  values: Mapping[str, Any],
  note: str = '',
  progress: Callable[[int], None] = lambda done: None,
) -> None:
  """Writes nested dicts of `Lazy` tensors; the file appears when complete.

  Args:
    path: of the file.
    values: names to tensors or to further dicts.
    note: text kept beside the tensors, for `read_note`.
    progress: called with the number of bytes of every tensor written.
  """
  storages: dict[int, tuple[str, Lazy]] = {}
  head = b'\x80\x02' + _dict(values, storages) + b'.'
  with (
    files.writing(path) as part,
    part.open('wb') as file,
    zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive,
  ):
    _add(archive, 'data.pkl', head)
    _add(archive, 'byteorder', b'little')
    if note:
      _add(archive, 'unitemp.json', note.encode())
    for key, tensor in storages.values():
      array = tensor.read()
      if array.shape != tensor.shape or array.dtype != tensor.dtype:
        raise ValueError(f'tensor {key} is not what was announced')
      data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
      _add(archive, f'data/{key}', data.data)
      progress(data.nbytes)
    _add(archive, 'version', b'3\n')


def read_note(path: Path) -> str:
  """Returns the note of a file that `write` wrote, empty for any other."""
  try:
    with zipfile.ZipFile(path) as archive:
      return archive.read(f'{_ROOT}unitemp.json').decode()
  except (OSError, KeyError, ValueError, zipfile.BadZipFile):
    return ''


def _add(archive: zipfile.ZipFile, name: str, data: Any) -> None:
  """Adds a file whose bytes start at a multiple of 64, for memory maps."""
  info = zipfile.ZipInfo(_ROOT + name, _DATE)
  assert archive.fp is not None
  start = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + _ZIP64_EXTRA
  padding = -(start + 4) % _ALIGNMENT
  info.extra = b'FB' + struct.pack('<H', padding) + b'Z' * padding
  with archive.open(info, 'w', force_zip64=True) as file:
    file.write(data)


def _text(value: str) -> bytes:
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def _int(value: int) -> bytes:
  if value < 2**31:
    return b'J' + struct.pack('<i', value)
  data = value.to_bytes((value.bit_length() + 8) // 8, 'little')
  return b'\x8a' + bytes([len(data)]) + data


def _tuple(values: tuple[int, ...]) -> bytes:
  return b'(' + b''.join(_int(value) for value in values) + b't'


def _name(module: str, name: str) -> bytes:
  return f'c{module}\n{name}\n'.encode()


def _dict(
  values: Mapping[str, Any], storages: dict[int, tuple[str, Lazy]]
) -> bytes:
  """Pickle of a dict; the tensors in it are added to `storages`."""
  items = [
    _text(name)
    + (
      _tensor(value, storages)
      if isinstance(value, Lazy)
      else _dict(value, storages)
    )
    for name, value in values.items()
  ]
  return b'}(' + b''.join(items) + b'u'


def _tensor(tensor: Lazy, storages: dict[int, tuple[str, Lazy]]) -> bytes:
  """Pickle of `_rebuild_tensor_v2(storage, 0, size, stride, False, {})`."""
  key, _ = storages.setdefault(id(tensor), (str(len(storages)), tensor))
  storage = (
    b'('
    + _text('storage')
    + _name('torch', _STORAGES[tensor.dtype.name])
    + _text(key)
    + _text('cpu')
    + _int(math.prod(tensor.shape))
    + b'tQ'
  )
  stride = tuple(
    math.prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape))
  )
  hooks = _name('collections', 'OrderedDict') + b')R'
  return (
    _name('torch._utils', '_rebuild_tensor_v2')
    + b'('
    + storage
    + _int(0)
    + _tuple(tensor.shape)
    + _tuple(stride)
    + b'\x89'
    + hooks
    + b'tR'
  )
