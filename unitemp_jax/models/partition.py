"""How activations lie on the ambient mesh; without one they stay as they are.

Training sets the mesh with `jax.set_mesh` (`training.mesh`). Rows of a batch
are split over `data` and `fsdp`, the tokens of a row over `context`. Attention
needs every key of a row, so there the heads are split over `context` instead:
going from one to the other is an all-to-all, and a cache that is kept by heads
never travels.
"""

import math

import jax
from jax.sharding import PartitionSpec

from unitemp_jax.models.attention.ambient import BATCH_AXES, TOKEN_AXIS

AXES = (*BATCH_AXES, TOKEN_AXIS)


def _constrain(x: jax.Array, axes: dict[int, tuple[str, ...]]) -> jax.Array:
  """Splits axes of `x` where they divide; leaves the rest to the compiler."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or not set(AXES) <= set(mesh.axis_names):
    return x
  spec: list = [None] * x.ndim
  for axis, names in axes.items():
    parts = math.prod(mesh.shape[name] for name in names)
    even = x.shape[axis] % parts == 0
    spec[axis] = names if even else PartitionSpec.UNCONSTRAINED
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def split_tokens(x: jax.Array) -> jax.Array:
  """`[B, T, ...]` with rows and tokens split."""
  return _constrain(x, {0: BATCH_AXES, 1: (TOKEN_AXIS,)})


def split_cache(x: jax.Array) -> jax.Array:
  """`LBSNK` with rows and heads split."""
  return _constrain(x, {1: BATCH_AXES, 3: (TOKEN_AXIS,)})
