"""The mesh around a computation: jax's own, from `jax.set_mesh`.

Nothing is handed down for it. Models read from it what they run on, and which
axes there are; without a mesh it is jax's default backend, unsplit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

BATCH_AXES = ('data', 'fsdp')  # rows of a batch are split over these
TOKEN_AXIS = 'context'  # and the tokens of a video over this


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
  """Runs an attention on every device: its rows, its queries, all keys.

  Kernels cannot be split by the compiler, so this is a `shard_map`: the batch
  over `data` and `fsdp` as far as it divides, queries over `context`, keys and
  values whole. Queries (with a mask: its rows) that do not divide are padded.

  Args:
    local: attention of one device, with the arguments below.
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar or None.
    mask_BQS: bool or None; a row stands for so many queries as there are for
      each, see `masks`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  # Inside a shard_map the mesh is manual, and everything is local already.
  if mesh.size <= 1 or mesh.manual_axes:
    return local(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  batch, queries = q_BQNK.shape[:2]
  rows, parts = [], 1
  for axis in BATCH_AXES:
    size = mesh.shape.get(axis, 1)
    if size > 1 and batch % (parts * size) == 0:
      rows.append(axis)
      parts *= size
  row = tuple(rows)
  token = TOKEN_AXIS if mesh.shape.get(TOKEN_AXIS, 1) > 1 else None

  units = queries if mask_BQS is None else mask_BQS.shape[1]
  missing = -units % mesh.shape.get(TOKEN_AXIS, 1)
  if missing:
    q_BQNK = _pad_queries(q_BQNK, missing * (queries // units))
  # Shapes of optional arguments are part of the program, so are their specs.
  given = [q_BQNK, k_BSNK, v_BSNK]
  specs = [P(row, token), P(row), P(row)]
  if kv_len is not None:
    given.append(jnp.asarray(kv_len, jnp.int32))
    specs.append(P())
  if mask_BQS is not None:
    if missing:
      mask_BQS = jnp.pad(
        mask_BQS, ((0, 0), (0, missing), (0, 0)), constant_values=True
      )
    given.append(mask_BQS)
    specs.append(P(row if mask_BQS.shape[0] > 1 else None, token))

  def run(q, k, v, *rest):
    left = list(rest)
    length = left.pop(0) if kv_len is not None else None
    mask = left.pop(0) if mask_BQS is not None else None
    return local(q, k, v, length, mask)

  y = jax.shard_map(
    run, in_specs=tuple(specs), out_specs=P(row, token), check_vma=False
  )(*given)
  return y[:, :queries]


def _pad_queries(q_BQNK: jax.Array, number: int) -> jax.Array:
  return jnp.pad(q_BQNK, ((0, 0), (0, number), (0, 0), (0, 0)))
