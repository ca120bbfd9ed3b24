"""From PyTorch checkpoints to our files, one tensor at a time."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.convert import fingerprint, fit, keymap, presets, sources
from unitemp_jax.convert.stream_writer import StreamWriter
from unitemp_jax.convert.tensors import NAMES, Tensor
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.sharding_rules import MODEL_RULES, WIDTH

# What dtype policies there are; 'keep' writes what was read.
POLICIES: Mapping[str, str | None] = {
  'keep': None,
  'float32': 'F32',
  'bfloat16': 'BF16',
}
_PIECE_BYTES = 128 * 2**20  # of a large array, read at a time

# (bytes done, bytes in all)
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of a checkpoint that fits ours, not read yet.

  Attributes:
    where: the checkpoint.
    found: the network in it.
    config: its size.
    leaves: our path `a/b` -> (shape, dtype to write).
    entries: our path -> the tensors that make it, in order.
  """

  where: str
  found: fit.Found
  config: Any
  leaves: Mapping[str, tuple[tuple[int, ...], np.dtype]]
  entries: Mapping[str, Sequence[keymap.Entry]]

  @property
  def bytes(self) -> int:
    """Size of what will be written."""
    return sum(math.prod(s) * d.itemsize for s, d in self.leaves.values())

  def about(self) -> dict[str, Any]:
    """Where the weights come from, for the header of their file."""
    return {
      'source': Path(self.where).name,
      'kind': self.found.kind,
      'layout': self.found.layout,
      'prefix': self.found.prefix,
      'fingerprint': fingerprint.of_tensors(self.found.tensors),
    }


def open_network(
  source: str | Path,
  kind: str,
  *,
  config: Any = None,
  layout: str | None = None,
  part: str | None = None,
  dtype: str = 'keep',
) -> Network:
  """Finds a network in a checkpoint and checks all of it; reads no weights.

  Args:
    source: file, index or folder.
    kind: 'dit', 'vae' or 'umt5'.
    config: the size it must have; None for whichever published one it has.
    layout: see `fit.find`.
    part: see `fit.find`.
    dtype: a name of `POLICIES`.

  Raises:
    UserError: it cannot be read or does not fit; all that is wrong is listed.
  """
  where = str(source)
  found = fit.find(sources.open_checkpoint(source), where, kind, layout, part)
  if config is None:
    config = presets.recognise(found, where)
  shapes = sizes.param_shapes(config)
  grouped: dict[str, list[keymap.Entry]] = {}
  for entry in fit.check(found, shapes, where):
    grouped.setdefault(entry.path, []).append(entry)
  leaves = {
    path: (
      tuple(leaf.shape),
      _dtype(grouped[path], found.tensors, dtype, where),
    )
    for path, leaf in keymap.flat_shapes(shapes).items()
  }
  return Network(where, found, config, leaves, grouped)


def _dtype(
  entries: Sequence[keymap.Entry],
  tensors: Mapping[str, Tensor],
  policy: str,
  where: str,
) -> np.dtype:
  name = POLICIES[policy]
  if name is not None:
    return next(d for d, known in NAMES.items() if known == name)
  there = {tensors[entry.name].dtype for entry in entries}
  if len(there) > 1:
    raise UserError(
      f'{where} stores {entries[0].name} and the same of other layers in '
      f'different types ({", ".join(sorted(map(str, there)))}); choose one '
      'with --dtype.'
    )
  dtype = there.pop()
  assert dtype is not None  # `fit.check` has refused that.
  return dtype


def pieces(network: Network, path: str) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, rows) of one of our arrays, in the file's dtype.

  A piece is one layer of a stack, a range of rows of a large array that needs
  no change of layout, or the whole.
  """
  shape, dtype = network.leaves[path]
  for entry in network.entries[path]:
    tensor = network.found.tensors[entry.name]
    if entry.layer is not None:
      yield entry.layer, entry.pattern.to_flax(tensor.read())[None]
    elif entry.pattern.forward is None:
      row_bytes = math.prod(shape[1:]) * dtype.itemsize
      rows = max(1, _PIECE_BYTES // max(1, row_bytes))
      for row in range(0, shape[0], rows):
        yield row, tensor.read(slice(row, min(row + rows, shape[0])))
    else:
      yield 0, entry.pattern.to_flax(tensor.read())


def plain_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
  """Our paths and their shapes."""
  flat = keymap.flat_shapes(shapes)
  return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def split_axis(path: str, shape: tuple[int, ...], parts: int) -> int | None:
  """The axis along which the sharding table cuts an array; None for none.

  Raises:
    UserError: that axis does not divide into so many parts.
  """
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
  """One file, or one set of parts, that an import writes.

  Attributes:
    path: of the file; with several parts the index lies beside it.
    networks: prefix of the names (empty or ending with a dot) -> network.
    parts: number of files; 1 for a single one.
  """

  path: Path
  networks: Mapping[str, Network]
  parts: int = 1

  def about(self) -> dict[str, Any]:
    """What the header says; the same for the same input and settings."""
    listed = {key: n.about() for key, n in sorted(self.networks.items())}
    types = sorted(
      {str(d) for n in self.networks.values() for _, d in n.leaves.values()}
    )
    return {'converted': listed, 'dtypes': types, 'parts': self.parts}

  def axes(self) -> dict[str, int | None]:
    """Name of every array -> axis along which it is cut."""
    return {
      prefix + path.replace('/', '.'): split_axis(path, shape, self.parts)
      for prefix, network in self.networks.items()
      for path, (shape, _) in network.leaves.items()
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
    """Whether the output is there already, from the same input.

    Raises:
      UserError: it is there from another.
    """
    index = weights.index_path(self.path)
    there = [p for p in (self.path, index) if p.exists()]
    if not there:
      return False
    try:
      with weights.Files(self.path) as files:
        same = files.metadata == self.about()
    except UserError:
      same = False
    if not same or there != [self.path if self.parts == 1 else index]:
      raise UserError(
        f'{there[0]} holds other weights; remove it or choose another --out.'
      )
    return True


def write(output: Output, progress: Progress) -> None:
  """Writes an output; a call that is killed leaves nothing under its name."""
  axes = output.axes()
  whole = {
    prefix + path.replace('/', '.'): spec
    for prefix, network in output.networks.items()
    for path, spec in network.leaves.items()
  }
  metadata = {'unitemp': json.dumps(output.about(), sort_keys=True)}
  writers: list[StreamWriter] = []
  try:
    for number, file in enumerate(output.files()):
      specs = {
        name: (_part_shape(shape, axes[name], output.parts), dtype)
        for name, (shape, dtype) in whole.items()
        if number == 0 or axes[name] is not None
      }
      writers.append(StreamWriter(file, specs, metadata))
    done, total = 0, sum(n.bytes for n in output.networks.values())
    for prefix, network in output.networks.items():
      for path, (shape, dtype) in network.leaves.items():
        name = prefix + path.replace('/', '.')
        for row, values in pieces(network, path):
          _spread(writers, name, axes[name], shape, row, values)
          done += values.size * dtype.itemsize
          progress(done, total)
  except BaseException:
    for writer in writers:
      writer.abandon()
    raise
  for writer in writers:
    writer.finish()
  if output.parts > 1:
    _write_index(output, axes)


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


def _write_index(output: Output, axes: Mapping[str, int | None]) -> None:
  path = weights.index_path(output.path)
  fields = {'files': [file.name for file in output.files()], 'axes': axes}
  files.write(path, json.dumps(fields, indent=1, sort_keys=True) + '\n')
