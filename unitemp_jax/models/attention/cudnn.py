"""Attention by cuDNN on NVIDIA GPUs, with the length of the prefix as data."""

import jax
import jax.numpy as jnp

from unitemp_jax.shapes import Index, Keys, Queries

_DTYPES = (jnp.bfloat16, jnp.float16)
_MAX_WIDTH = 128


def takes(q_BQNK: Queries) -> bool:
  """Whether cuDNN takes it: half precision, heads of 8 m up to 128."""
  width = q_BQNK.shape[-1]
  return q_BQNK.dtype in _DTYPES and width % 8 == 0 and width <= _MAX_WIDTH


def attention(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None = None,
) -> Queries:
  """As `dispatch.attention` without a mask, which would become a full bias."""
  lengths = None
  if kv_len is not None:
    lengths = jnp.full((q_BQNK.shape[0],), kv_len, jnp.int32)
  return jax.nn.dot_product_attention(
    q_BQNK,
    k_BSNK,
    v_BSNK,
    key_value_seq_lengths=lengths,
    implementation='cudnn',
  )
