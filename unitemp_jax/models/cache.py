"""The KV cache: an explicit pytree, argument in, value out.

One slot holds the keys and values of one latent frame, for every layer. Keys
are stored after rotation, so their order in the cache does not matter and the
visible context is a prefix (`unitemp_jax/README.md`, The cache). A pass
*stages* its own keys and values right behind the prefix it sees; `commit` then
moves the staged ones to the slots the plan names. In the scan over layers the
cache is a carry that is updated in place.

Sinks are the first slots. Their positions change from row to row, so their keys
are kept unrotated beside the cache and `place` rotates them from there each
time: nothing is rotated twice, and rounding does not add up.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from unitemp_jax.models import rope
from unitemp_jax.parallel.mesh import split_cache
from unitemp_jax.shapes import Angles, Index, Keys, Slots, Tokens


@flax.struct.dataclass
class KVCache:
  """Keys and values, `[layers, batch, slots * tokens, heads, head_dim]`."""

  k_LBSNK: jax.Array  # rotated keys
  v_LBSNK: jax.Array  # values
  # unrotated keys of the sinks, then those that the latest pass staged, one
  # block; None without sinks
  raw_LBSNK: jax.Array | None = None
  # tokens of the sinks
  sink_tokens: int = flax.struct.field(pytree_node=False, default=0)


def init_cache(
  layers: int,
  batch: int,
  slots: int,
  tokens_per_frame: int,
  heads: int,
  head_dim: int,
  dtype=jnp.float32,
  sinks: int = 0,
  block: int = 0,
) -> KVCache:
  """An empty cache for `slots` latent frames, of which `sinks` are sinks.

  With sinks it needs to know B, the latent frames that a write pass stages.
  """

  def zeros(frames):
    shape = (layers, batch, frames * tokens_per_frame, heads, head_dim)
    return split_cache(jnp.zeros(shape, dtype))

  raw = zeros(sinks + block) if sinks else None
  return KVCache(zeros(slots), zeros(slots), raw, sinks * tokens_per_frame)


def stage(
  cache: KVCache,
  layer: Index,
  k_BTNK: Tokens,
  v_BTNK: Tokens,
  token: Index,
  raw_BTNK: Tokens,
) -> tuple[KVCache, Keys, Keys]:
  """Writes one layer's own keys and values at a token offset.

  `raw_BTNK` are the same keys before rotation, kept if there are sinks.

  Returns the cache and that layer's keys and values `BSNK`.
  """
  zero = jnp.zeros((), jnp.int32)

  def put(whole, new, token):
    new = new[None].astype(whole.dtype)
    start = (layer, zero, token, zero, zero)
    return split_cache(lax.dynamic_update_slice(whole, new, start))

  def write(whole, new):
    whole = put(whole, new, token)
    return whole, lax.dynamic_index_in_dim(whole, layer, 0, keepdims=False)

  k_all, k_layer = write(cache.k_LBSNK, k_BTNK)
  v_all, v_layer = write(cache.v_LBSNK, v_BTNK)
  cache = dataclasses.replace(cache, k_LBSNK=k_all, v_LBSNK=v_all)
  if cache.raw_LBSNK is not None:
    # There is room for a block. That is all that a write pass stages; anchors
    # of other passes fall off the end.
    room = cache.raw_LBSNK.shape[2] - cache.sink_tokens
    sinks = jnp.asarray(cache.sink_tokens, jnp.int32)
    raw = put(cache.raw_LBSNK, raw_BTNK[:, :room], sinks)
    cache = dataclasses.replace(cache, raw_LBSNK=raw)
  return cache, k_layer, v_layer


def beside(
  cache: KVCache, layer: Index, k_BTNK: Tokens, v_BTNK: Tokens, token: Index
) -> tuple[Keys, Keys]:
  """One layer's keys and values `BSNK` as `stage` returns them, nothing kept.

  A pass that is differentiated and not written so leaves the cache a constant
  of the scan over layers, of which a backward pass needs one copy.
  """
  zero = jnp.zeros((), jnp.int32)

  def put(whole, new):
    there = lax.dynamic_index_in_dim(whole, layer, 0, keepdims=False)
    start = (zero, token, zero, zero)
    return lax.dynamic_update_slice(there, new.astype(whole.dtype), start)

  return put(cache.k_LBSNK, k_BTNK), put(cache.v_LBSNK, v_BTNK)


def commit(
  cache: KVCache,
  start: Index,
  write: Slots,
  tokens_per_frame: int,
  exit_cache: KVCache | None = None,
  exit_start: Index | None = None,
) -> KVCache:
  """Moves staged slots start, start + 1, ... to the slots `write` `[B]`.

  An entry of -1 is not written. Staging behind the prefix and appending there,
  as every plan does that evicts nothing, leaves the values as they are.

  Args:
    cache: as a pass returned it.
    start: first staged slot.
    write: slots that are written.
    tokens_per_frame: tokens of a slot.
    exit_cache: the values stay those of `cache`, and gradient flows into this
      one instead (straight-through): into its slots, and for those that are
      written into what it staged at `exit_start`; none there without it.
      Sinks pass no gradient.
    exit_start: see above.
  """
  num = write.shape[0]

  def staged_at(whole, start):
    size, first = num * tokens_per_frame, start * tokens_per_frame
    return lax.dynamic_slice_in_dim(whole, first, size, axis=2)

  def put(whole, staged, limit):
    # Slot by slot where the cache lies: a scatter would copy all of it.
    for i, slot in enumerate(write):
      at = jnp.maximum(slot, 0) * tokens_per_frame
      there = lax.dynamic_slice_in_dim(whole, at, tokens_per_frame, axis=2)
      new = staged[:, :, i * tokens_per_frame : (i + 1) * tokens_per_frame]
      new = jnp.where((slot >= 0) & (slot < limit), new, there)
      whole = lax.dynamic_update_slice_in_dim(whole, new, at, axis=2)
      whole = split_cache(whole)
    return whole

  def move(whole, start, limit):
    # First all that is staged: read slot by slot while others are written, it
    # would keep the whole cache as it was before, in a copy.
    whole, staged = lax.optimization_barrier((whole, staged_at(whole, start)))
    return put(whole, staged, limit)

  def through(written, whole):
    l, b, _, n, k = whole.shape
    staged = jnp.zeros((l, b, num * tokens_per_frame, n, k), whole.dtype)
    if exit_start is not None:
      staged = staged_at(whole, exit_start)
    carrier = put(whole, staged, every)
    return lax.stop_gradient(written) + (carrier - lax.stop_gradient(carrier))

  every = cache.k_LBSNK.shape[2] // tokens_per_frame
  cache = dataclasses.replace(
    cache,
    k_LBSNK=move(cache.k_LBSNK, start, every),
    v_LBSNK=move(cache.v_LBSNK, start, every),
  )
  if exit_cache is not None:
    cache = dataclasses.replace(
      cache,
      k_LBSNK=through(cache.k_LBSNK, exit_cache.k_LBSNK),
      v_LBSNK=through(cache.v_LBSNK, exit_cache.v_LBSNK),
    )
  if cache.raw_LBSNK is None:
    return cache
  sinks = cache.sink_tokens // tokens_per_frame
  raw = move(cache.raw_LBSNK, sinks, sinks)
  return dataclasses.replace(cache, raw_LBSNK=raw)


def place(cache: KVCache, angle_TK: Angles) -> KVCache:
  """Rotates the sinks' keys, from unrotated ones, to their positions in a row.

  Args:
    cache: with sinks.
    angle_TK: rotary angles of all tokens of the sinks, see `rope.angles`.
  """
  if cache.raw_LBSNK is None:
    raise ValueError('this cache has no sinks')
  tokens = angle_TK.shape[0]
  raw = cache.raw_LBSNK[:, :, :tokens]
  rotated = jax.vmap(rope.rotate, in_axes=(0, None))(raw, angle_TK)
  k_all = cache.k_LBSNK.at[:, :, :tokens].set(rotated)
  return dataclasses.replace(cache, k_LBSNK=k_all)
