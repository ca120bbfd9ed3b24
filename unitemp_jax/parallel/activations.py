"""How activations lie on the mesh of the context; without one, as they are.

Training sets the mesh with `jax.set_mesh` (`training.mesh`). Rows of a batch
are split over `data` and `fsdp`, the tokens of every frame over `context`: what
belongs to a frame, such as its noise level, meets its tokens on every device.
Attention needs every key of a row, so there the heads are split over `context`
instead: going from one to the other is an all-to-all, and a cache that is kept
by heads never travels. Both sides of it are said here, because a compiler that
is told only one of them adds up whole activations instead.
"""

import math

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec

from unitemp_jax.parallel.mesh_context import (
  BATCH_AXES,
  TOKEN_AXIS,
  platform,
)

AXES = (*BATCH_AXES, TOKEN_AXIS)
_HEADS_FIRST = Layout(major_to_minor=(0, 1, 3, 2, 4))  # of `LBSNK`


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
  """`[B, F, S, ...]` with rows and the tokens S of a frame split."""
  return _constrain(x, {0: BATCH_AXES, 2: (TOKEN_AXIS,)})


def split_rows(x: jax.Array) -> jax.Array:
  """`[B, ...]` with rows split, all that is split of a VAE."""
  return _constrain(x, {0: BATCH_AXES})


def split_heads(x: jax.Array) -> jax.Array:
  """`[B, F, S, N, K]`, split by tokens before, with rows and heads split."""
  return _constrain(split_tokens(x), {0: BATCH_AXES, 3: (TOKEN_AXIS,)})


def join_heads(x: jax.Array) -> jax.Array:
  """`[B, F, S, N, K]` as attention leaves it, with rows and tokens split."""
  return split_tokens(_constrain(x, {0: BATCH_AXES, 3: (TOKEN_AXIS,)}))


def split_cache(x: jax.Array) -> jax.Array:
  """`LBSNK` with rows and heads split; on TPU heads lie before slots.

  So attention reads them, and no tile is padded. It is said wherever a cache is
  made or written to, so that no loop has another opinion and copies all of it.
  """
  x = _constrain(x, {1: BATCH_AXES, 3: (TOKEN_AXIS,)})
  if platform() != 'tpu':
    return x
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.size <= 1:
    return with_layout_constraint(x, _HEADS_FIRST)
  rows, heads = (
    math.prod(mesh.shape.get(name, 1) for name in names)
    for names in (BATCH_AXES, (TOKEN_AXIS,))
  )
  if mesh.manual_axes or x.shape[1] % rows or x.shape[3] % heads:
    return x
  spec = PartitionSpec(None, BATCH_AXES, None, TOKEN_AXIS)
  return jax.shard_map(
    lambda part: with_layout_constraint(part, _HEADS_FIRST),
    in_specs=spec,
    out_specs=spec,
    check_vma=False,
  )(x)
