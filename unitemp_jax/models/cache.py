"""The KV cache: an explicit pytree, argument in, value out.

One slot holds the keys and values of one latent frame, for every layer. Keys
are stored after rotation, so their order in the cache does not matter and the
visible context is a prefix (method.md section 5). A pass *stages* its own keys
and values right behind the prefix it sees; `commit` then moves the staged ones
to the slots the plan names. In the scan over layers the cache is a carry that
is updated in place.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax


@flax.struct.dataclass
class KVCache:
  """Keys and values, `[layers, batch, slots * tokens, heads, head_dim]`."""

  k_LBSNK: jax.Array
  v_LBSNK: jax.Array


def init_cache(
  layers: int,
  batch: int,
  slots: int,
  tokens_per_frame: int,
  heads: int,
  head_dim: int,
  dtype=jnp.float32,
) -> KVCache:
  """An empty cache for `slots` latent frames."""
  shape = (layers, batch, slots * tokens_per_frame, heads, head_dim)
  return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def stage(
  cache: KVCache, layer: jax.Array, k_BTNK, v_BTNK, token: jax.Array
) -> tuple[KVCache, jax.Array, jax.Array]:
  """Writes one layer's own keys and values at a token offset.

  Returns the cache and that layer's keys and values `BSNK`.
  """

  def write(whole, new):
    zero = jnp.zeros((), jnp.int32)
    new = new[None].astype(whole.dtype)
    start = (layer, zero, token, zero, zero)
    whole = lax.dynamic_update_slice(whole, new, start)
    return whole, lax.dynamic_index_in_dim(whole, layer, 0, keepdims=False)

  k_all, k_layer = write(cache.k_LBSNK, k_BTNK)
  v_all, v_layer = write(cache.v_LBSNK, v_BTNK)
  return KVCache(k_all, v_all), k_layer, v_layer


def commit(
  cache: KVCache, start: jax.Array, write: jax.Array, tokens_per_frame: int
) -> KVCache:
  """Moves staged slots start, start + 1, ... to the slots `write` `[B]`.

  An entry of -1 is not written. Staging behind the prefix and appending there,
  as every plan does that evicts nothing, leaves the values as they are.
  """
  num = write.shape[0]

  def move(whole):
    l, b, s, n, k = whole.shape
    slots = whole.reshape(l, b, s // tokens_per_frame, tokens_per_frame, n, k)
    staged = lax.dynamic_slice_in_dim(slots, start, num, axis=2)
    target = jnp.where(write < 0, slots.shape[2], write)
    slots = slots.at[:, :, target].set(staged, mode='drop')
    return slots.reshape(whole.shape)

  return jax.tree.map(move, cache)
