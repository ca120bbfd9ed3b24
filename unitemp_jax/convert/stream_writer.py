"""Writes safetensors piece by piece, so that no array need be whole in memory.

The library writes what it is given at once. The format allows more: a header
says where every array lies, so that its parts may be written in any order. A
file carries its name only once it is complete.
"""

import fcntl
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax.convert.tensors import NAMES
from unitemp_jax.errors import UserError

_COPY_BYTES = 32 * 2**20  # at a time

Specs = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def file_size(size: int) -> str:
  """Writes a number of bytes for people."""
  return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


class StreamWriter:
  """One safetensors file that appears under its name when all is written."""

  def __init__(self, path: Path, specs: Specs, metadata: Mapping[str, str]):
    """Reserves the file.

    Args:
      path: of the finished file.
      specs: name -> (shape, dtype) of every array.
      metadata: texts kept in the header.

    Raises:
      UserError: the folder cannot be written to, the disk is too small, or
        another process is writing the same file.
    """
    self._path = path
    self._part = path.with_name(f'.{path.name}.part')
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
    self._open(struct.pack('<Q', len(text)) + text, self._base + end)

  def _open(self, header: bytes, size: int) -> None:
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        os.close(self._file)
        raise UserError(
          f'another process is writing {self._path}; wait for it.'
        ) from error
      os.ftruncate(self._file, 0)
      if hasattr(os, 'posix_fallocate'):
        os.posix_fallocate(self._file, 0, size)
      else:
        os.ftruncate(self._file, size)
      self._put(header, 0)
    except OSError as error:
      self._part.unlink(missing_ok=True)
      raise UserError(
        f'{self._path} cannot be written ({error.strerror}); it needs '
        f'{file_size(size)} of free space.'
      ) from error

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

  def finish(self) -> None:
    """Gives the file its name."""
    os.fsync(self._file)
    os.replace(self._part, self._path)
    os.close(self._file)

  def abandon(self) -> None:
    """Removes what was written."""
    self._part.unlink(missing_ok=True)
    os.close(self._file)
