"""Attention by XLA: the reference, and what runs where no kernel does."""

import jax
import jax.numpy as jnp

from unitemp_jax.models.attention import masks


def attention(
  q_BQNK: jax.Array,
  k_BSNK: jax.Array,
  v_BSNK: jax.Array,
  kv_len: jax.Array | None = None,
  mask_BQS: jax.Array | None = None,
) -> jax.Array:
  """As `dispatch.attention`."""
  batch, queries = q_BQNK.shape[:2]
  mask = None
  if mask_BQS is not None:
    mask = masks.to_tokens(mask_BQS, queries, k_BSNK.shape[1])[:, None]
  lengths = None
  if kv_len is not None:
    lengths = jnp.full((batch,), kv_len, jnp.int32)
  return jax.nn.dot_product_attention(
    q_BQNK, k_BSNK, v_BSNK, mask=mask, key_value_seq_lengths=lengths
  )
