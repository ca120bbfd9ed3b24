"""Weights on disk: one safetensors file per network, names joined by dots.

Safetensors holds arrays and text only, so that reading a file cannot run code.

Lazy weights are leaves of a tree whose files are read when they are needed. So
a program that names what it reads, in which shapes, can be described, compiled
and refused without reading any of it, and every process later reads only what
its own devices hold.
"""

import abc
import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util
from jax.sharding import Mesh

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.parallel.mesh import Rules, placed

_FLOATS = ('F64', 'F32', 'F16', 'BF16')  # types of weights in safetensors
# Never 0 everywhere; but a training may start so, of Wan's VAE as well.
_FILLED = ('kernel', 'scale', 'gamma', 'embedding', 'modulation')
_FROM_ZERO = ('head.kernel', 'attention.proj.kernel')


def save(
  path: str | Path,
  params: Any,
  metadata: dict[str, Any] | None = None,
  dtype=np.float32,
) -> Path:
  """Writes a parameter tree atomically, cast to `dtype`; returns the path."""
  path = Path(path)
  flat = traverse_util.flatten_dict(params, sep='.')
  arrays = {
    name: np.asarray(jax.device_get(value)).astype(dtype)
    for name, value in sorted(flat.items())
  }
  text = {'unitemp': json.dumps(metadata or {}, sort_keys=True)}
  with files.writing(path) as temporary:
    safetensors.numpy.save_file(arrays, temporary, metadata=text)
  return path


def index_path(path: str | Path) -> Path:
  """Where the index of a network is that is split over several files."""
  return Path(f'{path}.index.json')


def exist(path: str | Path) -> bool:
  """Whether `load` finds weights: the file itself or the index of its parts."""
  return Path(path).is_file() or index_path(path).is_file()


def heads(
  metadata: Mapping[str, Any], network: str, prefix: str = ''
) -> int | None:
  """Heads of attention by a file's own metadata, None if it does not say.

  Args:
    metadata: see `Files.metadata`.
    network: 'dit' or 'text'.
    prefix: of its names in the file.
  """
  try:
    if 'heads' in metadata:
      told = metadata['heads'].get(prefix)
    else:  # A training's config.
      told = sizes.rename(metadata['config']['model'])[network]['num_heads']
  except (KeyError, TypeError, AttributeError):
    return None
  return told if isinstance(told, int) else None


def check_finite(values: np.ndarray, name: str, where: str | Path) -> None:
  """Refuses weights that are infinite or not a number.

  Raises:
    UserError: the file, the array and how many of its values.
  """
  if values.dtype == ml_dtypes.bfloat16:  # By its bits: several times faster.
    bad = (values.view(np.uint16) & 0x7F80) == 0x7F80
  elif values.dtype.kind == 'f':
    bad = ~np.isfinite(values)
  else:
    return
  if bad.any():
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    raise UserError(
      f'{where} is damaged or of a training that diverged: {int(bad.sum())} '
      f'values of {name} are not finite in {values.dtype}, the first is '
      f'{values[first]} at {list(first)}; copy it again, or use an earlier one.'
    )


def cast(
  values: np.ndarray, dtype: Any, name: str, where: str | Path
) -> np.ndarray:
  """Weights in another type, which must hold them; see `check_finite`."""
  with np.errstate(over='ignore'):
    values = values.astype(values.dtype if dtype is None else dtype, copy=False)
  check_finite(values, name, where)
  return values


def check(path: str | Path, shapes: Any) -> None:
  """Reads names and shapes only; UserError as `load` raises it."""
  path = Path(path)
  with Files(path) as opened:
    _check(path, _flat_shapes(shapes), opened)


def _flat_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
  flat = traverse_util.flatten_dict(shapes, sep='.')
  return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def load(path: str | Path, shapes: Any, part: str | None = None) -> Any:
  """Reads a parameter tree in the shapes and dtypes of `shapes`.

  Arrays are read one at a time. A leaf of `shapes` with a sharding is made
  from the slices that this process's devices hold, and only those are read.

  Args:
    path: a safetensors file; or its name before it was split over several
      files, whose index lies beside them (see `Files`).
    shapes: tree of arrays or ShapeDtypeStructs to read into.
    part: read and return only this branch of the tree.

  Raises:
    UserError: no such file, not safetensors, other names or shapes, or values
      that are not finite, or 0 in all of a kernel.
  """
  path = Path(path)
  wanted = traverse_util.flatten_dict(
    shapes if part is None else {part: shapes[part]}, sep='.'
  )
  with Files(path) as opened:
    _check(path, _flat_shapes(shapes), opened)
    flat = {name: _make(opened, name, wanted[name]) for name in wanted}
  tree = traverse_util.unflatten_dict(flat, sep='.')
  return tree if part is None else tree[part]


def _make(opened: 'Files', name: str, leaf: Any) -> jax.Array:
  dtype, shape = leaf.dtype, tuple(leaf.shape)

  def read(index=None):
    values = cast(opened.read(name, index), dtype, name, opened.path)
    filled = name.endswith(_FILLED) and not name.endswith(_FROM_ZERO)
    if filled and values.size and not (values.flat[0] or values.any()):
      raise UserError(
        f'{opened.path} is damaged or not of a training: {name} is 0 '
        'everywhere; copy it again, or use another one.'
      )
    return values

  # Arrays have a sharding as well, but ask for shape and dtype only.
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is not None:
    return jax.make_array_from_callback(shape, leaf.sharding, read)
  return jnp.asarray(read())


def _check(path: Path, wanted: dict[str, tuple[int, ...]], opened: 'Files'):
  there = opened.shapes
  problems = [f'{n} is missing' for n in sorted(set(wanted) - set(there))]
  problems += [f'{n} is unknown' for n in sorted(set(there) - set(wanted))]
  problems += [
    f'{n} has shape {list(there[n])}, wanted {list(wanted[n])}'
    for n in sorted(set(wanted) & set(there))
    if there[n] != wanted[n]
  ]
  if problems:
    more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
    raise UserError(
      f'{path} does not fit the model: {"; ".join(problems[:3])}{more}; '
      'use the weights of this config or the config of these weights.'
    )


def open_safetensors(path: Path) -> Any:
  """A file of arrays that are read when they are asked for."""
  try:
    open(path, 'rb').close()  # Says why; safetensors takes all for missing.
    return safetensors.safe_open(path, framework='np')
  except (safetensors.SafetensorError, OSError) as error:
    raise UserError(
      f'{path} cannot be read as safetensors ({error}); copy or download it '
      'again.'
    ) from error


class Files:
  """The arrays of one network in one file, or split over several.

  A split network has an index, `NAME.safetensors.index.json`, with `files`
  (names, in order) and `axes` (array -> the axis along which it is cut into
  equal parts, one per file, or null for an array that the first file holds
  whole). A process opens only the files that it reads from.
  """

  def __init__(self, path: Path):
    """Opens headers; UserError if something cannot be read."""
    self._stack = contextlib.ExitStack()
    self._open: dict[int, Any] = {}
    self._axes: dict[str, int | None] = {}
    self.path = path
    self._paths = [path]
    index = index_path(path)
    if not os.path.isfile(path):
      if not os.path.isfile(index):
        raise UserError(f'there are no weights at {path}; check the path.')
      self._read_index(index)
    first = self._file(0)
    self.shapes: dict[str, tuple[int, ...]] = {}
    for name in first.keys():  # noqa: SIM118 (no mapping)
      part = first.get_slice(name)
      shape, kind = list(part.get_shape()), part.get_dtype()
      if kind not in _FLOATS:
        raise UserError(
          f'{path} is damaged or no file of weights: {name} holds {kind}, no '
          'floats of 16 to 64 bits; write or copy it again.'
        )
      axis = self._axes.get(name)
      if axis is not None:
        if not isinstance(axis, int) or not 0 <= axis < len(shape):
          raise UserError(
            f'{index} joins {name} along axis {axis}, of {len(shape)}; write '
            'it again.'
          )
        shape[axis] *= len(self._paths)
      self.shapes[name] = tuple(shape)

  def __enter__(self) -> 'Files':
    return self

  def __exit__(self, *_) -> None:
    self._stack.close()

  def _read_index(self, index: Path) -> None:
    fields = files.read_json(
      index, 'an index of weights', 'write it again', keys=('files', 'axes')
    )
    try:
      self._paths = [index.parent / name for name in fields['files']]
      self._axes = dict(fields['axes'])
      self._paths[0]
    except (ValueError, LookupError, TypeError) as error:
      raise UserError(
        f'{index} is no index of weights ({error!r}); write it again.'
      ) from error

  def _file(self, number: int) -> Any:
    if number not in self._open:
      opened = open_safetensors(self._paths[number])
      self._open[number] = self._stack.enter_context(opened)
    return self._open[number]

  @property
  def metadata(self) -> dict[str, Any]:
    """What was said about the weights when they were written."""
    try:
      said = json.loads((self._file(0).metadata() or {}).get('unitemp', '{}'))
    except (ValueError, RecursionError):
      return {}
    return said if isinstance(said, dict) else {}

  def dtype(self, name: str) -> np.dtype:
    """The type of an array."""
    part = self._file(0).get_slice(name)
    none = (slice(0, 0),) * len(part.get_shape())
    return part[*none].dtype

  def read(self, name: str, index: tuple[slice, ...] | None = None):
    """Returns an array, or the part that `index` names."""
    axis = self._axes.get(name)
    if axis is None and index is None:
      return self._file(0).get_tensor(name)
    shape = self.shapes[name]
    bounds = [
      (at.start or 0, n if at.stop is None else at.stop)
      for at, n in zip(index or (slice(None),) * len(shape), shape, strict=True)
    ]
    if axis is None:
      return self._file(0).get_slice(name)[*(slice(*b) for b in bounds)]
    size = shape[axis] // len(self._paths)
    start, stop = bounds[axis]
    parts = []
    for number in range(start // size, -(-stop // size)):
      low = max(start - number * size, 0)
      bounds[axis] = low, min(stop - number * size, size)
      part = self._file(number).get_slice(name)
      parts.append(part[*(slice(*b) for b in bounds)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


class Lazy(abc.ABC):
  """A leaf of a tree that stands for a tree of arrays in a file."""

  @property
  @abc.abstractmethod
  def tree(self) -> Any:
    """ShapeDtypeStructs of these arrays."""

  @abc.abstractmethod
  def check(self) -> None:
    """Raises UserError if the file is missing or does not fit."""

  @abc.abstractmethod
  def load(self, placed: Any = None) -> Any:
    """Reads `tree`, split as in `placed` (`tree` with shardings), or whole."""


@dataclasses.dataclass(frozen=True)
class LazyWeights(Lazy):
  """One network in a file of weights."""

  path: str  # of the file, see `load`
  # Tree of ShapeDtypeStructs, all that the file holds; in the dtypes that they
  # are kept in.
  shapes: Any
  # Name of the network in the file; None if it is all of it.
  part: str | None = None

  @property
  def tree(self) -> Any:
    """The shapes of the network."""
    return self.shapes if self.part is None else self.shapes[self.part]

  def check(self) -> None:
    """Compares names and shapes with those in the file; see `Lazy.check`."""
    check(self.path, self.shapes)

  def load(self, placed: Any = None) -> Any:
    """Reads the network; see `Lazy.load`."""
    placed = self.tree if placed is None else placed
    if self.part is None:
      return load(self.path, placed)
    whole = {**self.shapes, self.part: placed}
    return load(self.path, whole, self.part)


def _is_lazy(leaf: Any) -> bool:
  return isinstance(leaf, Lazy)


def check_lazy(tree: Any) -> None:
  """Raises UserError for files that are missing or do not fit."""
  for leaf in jax.tree.leaves(tree, is_leaf=_is_lazy):
    if _is_lazy(leaf):
      leaf.check()


def shapes_of(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
  """Returns the shapes of a tree of arrays and `Lazy`, with shardings."""
  shapes = jax.tree.map(
    lambda leaf: leaf.tree if _is_lazy(leaf) else leaf, tree, is_leaf=_is_lazy
  )
  if mesh is None:
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes
    )
  return placed(shapes, mesh, rules)


def load_lazy(tree: Any, mesh: Mesh | None = None, rules: Rules = ()) -> Any:
  """Returns the tree with every `Lazy` read and everything on the devices."""

  def one(leaf, shapes):
    if _is_lazy(leaf):
      return leaf.load(shapes)
    return jax.device_put(leaf, shapes.sharding)

  return jax.tree.map(one, tree, shapes_of(tree, mesh, rules), is_leaf=_is_lazy)
