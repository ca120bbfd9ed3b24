"""A PyTorch checkpoint as a parameter tree, in memory or over a mesh."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from unitemp_jax.convert import fit, keymap, sources
from unitemp_jax.convert.tensors import Tensor


def load_torch(
  source: str | Path | Mapping[str, Any],
  kind: str,
  shapes: Any,
  *,
  layout: str | None = None,
  part: str | None = None,
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

  Raises:
    UserError: the checkpoint cannot be read or does not fit; all that is wrong
      is listed.
  """
  where = 'the state dict' if isinstance(source, Mapping) else str(source)
  tensors = sources.open_checkpoint(source)
  found = fit.find(tensors, where, kind, layout, part)
  by_path: dict[str, list[keymap.Entry]] = {}
  for entry in fit.check(found, shapes, where):
    by_path.setdefault(entry.path, []).append(entry)
  flat = {
    path: _make(leaf, by_path[path], found.tensors)
    for path, leaf in keymap.flat_shapes(shapes).items()
  }
  return traverse_util.unflatten_dict(flat, sep='/')


def _make(
  leaf: Any, entries: list[keymap.Entry], tensors: Mapping[str, Tensor]
) -> jax.Array:
  dtype = np.dtype(leaf.dtype)

  def layer(entry: keymap.Entry) -> np.ndarray:
    value = entry.pattern.to_flax(tensors[entry.name].read())
    return value.astype(dtype)

  if getattr(leaf, 'sharding', None) is None or isinstance(leaf, jax.Array):
    if entries[0].layer is None:
      return jnp.asarray(layer(entries[0]))
    return jnp.asarray(np.stack([layer(entry) for entry in entries]))

  def piece(index: tuple[slice, ...]) -> np.ndarray:
    if entries[0].layer is None:
      return np.ascontiguousarray(layer(entries[0])[index])
    return np.stack([layer(e)[index[1:]] for e in entries[index[0]]])

  return jax.make_array_from_callback(tuple(leaf.shape), leaf.sharding, piece)
