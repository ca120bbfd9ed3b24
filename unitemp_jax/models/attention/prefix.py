"""Pallas kernel for TPUs: attention to a visible prefix of the whole KV cache.

It reads one layer of the cache where it lies: the layer and the length of the
prefix are prefetched scalars, so nothing is sliced out or padded before. Blocks
of keys beyond the prefix are neither fetched nor computed. Forward only, for
passes that are not differentiated.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from unitemp_jax.models.attention.tiles import Tiles, divisor, fit
from unitemp_jax.shapes import AnyArray, Index, Queries

_LANES, _SUBLANES = 128, 16
_SMALLEST = -0.7 * float(np.finfo(np.float32).max)


def takes(q_BQNK: AnyArray, k_LBSNK: AnyArray) -> bool:
  """Whether the kernel takes it: heads as wide as lanes, half precision."""
  half = q_BQNK.dtype == k_LBSNK.dtype == jnp.bfloat16
  return half and q_BQNK.shape[-1] == _LANES


def attention(
  q_BQNK: Queries,
  k_LBSNK: AnyArray,
  v_LBSNK: AnyArray,
  layer: Index,
  kv_len: Index,
  tiles: Tiles,
  interpret: bool = False,
) -> Queries:
  """As `dispatch.attention` of one layer's first `kv_len` keys and values."""
  b, queries, n, width = q_BQNK.shape
  keys = k_LBSNK.shape[2]
  padded, block_q = fit(queries, tiles.prefix_q, _SUBLANES)
  block_k = min(tiles.prefix_kv, -(-keys // _LANES) * _LANES)
  compute = divisor(block_k, tiles.prefix_kv_compute, _LANES)
  # Heads are lanes of the queries, and in the cache they come before slots.
  scale = width**-0.5 * np.log2(np.e)
  q = (q_BQNK.astype(jnp.float32) * scale).astype(q_BQNK.dtype)
  q = q.reshape(b, queries, n * width)
  q = jnp.pad(q, ((0, 0), (0, padded - queries), (0, 0)))
  heads_first = (0, 1, 3, 2, 4)
  k, v = k_LBSNK.transpose(heads_first), v_LBSNK.transpose(heads_first)
  scalars = jnp.stack([jnp.asarray(x, jnp.int32) for x in (layer, kv_len)])

  def cached(h, i, j, scalars):
    del i
    last = (scalars[1] - 1) // block_k
    return scalars[0], h // n, h % n, jnp.minimum(j, last), 0

  def own(h, i, j, scalars):
    del j, scalars
    return h // n, i, h % n

  spec = pl.BlockSpec((None, None, None, block_k, width), cached)
  y = pl.pallas_call(
    functools.partial(_kernel, block_k=block_k, compute=compute),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      in_specs=[pl.BlockSpec((None, block_q, width), own), spec, spec],
      out_specs=pl.BlockSpec((None, block_q, width), own),
      scratch_shapes=[
        pltpu.VMEM((block_q, _LANES), jnp.float32),
        pltpu.VMEM((block_q, _LANES), jnp.float32),
        pltpu.VMEM((block_q, width), jnp.float32),
      ],
      grid=(b * n, padded // block_q, pl.cdiv(keys, block_k)),
    ),
    out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary')
    ),
    interpret=interpret,
    name='prefix_attention',
  )(scalars, q, k, v)
  return y[:, :queries].reshape(q_BQNK.shape)


def _kernel(
  scalars,
  q_ref,
  k_ref,
  v_ref,
  y_ref,
  m_ref,
  l_ref,
  acc_ref,
  *,
  block_k,
  compute,
):
  """One block of queries of a head, for one block of keys after another."""
  j, length = pl.program_id(2), scalars[1]

  @pl.when(j == 0)
  def _():
    m_ref[...] = jnp.full_like(m_ref, _SMALLEST)
    l_ref[...] = jnp.zeros_like(l_ref)
    acc_ref[...] = jnp.zeros_like(acc_ref)

  @pl.when(j * block_k < length)
  def _():
    q, m, l, acc = q_ref[...], m_ref[...], l_ref[...], acc_ref[...]
    for first in range(0, block_k, compute):
      left = length - j * block_k - first
      k = k_ref[first : first + compute]
      v = v_ref[first : first + compute]
      logits = lax.dot_general(
        *(q, k, (((1,), (1,)), ((), ()))), preferred_element_type=jnp.float32
      )
      column = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
      logits = jnp.where(column < left, logits, _SMALLEST)
      # What is beyond the prefix may be anything, and 0 x nan is nan.
      row = lax.broadcasted_iota(jnp.int32, v.shape, 0)
      v = jnp.where(row < left, v, jnp.zeros_like(v))
      m_next = jnp.maximum(m, logits.max(axis=1, keepdims=True))
      wide = jnp.tile(m_next, (1, compute // _LANES))
      p = jnp.exp2(logits - wide)
      alpha = jnp.exp2(m - m_next)
      l = alpha * l + p.sum(axis=1, keepdims=True)
      acc = alpha * acc + lax.dot_general(
        *(p.astype(v.dtype), v, (((1,), (0,)), ((), ()))),
        preferred_element_type=jnp.float32,
      )
      m = m_next
    m_ref[...], l_ref[...], acc_ref[...] = m, l, acc

  @pl.when(j == pl.num_programs(2) - 1)
  def _():
    y_ref[...] = (acc_ref[...] / l_ref[...]).astype(y_ref.dtype)
