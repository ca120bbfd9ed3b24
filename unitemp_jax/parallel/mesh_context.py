"""The mesh around a computation: jax's own, from `jax.set_mesh`.

Nothing is handed down for it. Models read from it what they run on, and which
axes there are; without a mesh it is jax's default backend, unsplit.

Rows of a batch are split over `data` and `fsdp`, the tokens of every frame over
`context`: what belongs to a frame, such as its noise level, meets its tokens on
every device. Attention needs every key of a row, so there the heads are split
over `context` instead: going from one to the other is an all-to-all, and a
cache that is kept by heads never travels. `split_heads` and `join_heads` state
both sides of it, because a compiler that is told only one of them adds up whole
activations instead.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec

BATCH_AXES = ('data', 'fsdp')  # rows of a batch are split over these
TOKEN_AXIS = 'context'  # and the tokens of a video over this, here its heads
AXES = (*BATCH_AXES, TOKEN_AXIS)
_HEADS_FIRST = Layout(major_to_minor=(0, 1, 3, 2, 4))  # of `LBSNK`


def platform() -> str:
  """Returns what is computed on: 'cpu', 'tpu', 'gpu' ('cuda' is 'gpu' here)."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  name = jax.default_backend() if device is None else device.platform
  return 'gpu' if name == 'cuda' else name


def device_kind() -> str:
  """Returns the name of the hardware, for example 'TPU v5 lite'."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.devices()[0].device_kind if device is None else device.device_kind


def over_mesh(
  local: Callable[..., jax.Array],
  q_BQNK: jax.Array,
  k_BSNK: jax.Array,
  v_BSNK: jax.Array,
  kv_len: jax.Array | None,
  mask_BQS: jax.Array | None,
) -> jax.Array:
  """Runs an attention on every device: its rows of the batch, and its heads.

  Kernels cannot be split by the compiler, so this is a `shard_map`. The batch
  is split over `data` and `fsdp` as far as it divides, heads over `context`: so
  a cache that is kept by heads never travels, and tokens that are split turn
  into heads by an all-to-all. Where heads do not divide, queries are split
  instead (padded, if they do not divide either), and every device has all keys.

  Args:
    local: attention of one device, with the arguments below.
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar or None.
    mask_BQS: bool or None; see `dispatch.attention`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  # Inside a shard_map the mesh is manual, and everything is local already.
  if mesh.size <= 1 or mesh.manual_axes:
    return local(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  row = _rows(mesh, q_BQNK.shape[0])
  parts = mesh.shape.get(TOKEN_AXIS, 1)
  axis = TOKEN_AXIS if parts > 1 else None
  queries, heads = q_BQNK.shape[1:3]
  if heads % parts:
    q_BQNK, mask_BQS = _pad_queries(q_BQNK, mask_BQS, parts)
    split, keys, seen = PartitionSpec(row, axis), PartitionSpec(row), axis
  else:
    split, keys, seen = (
      PartitionSpec(row, None, axis),
      PartitionSpec(row, None, axis),
      None,
    )
  # What is not given is not an argument of the program either.
  given, specs = [q_BQNK, k_BSNK, v_BSNK], [split, keys, keys]
  if kv_len is not None:
    given.append(jnp.asarray(kv_len, jnp.int32))
    specs.append(PartitionSpec())
  if mask_BQS is not None:
    given.append(mask_BQS)
    specs.append(PartitionSpec(row if mask_BQS.shape[0] > 1 else None, seen))

  def run(q, k, v, *rest):
    left = list(rest)
    length = left.pop(0) if kv_len is not None else None
    mask = left.pop(0) if mask_BQS is not None else None
    return local(q, k, v, length, mask)

  y = jax.shard_map(
    run, in_specs=tuple(specs), out_specs=split, check_vma=False
  )(*given)
  return y[:, :queries]


def _rows(mesh: jax.sharding.AbstractMesh, batch: int) -> tuple[str, ...]:
  """The axes of the batch that it divides by."""
  axes, parts = [], 1
  for axis in BATCH_AXES:
    size = mesh.shape.get(axis, 1)
    if size > 1 and batch % (parts * size) == 0:
      axes.append(axis)
      parts *= size
  return tuple(axes)


def _pad_queries(
  q_BQNK: jax.Array, mask_BQS: jax.Array | None, parts: int
) -> tuple[jax.Array, jax.Array | None]:
  """Adds queries, under a mask whole rows of it, until they divide."""
  queries = q_BQNK.shape[1]
  rows = queries if mask_BQS is None else mask_BQS.shape[1]
  more = -rows % parts
  if not more:
    return q_BQNK, mask_BQS
  pad = ((0, 0), (0, more * (queries // rows)), (0, 0), (0, 0))
  if mask_BQS is not None:
    mask_BQS = jnp.pad(
      mask_BQS, ((0, 0), (0, more), (0, 0)), constant_values=True
    )
  return jnp.pad(q_BQNK, pad), mask_BQS


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
