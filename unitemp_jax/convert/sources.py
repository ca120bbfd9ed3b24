"""Opens checkpoints: `.pt`, safetensors, several files with an index, folders.

Opening reads names, shapes and types; the tensors stay in their files.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from unitemp_jax.convert import torch_zip
from unitemp_jax.convert.tensors import DTYPES, ArrayTensor, FileTensor, Tensor
from unitemp_jax.errors import UserError

_INDEX = '.index.json'
_PICKLES = ('.pt', '.pth', '.bin', '.ckpt')
_SUFFIXES = ('.safetensors', *_PICKLES)


def open_checkpoint(
  source: str | Path | Mapping[str, Any],
) -> dict[str, Tensor]:
  """Returns the tensors of a checkpoint by name, nested names joined by dots.

  Args:
    source: a file, an index of several, a folder with one of these, or a state
      dict of PyTorch or numpy arrays.

  Raises:
    UserError: missing, cut off, not a checkpoint, or one that runs code.
  """
  if isinstance(source, Mapping):
    return _flatten(source, 'the state dict')
  path = Path(source)
  if path.is_dir():
    path = _in_folder(path)
  if not path.is_file():
    raise UserError(f'there is no checkpoint {path}; check the path.')
  if path.name.endswith(_INDEX):
    return _open_index(path)
  return _open_file(path)


def _open_file(path: Path) -> dict[str, Tensor]:
  if path.suffix == '.safetensors':
    return _open_safetensors(path)
  if path.suffix in _PICKLES:
    return _flatten(torch_zip.read(path), str(path))
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


def _open_index(path: Path) -> dict[str, Tensor]:
  try:
    names = json.loads(path.read_text())['weight_map']
    files = sorted(set(names.values()))
    parts = {file: path.parent / file for file in files}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} is no index of a checkpoint ({error!r}); download it again.'
    ) from error
  absent = [file for file in files if not parts[file].is_file()]
  if absent:
    raise UserError(
      f'{path} names {len(files)} files and {len(absent)} of them are missing: '
      f'{", ".join(absent)}; put them beside it.'
    )
  opened = {file: _open_file(part) for file, part in parts.items()}
  lost = sorted(n for n, file in names.items() if n not in opened[file])
  if lost:
    raise UserError(
      f'{path} names {len(lost)} tensors that its files do not hold, the first '
      f'is {lost[0]}; download it and its files again.'
    )
  return {name: opened[file][name] for name, file in names.items()}


def _open_safetensors(path: Path) -> dict[str, Tensor]:
  try:
    # The library checks the header against the length of the file.
    with safetensors.safe_open(path, framework='np'):
      pass
    with path.open('rb') as file:
      (length,) = struct.unpack('<Q', file.read(8))
      header = json.loads(file.read(length))
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read as safetensors ({error}); copy or download it '
      'again.'
    ) from error
  header.pop('__metadata__', None)
  return {
    name: FileTensor(
      path,
      8 + length + entry['data_offsets'][0],
      tuple(entry['shape']),
      DTYPES.get(entry['dtype']),
    )
    for name, entry in header.items()
  }


def _flatten(values: Any, where: str) -> dict[str, Tensor]:
  """Joins the names of nested dicts; what is no tensor is passed over."""
  out: dict[str, Tensor] = {}

  def visit(value: Any, name: str) -> None:
    tensor = _as_tensor(value)
    if tensor is not None:
      out[name] = tensor
    elif isinstance(value, Mapping):
      for key, inner in value.items():
        visit(inner, f'{name}.{key}' if name else str(key))

  visit(values, '')
  if not out:
    raise UserError(f'{where} holds no tensors by name; give a state dict.')
  return out


def _as_tensor(value: Any) -> Tensor | None:
  if isinstance(value, FileTensor):
    return value
  if isinstance(value, np.ndarray):
    return ArrayTensor(value)
  if hasattr(value, 'detach'):  # PyTorch's, which numpy cannot always take
    value = value.detach().cpu()
    if str(value.dtype) == 'torch.bfloat16':
      import torch

      bits = value.contiguous().view(torch.int16).numpy()
      return ArrayTensor(bits.view(DTYPES['BF16']))
    return ArrayTensor(value.numpy())
  return None
