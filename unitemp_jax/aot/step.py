"""A program that `unitemp aot` compiles, and what it is given."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax.aot.schedule import Cache
from unitemp_jax.models.flops import Flops


@dataclasses.dataclass(frozen=True)
class Step:
  """A program that was not compiled yet."""

  name: str  # of the step
  lower: Callable[[], jax.stages.Lowered]  # traces it; may take seconds
  # name -> tree of ShapeDtypeStructs with shardings; what it is given, by the
  # role that it has
  arguments: Mapping[str, Any]
  resident: Mapping[str, Any]  # likewise; what lies on the devices besides
  flops: Flops  # of one run, over all devices
  loops: int  # turns of loops whose number is decided at run time, at most
  mesh: Mapping[str, int]  # sizes of the axes
  rows: int  # of the batch, over all devices
  # how often it is taken in a round of training steps; 0 if it trains nothing
  share: int = 0
  cache: Cache | None = None  # of keys and values, if it has one
  # share of the plans' rows by what they do, see `hlo.executions`
  kinds: tuple[float, ...] = ()
  # of arguments that are not to be random if it is run, by name
  values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def argument_bytes(self) -> int:
    """Returns the bytes of all arguments on each device."""
    return sum(map(device_bytes, self.arguments.values()))


def device_bytes(tree: Any) -> int:
  """Bytes of a tree of ShapeDtypeStructs on each device."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape = leaf.shape
    if leaf.sharding is not None:
      shape = leaf.sharding.shard_shape(shape)
    # Keys of random numbers are two words.
    width = getattr(leaf.dtype, 'itemsize', 8)
    total += math.prod(shape) * width
  return total


def everywhere(tree: Any, mesh: Mesh) -> Any:
  """Shapes of a tree that each device holds whole."""
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    tree,
  )
