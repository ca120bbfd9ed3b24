"""Checkpoints of PyTorch tools: safetensors, `.pt`, indices, folders.

Opening reads names, shapes and types; values are read tensor by tensor. A `.pt`
is read by PyTorch itself, without running code in it
(`torch.load(weights_only=True, mmap=True)`). Safetensors are written piece by
piece, so that no array need be whole in memory, which the library cannot do:
the header says where every array lies, so that parts may be in any order.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from unitemp_jax import files
from unitemp_jax.convert import hub
from unitemp_jax.errors import UserError, optional
from unitemp_jax.models.weights import open_safetensors

# Safetensors' names of the types that weights may have.
DTYPES: Mapping[str, np.dtype] = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
# Types of quantised weights that can be read; see `quantised`.
FP8: Mapping[str, np.dtype] = {
  'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
  'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
}
NAMES = {dtype: name for name, dtype in (*DTYPES.items(), *FP8.items())}

_TORCH_NAMES = {
  'torch.float64': 'F64',
  'torch.float32': 'F32',
  'torch.float16': 'F16',
  'torch.bfloat16': 'BF16',
  'torch.float8_e4m3fn': 'F8_E4M3',
  'torch.float8_e5m2': 'F8_E5M2',
}
_INDEX = '.index.json'
_PICKLES = ('.pt', '.pth', '.bin', '.ckpt')
_SUFFIXES = ('.safetensors', *_PICKLES)
_DEEPEST = 20  # levels of nested dicts
_SAMPLE = 256  # values per tensor that a fingerprint reads


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of a checkpoint."""

  shape: tuple[int, ...]  # its shape
  # Name of its type, such as 'F32', or 'I8' and others that weights cannot have
  # here.
  kind: str
  # Returns the values of a range of the first axis; of all if None.
  load: Callable[[slice | None], np.ndarray]

  @property
  def dtype(self) -> np.dtype | None:
    """Its type, None if weights cannot have it."""
    return DTYPES.get(self.kind)

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Returns the values, or those of a range of the first axis."""
    return self.load(rows)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The tensors of a checkpoint."""

  where: str  # its name, for messages
  tensors: Mapping[str, Tensor]  # by name; nested names are joined by dots
  # What its header or the config.json beside it says of networks.
  configs: tuple[Mapping[str, Any], ...] = ()


def open_checkpoint(source: str | Path | Mapping[str, Any]) -> Checkpoint:
  """Opens a checkpoint.

  Args:
    source: a file, an index of several, a folder with one of these, a name on
      the hub (see `hub`), or a state dict of PyTorch or numpy arrays.
  """
  if isinstance(source, Mapping):
    where = 'the state dict'
    return Checkpoint(where, _flatten(source, where))
  path = hub.fetch(source) if hub.is_name(source) else Path(source)
  if path.is_dir():
    path = _in_folder(path)
  if not path.is_file():
    raise UserError(f'there is no checkpoint {path}; check the path.')
  if path.name.endswith(_INDEX):
    tensors, configs = _open_index(path)
  else:
    tensors, configs = _open_file(path)
  beside = path.parent / 'config.json'
  if beside.is_file():
    with contextlib.suppress(UserError):  # It may be of something else.
      configs.append(files.read_json(beside))
  return Checkpoint(str(source), tensors, tuple(configs))


Opened = tuple[dict[str, Tensor], list[Mapping[str, Any]]]


def _open_file(path: Path) -> Opened:
  if path.suffix == '.safetensors':
    return _open_safetensors(path)
  if path.suffix in _PICKLES:
    return _flatten(_load_pickle(path), str(path)), []
  if path.suffix == '.gguf':
    raise UserError(
      f'{path} is quantised in the format GGUF, which is not read; use the '
      'fp8, bfloat16 or float16 safetensors of the same model.'
    )
  raise UserError(
    f'{path} is no checkpoint that is known; give a file that ends in '
    f'{", ".join(_SUFFIXES)} or in {_INDEX}.'
  )


def _in_folder(folder: Path) -> Path:
  """The one checkpoint of a folder; an index goes before its parts."""
  found = sorted(folder.glob(f'*{_INDEX}')) or sorted(
    path for path in folder.iterdir() if path.suffix in _SUFFIXES
  )
  if len(found) == 1:
    return found[0]
  what = ', '.join(path.name for path in found[:5]) or 'no checkpoint'
  raise UserError(f'{folder} holds {what}; name the one file to read.')


def _open_index(path: Path) -> Opened:
  mend = 'download it again'
  fields = files.read_json(path, 'an index', mend, keys=('weight_map',))
  names = fields['weight_map']
  if not isinstance(names, dict) or not all(
    isinstance(name, str) for name in names.values()
  ):
    raise UserError(f'{path} maps no names to files; {mend}.')
  parts = {file: path.parent / file for file in sorted(set(names.values()))}
  absent = [file for file, part in parts.items() if not os.path.isfile(part)]
  if absent:
    raise UserError(
      f'{path} names {len(parts)} files and {len(absent)} of them are missing: '
      f'{", ".join(absent)}; put them beside it.'
    )
  opened = {file: _open_file(part) for file, part in parts.items()}
  lost = sorted(n for n, file in names.items() if n not in opened[file][0])
  if lost:
    raise UserError(
      f'{path} names {len(lost)} tensors that its files do not hold, the first '
      f'is {lost[0]}; download it and its files again.'
    )
  tensors = {name: opened[file][0][name] for name, file in names.items()}
  return tensors, [config for _, found in opened.values() for config in found]


def _open_safetensors(path: Path) -> Opened:
  opened = open_safetensors(path)
  tensors = {}
  if not opened.keys():
    raise UserError(f'{path} holds no tensors; copy or download it again.')
  for name in opened.keys():  # noqa: SIM118 (no mapping)
    part = opened.get_slice(name)
    shape, kind = tuple(part.get_shape()), part.get_dtype()

    def load(rows, part=part, name=name):
      return opened.get_tensor(name) if rows is None else part[rows]

    def load_fp8(rows, name=name, shape=shape, kind=kind):
      return _mapped(path, name, shape, FP8[kind])[rows or slice(None)]

    tensors[name] = Tensor(shape, kind, load_fp8 if kind in FP8 else load)
  configs = []
  for text in (opened.metadata() or {}).values():
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
      said = json.loads(text)
      configs += [said, said.get('config')]
  return tensors, [config for config in configs if isinstance(config, dict)]


def _mapped(
  path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
  """An array of a type that the library has no numpy type for."""
  with path.open('rb') as file:
    (length,) = struct.unpack('<Q', file.read(8))
    start = json.loads(file.read(length))[name]['data_offsets'][0]
  return np.memmap(path, dtype, 'r', 8 + length + start, shape)


def _load_pickle(path: Path) -> Any:
  """Reads a `.pt` by PyTorch, which runs no code of it and maps its values."""
  what = f'{path} is a PyTorch file'
  with optional(what, 'torch', ', or give a .safetensors file'):
    import torch
  try:
    # The format before 2020 is no zip file and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
  except Exception as error:  # Whatever its unpickler meets.
    asked = re.search(r'GLOBAL (\S+)', str(error))
    why = str(error).splitlines()[0][:120] if str(error) else repr(error)
    if asked:
      why = f'it asks to run {asked[1]}, and only weights are read'
    raise UserError(
      f'{path} cannot be read as weights of PyTorch ({why}); download it again '
      'or save a state dict.'
    ) from error


def _flatten(values: Any, where: str) -> dict[str, Tensor]:
  """Joins the names of nested dicts; what is no tensor is passed over."""
  out: dict[str, Tensor] = {}

  def visit(value: Any, name: str, depth: int) -> None:
    tensor = _as_tensor(value)
    if tensor is not None:
      out[name] = tensor
    elif isinstance(value, Mapping):
      if depth > _DEEPEST:
        raise UserError(
          f'{where} holds dicts within dicts without end; save a state dict.'
        )
      for key, inner in value.items():
        visit(inner, f'{name}.{key}' if name else str(key), depth + 1)

  visit(values, '', 0)
  if not out:
    raise UserError(f'{where} holds no tensors by name; give a state dict.')
  return out


def _as_tensor(value: Any) -> Tensor | None:
  if isinstance(value, np.ndarray):
    kind = NAMES.get(value.dtype, str(value.dtype))
    return Tensor(value.shape, kind, lambda rows: value[rows or slice(None)])
  if hasattr(value, 'detach') and hasattr(value, 'layout'):
    kind = _TORCH_NAMES.get(str(value.dtype), str(value.dtype))
    if str(value.layout) != 'torch.strided' or value.is_quantized:
      kind = f'{value.layout} {value.dtype}'
    return Tensor(
      tuple(value.shape), kind, lambda rows: _torch_values(value, rows)
    )
  return None


def _torch_values(tensor: Any, rows: slice | None) -> np.ndarray:
  tensor = tensor.detach()
  tensor = (tensor if rows is None else tensor[rows]).cpu()
  kind = _TORCH_NAMES.get(str(tensor.dtype), '')
  if kind != 'BF16' and kind not in FP8:
    return tensor.numpy()
  import torch

  # numpy does not know these: their bits are handed over.
  if kind in FP8:
    return tensor.view(torch.uint8).numpy().view(FP8[kind])
  return tensor.view(torch.int16).numpy().view(DTYPES['BF16'])


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
  """Hash of all names, shapes, types and the first values of every tensor."""
  digest = hashlib.sha256()
  for name in sorted(tensors):
    tensor = tensors[name]
    digest.update(f'{name} {tensor.shape} {tensor.dtype}\n'.encode())
    if tensor.dtype is not None and tensor.shape and 0 not in tensor.shape:
      rows = max(1, _SAMPLE // max(1, int(np.prod(tensor.shape[1:]))))
      head = tensor.read(slice(0, min(rows, tensor.shape[0])))
      flat = np.ascontiguousarray(head).reshape(-1)[:_SAMPLE]
      digest.update(flat.view(np.uint8).data)
  return digest.hexdigest()[:16]


_COPY_BYTES = 32 * 2**20  # at a time

Specs = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def file_size(size: int) -> str:
  """Writes a number of bytes for people."""
  return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


@contextlib.contextmanager
def streaming(
  path: Path, specs: Specs, metadata: Mapping[str, str]
) -> Iterator['StreamWriter']:
  """Opens a file that appears under its name when the block succeeds."""
  with files.writing(path) as temporary:
    descriptor = os.open(temporary, os.O_RDWR)
    try:
      yield StreamWriter(descriptor, specs, metadata)
    finally:
      os.close(descriptor)


class StreamWriter:
  """One safetensors file whose arrays are written in any order."""

  def __init__(
    self, descriptor: int, specs: Specs, metadata: Mapping[str, str]
  ):
    """Reserves the file's space and writes its header; see `streaming`."""
    self._file = descriptor
    header: dict[str, Any] = {'__metadata__': dict(metadata)}
    self._offsets: dict[str, tuple[int, np.dtype]] = {}
    end = 0
    # Wide types first, so that every array is aligned to its type.
    for name in sorted(specs, key=lambda n: (-specs[n][1].itemsize, n)):
      shape, dtype = specs[name]
      start, end = end, end + math.prod(shape) * dtype.itemsize
      header[name] = {
        'dtype': NAMES[dtype],
        'shape': list(shape),
        'data_offsets': [start, end],
      }
      self._offsets[name] = start, dtype
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    self._base = 8 + len(text)
    if hasattr(os, 'posix_fallocate'):
      os.posix_fallocate(descriptor, 0, self._base + end)
    self._put(struct.pack('<Q', len(text)) + text, 0)

  def _put(self, data: Any, offset: int) -> None:
    view = memoryview(data).cast('B')
    while view:
      done = os.pwrite(self._file, view, offset)
      view, offset = view[done:], offset + done

  def write(self, name: str, element: int, values: np.ndarray) -> None:
    """Writes values from an element of an array on, in the order of rows.

    They are cast to the type of the array, and brought into that order if they
    are a transposed view, some rows at a time.
    """
    start, dtype = self._offsets[name]
    offset = self._base + start + element * dtype.itemsize
    while values.ndim > 1 and values.shape[0] == 1:
      values = values[0]
    row_bytes = math.prod(values.shape[1:]) * dtype.itemsize
    rows = max(1, _COPY_BYTES // max(1, row_bytes))
    for row in range(0, len(values), rows):
      copy = np.ascontiguousarray(values[row : row + rows], dtype)
      self._put(copy.reshape(-1).view(np.uint8), offset)
      offset += copy.nbytes
