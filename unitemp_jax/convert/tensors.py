"""Tensors that lie in a file: where, of which type, and how to read them.

Nothing is memory-mapped: a read holds one tensor (or some of its rows), and
what was read before is not kept in memory by the system on our behalf.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

# Safetensors' names of the types that weights may have.
DTYPES: Mapping[str, np.dtype] = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Tensor(Protocol):
  """One tensor of a checkpoint.

  `dtype` is None if weights cannot be of the type that the file names.
  """

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""

  @property
  def dtype(self) -> np.dtype | None:
    """Its type, or None."""

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Returns the values, or those of a range of the first axis."""


@dataclasses.dataclass(frozen=True)
class ArrayTensor:
  """A tensor that is in memory already."""

  array: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape."""
    return self.array.shape

  @property
  def dtype(self) -> np.dtype | None:
    """Its type, None if weights cannot be of it."""
    return self.array.dtype if self.array.dtype in NAMES else None

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Returns the values."""
    return self.array if rows is None else self.array[rows]


@dataclasses.dataclass(frozen=True)
class FileTensor:
  """A tensor at an offset of a file.

  Attributes:
    path: the file.
    offset: of its first element, in bytes.
    shape: its shape.
    dtype: its type, None if weights cannot be of it.
    strides: in elements; None for the usual order of rows.
  """

  path: Path
  offset: int
  shape: tuple[int, ...]
  dtype: np.dtype | None
  strides: tuple[int, ...] | None = None

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Returns the values, or those of a range of the first axis."""
    if self.dtype is None:
      raise ValueError(f'{self.path}: not a type that weights have')
    if self.strides is not None:
      whole = self._read_strided()
      return whole if rows is None else whole[rows]
    shape, offset = self.shape, self.offset
    if rows is not None:
      start, stop, _ = rows.indices(shape[0])
      row = int(np.prod(shape[1:], dtype=np.int64))
      shape = (stop - start, *shape[1:])
      offset += start * row * self.dtype.itemsize
    count = int(np.prod(shape, dtype=np.int64))
    return self._read_flat(offset, count).reshape(shape)

  def _read_flat(self, offset: int, count: int) -> np.ndarray:
    flat = np.empty(count, self.dtype)
    with self.path.open('rb', buffering=0) as file:
      file.seek(offset)
      view = memoryview(flat.view(np.uint8))
      while view:
        done = file.readinto(view)
        if not done:
          raise OSError(f'{self.path} ends before its tensors do')
        view = view[done:]
    return flat

  def _read_strided(self) -> np.ndarray:
    assert self.strides is not None
    if 0 in self.shape:
      return np.empty(self.shape, self.dtype)
    last = sum(
      (n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)
    )
    flat = self._read_flat(self.offset, last + 1)
    strides = tuple(s * flat.itemsize for s in self.strides)
    return np.lib.stride_tricks.as_strided(flat, self.shape, strides)


def contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
  """Whether strides (in elements) are those of the usual order of rows."""
  expected = 1
  for size, stride in zip(shape[::-1], strides[::-1], strict=True):
    if size != 1 and stride != expected:
      return False
    expected *= size
  return True
