"""From our files to PyTorch checkpoints, one tensor at a time."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from unitemp_jax import files
from unitemp_jax.convert import fingerprint, keymap, torch_zip_write, wan
from unitemp_jax.convert.incoming import POLICIES, Progress
from unitemp_jax.convert.stream_writer import StreamWriter
from unitemp_jax.convert.tensors import DTYPES
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights

# A name that only this kind of network has, in our own files.
_OURS = {
  'dit': 'blocks.self_attn.q.kernel',
  'vae': 'encoder.conv_in.kernel',
  'umt5': 'token_embedding.embedding',
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One PyTorch tensor to write: `read` makes it from our file."""

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  @property
  def nbytes(self) -> int:
    """Its size."""
    return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Network:
  """One of our networks in a file.

  Attributes:
    path: of the file.
    kind: 'dit', 'vae' or 'umt5'.
    prefix: of its names in the file.
    shapes: tree of its shapes and types.
  """

  path: Path
  kind: str
  prefix: str
  shapes: Any


@dataclasses.dataclass(frozen=True)
class _Stored:
  """An array of one of our files, as fingerprints want it."""

  files: weights.Files
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Returns the values, or those of a range of the first axis."""
    if rows is None:
      return self.files.read(self.name)
    rest = (slice(None),) * (len(self.shape) - 1)
    return self.files.read(self.name, (rows, *rest))


def fingerprint_of(files: weights.Files) -> str:
  """See `fingerprint.of_tensors`."""
  return fingerprint.of_tensors(
    {
      name: _Stored(files, name, shape, files.dtype(name))
      for name, shape in files.shapes.items()
    }
  )


def open_networks(path: Path) -> list[Network]:
  """Finds the networks in one of our weight files.

  Raises:
    UserError: the file cannot be read, or holds none.
  """
  with weights.Files(path) as files:
    names = {
      name: jax.ShapeDtypeStruct(shape, files.dtype(name))
      for name, shape in files.shapes.items()
    }
  found = []
  for kind, signature in _OURS.items():
    for name in names:
      if name == signature or name.endswith('.' + signature):
        prefix = name[: len(name) - len(signature)]
        flat = {
          n[len(prefix) :]: leaf
          for n, leaf in names.items()
          if n.startswith(prefix)
        }
        tree = traverse_util.unflatten_dict(flat, sep='.')
        found.append(Network(path, kind, prefix, tree))
  if not found:
    raise UserError(
      f'{path} holds none of our networks (its names begin with '
      f'{", ".join(sorted(names)[:3])}); give a file that "unitemp train" or '
      '"unitemp convert" wrote.'
    )
  return found


def state_dict(
  network: Network, files: weights.Files, layout: str, dtype: str = 'keep'
) -> dict[str, Tensor]:
  """Returns the PyTorch tensors of a network, to be read one at a time.

  Args:
    network: from `open_networks`.
    files: its file, open for as long as tensors are read.
    layout: 'wan' or 'diffusers'.
    dtype: a name of `incoming.POLICIES`.

  Raises:
    UserError: the file does not hold all of such a network.
  """
  flat = keymap.flat_shapes(network.shapes)
  policy = POLICIES[dtype]
  try:
    entries = keymap.entries(wan.TABLES[network.kind], layout, network.shapes)
  except ValueError as error:
    raise UserError(
      f'{network.path} is not quite a {network.kind} ({error}); give a file '
      'that "unitemp train" or "unitemp convert" wrote.'
    ) from error

  def read(entry: keymap.Entry, dtype: np.dtype) -> np.ndarray:
    name = network.prefix + entry.path.replace('/', '.')
    if entry.layer is None:
      value = files.read(name)
    else:
      rest = (slice(None),) * (len(flat[entry.path].shape) - 1)
      at = slice(entry.layer, entry.layer + 1)
      value = files.read(name, (at, *rest))[0]
    return np.ascontiguousarray(entry.pattern.to_torch(value)).astype(
      dtype, copy=False
    )

  out = {}
  for entry in entries:
    kind = DTYPES[policy] if policy else np.dtype(flat[entry.path].dtype)
    out[entry.name] = Tensor(
      entry.shape, kind, functools.partial(read, entry, kind)
    )
  return out


def write_safetensors(
  folder: Path,
  stem: str,
  tensors: Mapping[str, Tensor],
  about: Mapping[str, Any],
  max_bytes: float,
  progress: Progress,
) -> list[Path]:
  """Writes `STEM.safetensors`, or parts of it and an index as PyTorch has.

  Args:
    folder: where.
    stem: name without suffix.
    tensors: name -> tensor.
    about: kept in the headers.
    max_bytes: of tensors in one file.
    progress: see `incoming.Progress`.

  Returns:
    The files, the index last.

  Raises:
    UserError: the files are there and hold other weights.
  """
  groups = _groups(tensors, max_bytes)
  metadata = {
    'format': 'pt',
    'unitemp': json.dumps(about, sort_keys=True),
  }
  total = sum(tensor.nbytes for tensor in tensors.values())
  done, paths, where = 0, [], {}
  for number, group in enumerate(groups):
    name = f'{stem}.safetensors'
    if len(groups) > 1:
      name = f'{stem}-{number + 1:05}-of-{len(groups):05}.safetensors'
    paths.append(folder / name)
    where |= dict.fromkeys(group, name)
    if not _is_same(folder / name, metadata['unitemp']):
      specs = {n: (tensors[n].shape, tensors[n].dtype) for n in group}
      writer = StreamWriter(folder / name, specs, metadata)
      try:
        for n in group:
          writer.write(n, 0, tensors[n].read())
          done += tensors[n].nbytes
          progress(done, total)
      except BaseException:
        writer.abandon()
        raise
      writer.finish()
    else:
      done += sum(tensors[n].nbytes for n in group)
  if len(groups) > 1:
    paths.append(folder / f'{stem}.safetensors.index.json')
    fields = {'metadata': {'total_size': total}, 'weight_map': where}
    files.write_json(paths[-1], fields, indent=2)
  return paths


def _groups(tensors: Mapping[str, Tensor], max_bytes: float) -> list[list[str]]:
  """Names in order, so many to a file that it stays below a size."""
  groups: list[list[str]] = [[]]
  size = 0
  for name, tensor in tensors.items():
    if groups[-1] and size + tensor.nbytes > max_bytes:
      groups.append([])
      size = 0
    groups[-1].append(name)
    size += tensor.nbytes
  return groups


def _is_same(path: Path, about: str) -> bool:
  """Whether a file is there from the same input; UserError if from another."""
  if not path.exists():
    return False
  with weights.Files(path) as files:
    if json.dumps(files.metadata, sort_keys=True) == about:
      return True
  raise UserError(
    f'{path} holds other weights; remove it or choose another --out.'
  )


def write_pt(
  path: Path,
  tensors: Mapping[str, Any],
  about: Mapping[str, Any],
  progress: Progress,
) -> Path:
  """Writes a `.pt` of nested dicts of tensors.

  Raises:
    UserError: the file is there and holds other weights.
  """
  note = json.dumps(about, sort_keys=True)
  if path.exists():
    if torch_zip_write.read_note(path) == note:
      return path
    raise UserError(
      f'{path} holds other weights; remove it or choose another --out.'
    )
  lazy: dict[int, torch_zip_write.Lazy] = {}

  def convert(value: Any) -> Any:
    if not isinstance(value, Tensor):
      return {name: convert(inner) for name, inner in value.items()}
    made = torch_zip_write.Lazy(value.shape, value.dtype, value.read)
    return lazy.setdefault(id(value), made)

  values = convert(tensors)
  total = sum(math.prod(t.shape) * t.dtype.itemsize for t in lazy.values())
  written = [0]

  def count(nbytes: int) -> None:
    written[0] += nbytes
    progress(written[0], total)

  torch_zip_write.write(path, values, note, count)
  return path
