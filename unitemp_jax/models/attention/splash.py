"""Attention by jax's splash kernel for TPUs, with a prefix that is data.

The kernel takes, for every block of queries and of keys, whether anything in it
is seen: what is not is neither fetched nor computed. jax builds that table from
a static mask, or from one as large as the logits; ours comes from the length of
the prefix and the mask of frames, while it runs. Within a block, segment ids
hide the keys that are not seen. (`MaskInfo` is not a documented interface.)

With a frame mask, keys of a frame are padded to whole blocks, so that no block
has keys of two frames, and the mask is exactly one of blocks. Queries likewise.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask_info as mask_info,
)

from unitemp_jax.models.attention.tiles import Tiles, divisor, fit
from unitemp_jax.models.attention.xla import RESIDUALS
from unitemp_jax.shapes import Index, KeyMask, Keys, Queries

_LANES, _SUBLANES = 128, 8
# The backward kernel can compute dq along, as a partial sum per block of keys;
# up to so many bytes that is cheaper than a kernel of its own.
_PARTIAL_SUMS = 2**30


@dataclasses.dataclass(frozen=True)
class Units:
  """How tokens are padded: `count` units of `size`, each to `padded`.

  Without a mask all tokens are one unit, with one a unit is a frame.
  """

  count: int
  size: int
  padded: int

  def pad(self, x_HTK: jax.Array) -> jax.Array:
    """`[H, count size, K]` to `[H, count padded, K]`."""
    if self.size == self.padded:
      return x_HTK
    h, _, k = x_HTK.shape
    x = x_HTK.reshape(h, self.count, self.size, k)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, self.padded - self.size), (0, 0)))
    return x.reshape(h, -1, k)

  def cut(self, x_HTK: jax.Array) -> jax.Array:
    """The inverse of `pad`."""
    h, _, k = x_HTK.shape
    x = x_HTK.reshape(h, self.count, self.padded, k)[:, :, : self.size]
    return x.reshape(h, -1, k)

  def token(self, every: int = 1) -> tuple[jax.Array, jax.Array]:
    """Which token stands at every so many places, and whether there is one."""
    place = jnp.arange(0, self.count * self.padded, every)
    unit, inner = place // self.padded, place % self.padded
    return unit * self.size + inner, inner < self.size


@dataclasses.dataclass(frozen=True)
class Layout:
  """Sizes of one call: padding of queries and keys, blocks of the kernels."""

  queries: Units
  keys: Units
  blocks: splash.BlockSizes
  interpret: bool


def forward_layout(
  tiles: Tiles, rows: int, queries: int, columns: int, keys: int, interpret
) -> Layout:
  """Layout without a backward pass: queries are hardly padded.

  Args:
    tiles: wanted sizes of blocks.
    rows: units of queries.
    queries: tokens per unit.
    columns: units of keys.
    keys: tokens per unit.
    interpret: emulate the kernel.
  """
  padded_q, block_q = fit(queries, tiles.block_q, _SUBLANES)
  padded_k, block_kv = fit(keys, tiles.block_kv, tiles.block_kv_compute, _LANES)
  blocks = splash.BlockSizes(
    block_q=block_q,
    block_kv=block_kv,
    block_kv_compute=divisor(block_kv, tiles.block_kv_compute, _LANES),
  )
  return Layout(
    Units(rows, queries, padded_q),
    Units(columns, keys, padded_k),
    blocks,
    interpret,
  )


def training_layout(
  tiles: Tiles,
  rows: int,
  queries: int,
  columns: int,
  keys: int,
  interpret,
  bytes_q: int,
) -> Layout:
  """As `forward_layout`, with the blocks of the backward kernels.

  Those want blocks of queries in whole lanes. `bytes_q` is the size of the
  queries; it decides how dq is computed.
  """
  padded_q, block_q_dkv = fit(queries, tiles.block_q_dkv, _LANES)
  padded_k, block_kv = fit(keys, tiles.block_kv, tiles.block_kv_compute, _LANES)
  block_kv_dkv = divisor(padded_k, tiles.block_kv_dkv, _LANES)
  fused = columns * padded_k // block_kv_dkv * bytes_q <= _PARTIAL_SUMS
  blocks = splash.BlockSizes(
    block_q=divisor(padded_q, tiles.block_q, _SUBLANES),
    block_kv=block_kv,
    block_kv_compute=divisor(block_kv, tiles.block_kv_compute, _LANES),
    block_q_dkv=block_q_dkv,
    block_kv_dkv=block_kv_dkv,
    block_kv_dkv_compute=divisor(
      block_kv_dkv, tiles.block_kv_dkv_compute, _LANES
    ),
    block_q_dq=None if fused else divisor(padded_q, tiles.block_q_dq, _LANES),
    block_kv_dq=None if fused else divisor(padded_k, tiles.block_kv_dq, _LANES),
    use_fused_bwd_kernel=fused,
  )
  return Layout(
    Units(rows, queries, padded_q),
    Units(columns, keys, padded_k),
    blocks,
    interpret,
  )


def attention(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None,
  mask_BQS: KeyMask | None,
  tiles: Tiles,
  interpret: bool = False,
) -> Queries:
  """As `dispatch.attention`; a mask is one of frames of 128 tokens or more.

  Clips of one mask share a call of the kernel, those of several go one by one.
  """
  if mask_BQS is None or mask_BQS.shape[0] == 1:
    mask_QS = None if mask_BQS is None else mask_BQS[0]
    return _one_mask(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_QS, tiles, interpret)

  def one(clip):
    q, k, v, mask_QS = clip
    y = _one_mask(q[None], k[None], v[None], kv_len, mask_QS, tiles, interpret)
    return y[0]

  return lax.map(one, (q_BQNK, k_BSNK, v_BSNK, mask_BQS))


def _one_mask(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_QS, tiles, interpret):
  """Folds the clips into the heads, which share mask and length."""
  b, queries, n, width = q_BQNK.shape
  keys = k_BSNK.shape[1]
  rows, columns = (1, 1) if mask_QS is None else mask_QS.shape
  sizes = (rows, queries // rows, columns, keys // columns, interpret)
  layouts = (
    forward_layout(tiles, *sizes),
    training_layout(tiles, *sizes, q_BQNK.nbytes),
  )

  def fold(x):
    return x.swapaxes(1, 2).reshape(b * n, x.shape[1], width)

  q = (q_BQNK.astype(jnp.float32) * width**-0.5).astype(q_BQNK.dtype)
  length = jnp.asarray(keys if kv_len is None else kv_len, jnp.int32)
  seen = jnp.ones((1, 1), bool) if mask_QS is None else mask_QS
  y = _attend(layouts, fold(q), fold(k_BSNK), fold(v_BSNK), length, seen)
  return y.reshape(b, n, queries, width).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(layouts, q_HTK, k_HSK, v_HSK, length, seen):
  """Attention in the first layout, or in the second if differentiated."""
  return _run(layouts[0], q_HTK, k_HSK, v_HSK, length, seen)


def _attend_forward(layouts, q_HTK, k_HSK, v_HSK, length, seen):
  def run(q, k, v):
    return _run(layouts[1], q, k, v, length, seen)

  return jax.vjp(run, q_HTK, k_HSK, v_HSK)


def _attend_backward(layouts, pull, dy_HTK):
  del layouts
  return *pull(dy_HTK), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _run(layout: Layout, q_HTK, k_HSK, v_HSK, length, seen):
  """Pads, runs the kernel, and cuts what was padded."""
  blocks, queries, keys = layout.blocks, layout.queries, layout.keys

  def table(block_q, block_kv):
    return block_table(layout, block_q, block_kv, length, seen)

  forward = _mask_info(table(blocks.block_q, blocks.block_kv))
  dq = dkv = None
  if blocks.has_backward_blocks:
    dkv = table(blocks.block_q_dkv, blocks.block_kv_dkv)
    dkv = _mask_info(dkv, by_query=True)
    if not blocks.use_fused_bwd_kernel:
      dq = _mask_info(table(blocks.block_q_dq, blocks.block_kv_dq))
  kernel = splash.SplashAttentionKernel(
    forward,
    dq,
    dkv,
    block_sizes=blocks,
    is_mqa=False,
    save_residuals=False,
    mask_value=splash.DEFAULT_MASK_VALUE,
    attn_logits_soft_cap=None,
    residual_checkpoint_name=RESIDUALS,
    mask_function=None,
    interpret=layout.interpret,
  )
  token, exists = keys.token()
  segments = splash.SegmentIds(
    q=jnp.ones(queries.count * queries.padded, jnp.int32),
    kv=(exists & (token < length)).astype(jnp.int32),
  )
  y = kernel(queries.pad(q_HTK), keys.pad(k_HSK), keys.pad(v_HSK), segments)
  return queries.cut(y)


def block_table(
  layout: Layout, block_q: int, block_kv: int, length: jax.Array, seen
) -> jax.Array:
  """Which blocks have anything to compute: bool `[query blocks, key blocks]`.

  Args:
    layout: how tokens are padded.
    block_q: queries per block, whole blocks per unit.
    block_kv: keys per block, likewise.
    length: int scalar, visible keys.
    seen: bool `[units of queries, units of keys]`.
  """
  queries, keys = layout.queries, layout.keys
  first, exists = keys.token(block_kv)
  table = jnp.repeat(seen, queries.padded // block_q, axis=0)
  table = jnp.repeat(table, keys.padded // block_kv, axis=1)
  return table & (exists & (first < length))[None]


def _mask_info(table: jax.Array, by_query: bool = False) -> mask_info.MaskInfo:
  """The kernel's own form: what to compute, and what to fetch meanwhile.

  Where nothing is computed that is the next block that is, else the last that
  was, so that nothing is fetched in vain. `by_query`: blocks of queries are
  fetched, for one of keys after the other.
  """
  axis = 0 if by_query else 1
  size = table.shape[axis]
  index = lax.broadcasted_iota(jnp.int32, table.shape, axis)
  following = lax.cummin(jnp.where(table, index, size), axis=axis, reverse=True)
  last = jnp.where(table, index, 0).max(axis=axis, keepdims=True)
  fetch = jnp.where(following < size, following, last)
  return mask_info.MaskInfo(
    data_next=fetch[None],
    mask_next=None,
    block_mask=table[None].astype(jnp.int32),
    partial_mask_blocks=None,
    q_sequence=None,
  )
