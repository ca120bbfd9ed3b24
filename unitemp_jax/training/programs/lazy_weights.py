"""Lazy weights: networks in files that a program reads when it needs them.

A program names what it reads and in which shapes. So it can be described,
compiled and refused without reading any of it, and every process later reads
only what its own devices hold.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from unitemp_jax.models import weights
from unitemp_jax.parallel.mesh import Rules, shardings_for


@dataclasses.dataclass(frozen=True)
class LazyWeights:
  """One network in a file of weights.

  Attributes:
    path: of the file, see `weights.load`.
    shapes: tree of ShapeDtypeStructs, all that the file holds; in the dtypes
      that they are kept in.
    part: name of the network in the file; None if it is all of it.
  """

  path: str
  shapes: Any
  part: str | None = None

  @property
  def tree(self) -> Any:
    """The shapes of the network."""
    return self.shapes if self.part is None else self.shapes[self.part]

  def check(self) -> None:
    """Reads the names and shapes in the file.

    Raises:
      UserError: it is missing or of another size.
    """
    weights.check(self.path, self.shapes)

  def load(self, placed: Any = None) -> Any:
    """Reads the network.

    Args:
      placed: `tree` with shardings; without them it is read whole.

    Raises:
      UserError: the file is missing or of another size.
    """
    placed = self.tree if placed is None else placed
    if self.part is None:
      return weights.load(self.path, placed)
    whole = {**self.shapes, self.part: placed}
    return weights.load(self.path, whole, self.part)


def _is_lazy(leaf: Any) -> bool:
  return isinstance(leaf, LazyWeights)


def check(tree: Any) -> None:
  """Refuses what is missing or does not fit; see `LazyWeights.check`."""
  for leaf in jax.tree.leaves(tree, is_leaf=_is_lazy):
    if _is_lazy(leaf):
      leaf.check()


def shapes_of(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
  """Returns the shapes of arrays and `LazyWeights`, with shardings."""
  shapes = jax.tree.map(
    lambda leaf: leaf.tree if _is_lazy(leaf) else leaf,
    tree,
    is_leaf=_is_lazy,
  )
  if mesh is None:
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes
    )
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings_for(shapes, mesh, rules),
  )


def load(tree: Any, mesh: Mesh | None, rules: Rules) -> Any:
  """Returns the tree on the devices, every `LazyWeights` read.

  Args:
    tree: of arrays and `LazyWeights`.
    mesh: devices; None is the default one.
    rules: how it is split over them.

  Raises:
    UserError: see `LazyWeights.load`.
  """
  shapes = shapes_of(tree, mesh, rules)

  def one(leaf, placed):
    if _is_lazy(leaf):
      return leaf.load(placed)
    return jax.device_put(leaf, placed.sharding)

  return jax.tree.map(one, tree, shapes, is_leaf=_is_lazy)
