"""Writes safetensors piece by piece, so that no array need be whole in memory.

The library writes what it is given at once. The format allows more: a header
says where every array lies, so that its parts may be written in any order.
"""

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.convert.checkpoints import NAMES

_COPY_BYTES = 32 * 2**20  # at a time

Specs = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def file_size(size: int) -> str:
  """Writes a number of bytes for people."""
  return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


@contextlib.contextmanager
def streaming(
  path: Path, specs: Specs, metadata: Mapping[str, str]
) -> Iterator['StreamWriter']:
  """Opens a file that appears under its name when the block succeeds.

  Args:
    path: of the finished file.
    specs: name -> (shape, dtype) of every array.
    metadata: texts kept in the header.

  Raises:
    UserError: the folder cannot be written to, or the disk is too small.
  """
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
