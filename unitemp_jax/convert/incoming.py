"""Import of PyTorch checkpoints, one tensor at a time."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import DTypeLike

from unitemp_jax import files
from unitemp_jax.convert import checkpoints, fit, hub, keymap, lora
from unitemp_jax.convert.checkpoints import (
  DTYPES,
  StreamWriter,
  Tensor,
  streaming,
)
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import MODEL_RULES, WIDTH

# What dtype policies there are; 'keep' writes what was read.
POLICIES: Mapping[str, str | None] = {
  'keep': None,
  'float32': 'F32',
  'bfloat16': 'BF16',
}
_PIECE_BYTES = 128 * 2**20  # of a large array, read at a time

# (bytes done, bytes in all)
Progress = Callable[[int, int], None]


def load_torch(
  source: str | Path | Mapping[str, Any],
  kind: str,
  shapes: Any,
  *,
  layout: str | None = None,
  part: str | None = None,
  branch: str | None = None,
) -> Any:
  """Reads a checkpoint of any known layout into a parameter tree.

  Args:
    source: a file, an index, a folder, or a state dict of PyTorch or numpy
      arrays.
    kind: 'dit', 'vae' or 'umt5'.
    shapes: tree of arrays or ShapeDtypeStructs to read into. Values are cast
      to these types. A leaf with a sharding is made piece by piece: no host
      holds more of it than its devices and one tensor of the file.
    layout: 'wan' or 'diffusers'; found by the names if None.
    part: of a file with several networks, such as 'generator' or 'critic'; the
      running mean if None.
    branch: read and return only this branch of the tree.
  """
  opened = checkpoints.open_checkpoint(source)
  found = fit.find(opened, kind, layout, part)
  entries = fit.check(found, shapes)
  flat = {
    path: _make(leaf, entries[path], found)
    for path, leaf in keymap.flat_shapes(shapes).items()
    if branch in (None, path.split('/')[0])
  }
  tree = traverse_util.unflatten_dict(flat, sep='/')
  return tree if branch is None else tree[branch]


@dataclasses.dataclass(frozen=True)
class Layers:
  """The parameters of a network that are read a part at a time."""

  found: fit.Found  # the network in its checkpoint
  # Our path -> the tensors that make it, from `fit.check`.
  entries: Mapping[str, Sequence[keymap.Entry]]

  def load(
    self,
    *branches: str,
    layer: int | None = None,
    dtype: DTypeLike | None = np.float32,
  ) -> dict[str, Any]:
    """Reads branches of the tree.

    Args:
      *branches: first parts of their paths; none for all.
      layer: the only one to read of stacked arrays.
      dtype: of the result; None for that of the file.
    """
    flat = {}
    for path, entries in self.entries.items():
      if branches and path.split('/')[0] not in branches:
        continue
      if layer is None and entries[0].layer is not None:
        values = np.stack([_values(e, self.found, dtype) for e in entries])
      else:
        values = _values(entries[layer or 0], self.found, dtype)
      flat[path] = jnp.asarray(values)
    return traverse_util.unflatten_dict(flat, sep='/')


def _make(
  leaf: Any, entries: list[keymap.Entry], found: fit.Found
) -> jax.Array:
  dtype = np.dtype(leaf.dtype)

  def layer(entry: keymap.Entry) -> np.ndarray:
    return _values(entry, found, dtype)

  if getattr(leaf, 'sharding', None) is None or isinstance(leaf, jax.Array):
    if entries[0].layer is None:
      return jnp.asarray(layer(entries[0]))
    return jnp.asarray(np.stack([layer(entry) for entry in entries]))

  def piece(index: tuple[slice, ...]) -> np.ndarray:
    if entries[0].layer is None:
      return np.ascontiguousarray(layer(entries[0])[index])
    return np.stack([layer(e)[index[1:]] for e in entries[index[0]]])

  return jax.make_array_from_callback(tuple(leaf.shape), leaf.sharding, piece)


def _values(
  entry: keymap.Entry,
  found: fit.Found,
  dtype: np.dtype,
  rows: slice | None = None,
) -> np.ndarray:
  """Values of a tensor in our layout, checked to be finite."""
  values = found.tensors[entry.name].read(rows)
  values = weights.cast(values, dtype, entry.name, found.where)
  return entry.pattern.to_flax(values)


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of a checkpoint that fits ours, not read yet."""

  found: fit.Found  # the network in its checkpoint
  config: Any  # its size
  # Our path `a/b` -> (shape, dtype to write).
  leaves: Mapping[str, tuple[tuple[int, ...], np.dtype]]
  # Our path -> the tensors that make it, in order.
  entries: Mapping[str, Sequence[keymap.Entry]]

  @property
  def bytes(self) -> int:
    """Size of what will be written."""
    return sum(math.prod(s) * d.itemsize for s, d in self.leaves.values())

  def about(self) -> dict[str, Any]:
    """Where the weights come from, for the header of their file."""
    where = self.found.where
    return {
      'source': where if hub.is_name(where) else Path(where).name,
      'kind': self.found.kind,
      'layout': self.found.layout,
      'prefix': self.found.prefix,
      'fingerprint': checkpoints.fingerprint(self.found.tensors),
      **({'loras': list(self.found.loras)} if self.found.loras else {}),
    }

  def pieces(self, path: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, rows) of one of our arrays.

    A piece is one layer of a stack, a range of rows of a large array that
    needs no change of layout, or the whole.
    """
    shape, dtype = self.leaves[path]
    for entry in self.entries[path]:
      if entry.layer is not None:
        yield entry.layer, _values(entry, self.found, dtype)[None]
      elif entry.pattern.forward is None:
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        rows = max(1, _PIECE_BYTES // max(1, row_bytes))
        for row in range(0, shape[0], rows):
          here = slice(row, min(row + rows, shape[0]))
          yield row, _values(entry, self.found, dtype, here)
      else:
        yield 0, _values(entry, self.found, dtype)


def open_network(
  source: str | Path,
  kind: str,
  *,
  config: Any = None,
  layout: str | None = None,
  part: str | None = None,
  dtype: str = 'keep',
  loras: Sequence[str] = (),
) -> Network:
  """Finds a network in a checkpoint and checks all of it; reads no weights.

  Args:
    source: file, index or folder.
    kind: 'dit', 'vae' or 'umt5'.
    config: the size it must have; None for whichever published one it has.
    layout: see `fit.find`.
    part: see `fit.find`.
    dtype: a name of `POLICIES`.
    loras: FILE[:strength] of what is merged into a transformer.
  """
  found = fit.find(checkpoints.open_checkpoint(source), kind, layout, part)
  if config is None:
    config = fit.recognise(found)
  shapes = sizes.param_shapes(config)
  entries = fit.check(found, shapes)
  fit.check_heads(found, config)
  found = lora.merge(found, shapes, loras)
  leaves = {
    path: (shape, _dtype(entries[path], found.tensors, dtype, found.where))
    for path, shape in keymap.plain_shapes(shapes).items()
  }
  return Network(found, config, leaves, entries)


def _dtype(
  entries: Sequence[keymap.Entry],
  tensors: Mapping[str, Tensor],
  policy: str,
  where: str,
) -> np.dtype:
  name = POLICIES[policy]
  if name is not None:
    return DTYPES[name]
  there = {tensors[entry.name].kind for entry in entries}
  if len(there) > 1:
    raise UserError(
      f'{where} stores {entries[0].name} and the same of other layers in '
      f'different types ({", ".join(sorted(there))}); choose one with --dtype.'
    )
  return DTYPES[there.pop()]


def split_axis(path: str, shape: tuple[int, ...], parts: int) -> int | None:
  """The axis along which the sharding table cuts an array; None for none."""
  matches = device_mesh.matching_rules(path, MODEL_RULES)
  spec = MODEL_RULES[matches[0]][1] if matches else ()
  if parts == 1 or WIDTH not in spec:
    return None
  axis = spec.index(WIDTH)
  if shape[axis] % parts:
    raise UserError(
      f'{path} {list(shape)} does not divide into {parts} parts along axis '
      f'{axis}; change --fsdp.'
    )
  return axis


@dataclasses.dataclass(frozen=True)
class Output:
  """One file, or one set of parts, that an import writes."""

  path: Path  # of the file; with several parts the index lies beside it
  # Prefix of the names (empty or ending with a dot) -> network.
  networks: Mapping[str, Network]
  parts: int = 1  # number of files; 1 for a single one

  def about(self) -> dict[str, Any]:
    """What the header says; the same for the same input and settings."""
    listed = {key: n.about() for key, n in sorted(self.networks.items())}
    types = sorted(
      {str(d) for n in self.networks.values() for _, d in n.leaves.values()}
    )
    return {'converted': listed, 'dtypes': types, 'parts': self.parts}

  def heads(self) -> dict[str, int]:
    """Heads of attention by prefix, which names and shapes do not say."""
    return {
      key: network.config.num_heads
      for key, network in self.networks.items()
      if hasattr(network.config, 'num_heads')
    }

  def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype, int | None]]:
    """Name of every array -> its shape, its type, the axis it is cut along."""
    return {
      prefix + path.replace('/', '.'): (
        *(shape, dtype),
        split_axis(path, shape, self.parts),
      )
      for prefix, network in self.networks.items()
      for path, (shape, dtype) in network.leaves.items()
    }

  def files(self) -> list[Path]:
    """The files that hold weights."""
    if self.parts == 1:
      return [self.path]
    name = self.path.name.removesuffix('.safetensors')
    return [
      self.path.with_name(f'{name}-{i + 1:05}-of-{self.parts:05}.safetensors')
      for i in range(self.parts)
    ]

  def is_done(self) -> bool:
    """Whether the output is there already, from the same input."""
    index = weights.index_path(self.path)
    there = [p for p in (self.path, index) if p.exists()]
    if not there:
      return False
    same = False
    with contextlib.suppress(UserError), weights.Files(self.path) as opened:
      same = {**opened.metadata, 'heads': 0} == {**self.about(), 'heads': 0}
    if not same or there != [self.path if self.parts == 1 else index]:
      raise UserError(
        f'{there[0]} holds other weights; remove it or choose another --out.'
      )
    return True


def write(output: Output, progress: Progress) -> None:
  """Writes an output; a call that is killed leaves nothing under its name."""
  arrays = output.arrays()
  about = {**output.about(), 'heads': output.heads()}
  metadata = {'unitemp': json.dumps(about, sort_keys=True)}
  done, total = 0, sum(n.bytes for n in output.networks.values())
  with contextlib.ExitStack() as stack:
    writers = []
    for number, file in enumerate(output.files()):
      specs = {
        name: (_part_shape(shape, axis, output.parts), dtype)
        for name, (shape, dtype, axis) in arrays.items()
        if number == 0 or axis is not None
      }
      writers.append(stack.enter_context(streaming(file, specs, metadata)))
    for prefix, network in output.networks.items():
      for path in network.leaves:
        name = prefix + path.replace('/', '.')
        shape, dtype, axis = arrays[name]
        for row, values in network.pieces(path):
          _spread(writers, name, axis, shape, row, values)
          done += values.size * dtype.itemsize
          progress(done, total)
  if output.parts > 1:
    axes = {name: axis for name, (_, _, axis) in sorted(arrays.items())}
    listed = {'axes': axes, 'files': [file.name for file in output.files()]}
    files.write_json(weights.index_path(output.path), listed)


def _part_shape(
  shape: tuple[int, ...], axis: int | None, parts: int
) -> tuple[int, ...]:
  return tuple(n // parts if i == axis else n for i, n in enumerate(shape))


def _spread(
  writers: Sequence[StreamWriter],
  name: str,
  axis: int | None,
  shape: tuple[int, ...],
  row: int,
  values: np.ndarray,
) -> None:
  """Writes rows of an array to the parts that hold them."""
  if axis is None:
    writers[0].write(name, row * math.prod(shape[1:]), values)
    return
  part_shape = _part_shape(shape, axis, len(writers))
  per_row, size = math.prod(part_shape[1:]), part_shape[axis]
  for number, writer in enumerate(writers):
    low, high = number * size, (number + 1) * size
    if axis:
      cut = values[(slice(None),) * axis + (slice(low, high),)]
      writer.write(name, row * per_row, cut)
      continue
    first, last = max(low, row), min(high, row + len(values))
    if first < last:
      cut = values[first - row : last - row]
      writer.write(name, (first - low) * per_row, cut)
