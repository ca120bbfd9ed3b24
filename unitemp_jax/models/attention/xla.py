"""Attention by `jax.nn`: XLA, the reference of all backends, and cuDNN.

A row of a mask stands for one or more queries in a row, a column for as many
keys: all tokens of a latent frame see the same. So a mask need not be as large
as the logits, which at full size no device could hold.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from unitemp_jax.shapes import AnyArray, Index, KeyMask, Keys, Queries

# Name of what the backward pass needs of the forward one, for remat policies:
# `jax.checkpoint_policies.save_only_these_names(RESIDUALS)`.
RESIDUALS = 'attention'


def check_mask(mask_BQS: AnyArray, queries: int, keys: int) -> None:
  """Raises ValueError if rows or columns do not divide the tokens."""
  _, rows, columns = mask_BQS.shape
  if queries % rows or keys % columns:
    raise ValueError(
      f'a mask {mask_BQS.shape} does not divide {queries} queries and {keys} '
      'keys'
    )


def to_tokens(mask_BQS: AnyArray, queries: int, keys: int) -> jax.Array:
  """Expands a mask to `[B, queries, keys]`."""
  _, rows, columns = mask_BQS.shape
  if queries != rows:
    mask_BQS = jnp.repeat(mask_BQS, queries // rows, axis=1)
  if keys != columns:
    mask_BQS = jnp.repeat(mask_BQS, keys // columns, axis=2)
  return mask_BQS


def attention(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None = None,
  mask_BQS: KeyMask | None = None,
) -> Queries:
  """As `dispatch.attention`, with all logits at once."""
  batch, queries = q_BQNK.shape[:2]
  mask = None
  if mask_BQS is not None:
    mask = to_tokens(mask_BQS, queries, k_BSNK.shape[1])[:, None]
  lengths = None
  if kv_len is not None:
    lengths = jnp.full((batch,), kv_len, jnp.int32)
  return jax.nn.dot_product_attention(
    q_BQNK, k_BSNK, v_BSNK, mask=mask, key_value_seq_lengths=lengths
  )


def in_pieces(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None = None,
  mask_BQS: KeyMask | None = None,
  *,
  logits: int,
) -> Queries:
  """As `attention`, one head and so many logits at a time.

  On a CPU they stay in its cache, which is 3 times faster; anywhere they fit
  into memory, in the backward pass too, where they are computed again.
  """
  b, queries, n, width = q_BQNK.shape
  keys = k_BSNK.shape[1]
  pieces = -(-queries // max(1, logits // keys))
  piece = -(-queries // pieces)
  pad = ((0, 0), (0, pieces * piece - queries), (0, 0), (0, 0))
  q_BPQNK = jnp.pad(q_BQNK, pad).reshape(b, pieces, piece, n, width)
  number = jnp.arange(pieces * piece).reshape(pieces, piece)

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def one(q_QK, k_SK, v_SK, index_Q, mask_QS):
    mask = None
    if mask_QS is not None:
      rows = jnp.minimum(index_Q // (queries // mask_QS.shape[0]), queries)
      mask = to_tokens(mask_QS[rows][None], piece, keys)
    q, k, v = (x[None, :, None] for x in (q_QK, k_SK, v_SK))
    return attention(q, k, v, kv_len, mask)[0, :, 0]

  def head(inputs):
    q_PQK, k_SK, v_SK, mask_QS = inputs
    return lax.map(
      lambda rows: one(rows[0], k_SK, v_SK, rows[1], mask_QS), (q_PQK, number)
    )

  def clip(inputs):
    q_PQNK, k_SNK, v_SNK, mask_QS = inputs
    heads = (jnp.moveaxis(x, -2, 0) for x in (q_PQNK, k_SNK, v_SNK))
    y_NPQK = lax.map(lambda one: head((*one, mask_QS)), tuple(heads))
    return jnp.moveaxis(y_NPQK, 0, -2)

  if mask_BQS is not None:
    mask_BQS = jnp.broadcast_to(mask_BQS, (b, *mask_BQS.shape[1:]))
  y_BPQNK = lax.map(clip, (q_BPQNK, k_BSNK, v_BSNK, mask_BQS))
  return y_BPQNK.reshape(b, pieces * piece, n, width)[:, :queries]


_TOGETHER = 2**18  # logits of a tile up to which all heads of a clip share it


def streamed(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None = None,
  tile: int = 256,
) -> Queries:
  """As `attention`, over tiles of keys up to the last one that is visible.

  Heads are computed one by one where their logits would leave a CPU's cache.
  Running maximum and sum as in FlashAttention (arXiv 2205.14135, algorithm 1).
  """
  b, queries, n, width = q_BQNK.shape
  keys, dtype = k_BSNK.shape[1], q_BQNK.dtype
  tile = min(tile, keys)
  length = jnp.asarray(keys if kv_len is None else kv_len, jnp.int32)

  def rows(q_HQK, k_HSK, v_HSK):
    q_HQK = q_HQK.astype(jnp.float32) * width**-0.5

    def body(i, state):
      m_HQ, l_HQ, y_HQK = state
      first = jnp.minimum(i * tile, keys - tile)
      k, v = (
        lax.dynamic_slice_in_dim(x, first, tile, 1).astype(jnp.float32)
        for x in (k_HSK, v_HSK)
      )
      key = first + jnp.arange(tile)
      seen = ((key >= i * tile) & (key < length))[None, None]
      # What is beyond the prefix may be anything, and 0 x nan is nan.
      v = jnp.where(seen.swapaxes(1, 2), v, 0.0)
      logits = jnp.einsum('hqk,htk->hqt', q_HQK, k)
      logits = jnp.where(seen, logits, -jnp.inf)
      highest = jnp.maximum(m_HQ, logits.max(-1))
      p = jnp.exp(logits - highest[..., None])
      shrunk = jnp.exp(m_HQ - highest)
      y_HQK = y_HQK * shrunk[..., None] + jnp.einsum('hqt,htk->hqk', p, v)
      return highest, l_HQ * shrunk + p.sum(-1), y_HQK

    start = jnp.full(q_HQK.shape[:2], jnp.finfo(jnp.float32).min)
    state = (start, jnp.zeros_like(start), jnp.zeros_like(q_HQK))
    _, l_HQ, y_HQK = lax.fori_loop(0, -(-length // tile), body, state)
    return (y_HQK / l_HQ[..., None]).astype(dtype)

  heads = [
    x.swapaxes(1, 2).reshape(b * n, -1, width) for x in (q_BQNK, k_BSNK, v_BSNK)
  ]
  if n * queries * tile <= _TOGETHER:  # Not by clips: all are computed alike.
    y = rows(*heads)
  else:
    y = lax.map(lambda one: rows(*(x[None] for x in one))[0], tuple(heads))
  return y.reshape(b, n, queries, width).swapaxes(1, 2)


_CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
_CUDNN_WIDTH = 128


def cudnn_takes(q_BQNK: Queries) -> bool:
  """Whether cuDNN takes it: half precision, heads of 8 m up to 128."""
  width = q_BQNK.shape[-1]
  return (
    q_BQNK.dtype in _CUDNN_DTYPES and width % 8 == 0 and width <= _CUDNN_WIDTH
  )


def cudnn_attention(
  q_BQNK: Queries, k_BSNK: Keys, v_BSNK: Keys, kv_len: Index | None = None
) -> Queries:
  """As `dispatch.attention`, without a mask, which would become a full bias."""
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
