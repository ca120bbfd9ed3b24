"""The one attention of the project.

Visible context is a prefix of the keys, so validity is one length and not a
mask (method.md section 5). Only training passes that put several blocks of a
video side by side need a frame mask.
"""

import jax
import jax.numpy as jnp


def attention(
  q_BQNK: jax.Array,
  k_BSNK: jax.Array,
  v_BSNK: jax.Array,
  kv_len: jax.Array | None = None,
  mask_BQS: jax.Array | None = None,
) -> jax.Array:
  """Softmax attention, scale 1 / sqrt(K), logits in float32.

  Args:
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar; keys at and beyond it are not attended to. At least 1.
    mask_BQS: bool; True where a query may attend to a key; B may be 1.

  Returns:
    `BQNK`, in the dtype of the queries.
  """
  mask = None
  if mask_BQS is not None:
    mask = mask_BQS[:, None]
  lengths = None
  if kv_len is not None:
    lengths = jnp.full((q_BQNK.shape[0],), kv_len, jnp.int32)
  return jax.nn.dot_product_attention(
    q_BQNK, k_BSNK, v_BSNK, mask=mask, key_value_seq_lengths=lengths
  )


def frame_mask_to_tokens(mask: jax.Array, tokens_per_frame: int) -> jax.Array:
  """Expands a frame mask `[B, F, Fk]` to tokens `[B, F n, Fk n]`."""
  mask = jnp.repeat(mask, tokens_per_frame, axis=1)
  return jnp.repeat(mask, tokens_per_frame, axis=2)
