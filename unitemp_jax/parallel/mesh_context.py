"""The mesh around a computation: jax's own, from `jax.set_mesh`.

Nothing is handed down for it. Models read from it what they run on, and which
axes there are; without a mesh it is jax's default backend, unsplit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

BATCH_AXES = ('data', 'fsdp')  # rows of a batch are split over these
TOKEN_AXIS = 'context'  # and the tokens of a video over this, here its heads


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
    mask_BQS: bool or None; see `masks`.
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
    split, keys, seen = P(row, axis), P(row), axis
  else:
    split, keys, seen = P(row, None, axis), P(row, None, axis), None
  # What is not given is not an argument of the program either.
  given, specs = [q_BQNK, k_BSNK, v_BSNK], [split, keys, keys]
  if kv_len is not None:
    given.append(jnp.asarray(kv_len, jnp.int32))
    specs.append(P())
  if mask_BQS is not None:
    given.append(mask_BQS)
    specs.append(P(row if mask_BQS.shape[0] > 1 else None, seen))

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
