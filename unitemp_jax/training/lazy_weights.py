"""Lazy weights: trees of shapes whose files are read when they are needed.

A program names what it reads and in which shapes. So it can be described,
compiled and refused without reading any of it, and every process later reads
only what its own devices hold.
"""

import abc
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from unitemp_jax.models import weights
from unitemp_jax.parallel.mesh import Rules, placed


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

  path: str  # of the file, see `weights.load`
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
    weights.check(self.path, self.shapes)

  def load(self, placed: Any = None) -> Any:
    """Reads the network; see `Lazy.load`."""
    placed = self.tree if placed is None else placed
    if self.part is None:
      return weights.load(self.path, placed)
    whole = {**self.shapes, self.part: placed}
    return weights.load(self.path, whole, self.part)


def _is_lazy(leaf: Any) -> bool:
  return isinstance(leaf, Lazy)


def check(tree: Any) -> None:
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


def load(tree: Any, mesh: Mesh | None = None, rules: Rules = ()) -> Any:
  """Returns the tree with every `Lazy` read and everything on the devices."""

  def one(leaf, shapes):
    if _is_lazy(leaf):
      return leaf.load(shapes)
    return jax.device_put(leaf, shapes.sharding)

  return jax.tree.map(one, tree, shapes_of(tree, mesh, rules), is_leaf=_is_lazy)
