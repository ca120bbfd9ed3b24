"""A UMT5-shaped text encoder (Wan-Video/Wan2.1, `wan/modules/t5.py`).

Pre-norm with RMS statistics, no biases, no attention scaling, a relative-bias
table of its own in every layer, gated-GELU feed-forward. Rows after the end of
the text are zero, which is how Wan hands text to its transformer. Encoder and
transformer together are the bidirectional teacher.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unitemp_jax.models.dit import DiT, Linear, TextContext
from unitemp_jax.models.params import param
from unitemp_jax.shapes import (
  AnyArray,
  Latents,
  Sigmas,
  Text,
  TokenIds,
  TokenMask,
)


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Size of the encoder; the defaults are UMT5-XXL's."""

  vocab: int = 256384
  dim: int = 4096
  num_heads: int = 64
  head_dim: int = 64
  ffn_dim: int = 10240
  num_layers: int = 24
  buckets: int = 32
  max_distance: int = 128
  length: int = 512
  dtype: str = 'float32'


def relative_bucket(
  relative: jax.Array, buckets: int, max_distance: int
) -> jax.Array:
  """Bucket of key - query, bidirectional: exact near, logarithmic far."""
  half = buckets // 2
  exact = half // 2
  offset = jnp.where(relative > 0, half, 0)
  distance = jnp.abs(relative)
  ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
  far = exact + (
    jnp.log(ratio) / jnp.log(max_distance / exact) * (half - exact)
  ).astype(jnp.int32)
  far = jnp.minimum(far, half - 1)
  return offset + jnp.where(distance < exact, distance, far)


class T5Norm(nn.Module):
  """RMSNorm, statistics in float32, no bias, eps 1e-6."""

  @nn.compact
  def __call__(self, x: AnyArray) -> jax.Array:
    """Normalises the last axis."""
    scale = param(self, 'scale', nn.initializers.ones, (x.shape[-1],))
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt((x32**2).mean(-1, keepdims=True) + 1e-6)
    return x32.astype(x.dtype) * scale.reshape(1, 1, -1).astype(x.dtype)


class TextLayer(nn.Module):
  """Self-attention with relative bias, then a gated feed-forward."""

  config: TextConfig

  @nn.compact
  def __call__(self, x: AnyArray, mask: AnyArray) -> jax.Array:
    """Maps `BED` to `BED`; masked keys are not attended to."""
    c = self.config
    dtype = jnp.dtype(c.dtype)

    lecun = nn.initializers.lecun_normal()

    def dense(features, name, init=lecun):
      return Linear(
        features, use_bias=False, dtype=dtype, kernel_init=init, name=name
      )

    h = T5Norm(name='norm_attn')(x)
    inner = c.num_heads * c.head_dim

    def heads(y):
      return y.reshape(*y.shape[:2], c.num_heads, c.head_dim)

    # Logits are not scaled, so the queries start small (as in T5).
    small = nn.initializers.normal((c.dim * c.head_dim) ** -0.5)
    q = heads(dense(inner, 'q', small)(h))
    k, v = heads(dense(inner, 'k')(h)), heads(dense(inner, 'v')(h))
    bias = self.relative_bias(x.shape[1])
    y = jax.nn.dot_product_attention(
      q, k, v, bias=bias, mask=mask[:, None, None, :], scale=1.0
    )
    x = x + dense(c.dim, 'o')(y.reshape(*y.shape[:2], inner))
    h = T5Norm(name='norm_ffn')(x)
    gate = nn.gelu(dense(c.ffn_dim, 'gate')(h), approximate=True)
    return x + dense(c.dim, 'down')(gate * dense(c.ffn_dim, 'up')(h))

  def relative_bias(self, length: int) -> jax.Array:
    """This layer's additive logits `[1, N, E, E]`."""
    c = self.config
    table = param(
      self,
      'relative_bias',
      nn.initializers.normal(1.0),
      (c.buckets, c.num_heads),
    )
    index = jnp.arange(length)
    bucket = relative_bucket(
      index[None, :] - index[:, None], c.buckets, c.max_distance
    )
    return jnp.asarray(table)[bucket].transpose(2, 0, 1)[None]


class TextEncoder(nn.Module):
  """Token ids to embeddings that are zero after the end of the text."""

  config: TextConfig

  @nn.compact
  def __call__(self, ids: TokenIds, mask: TokenMask) -> Text:
    """Encodes ids int `BE` with mask bool `BE` to `BED`."""
    c = self.config
    embed = nn.Embed(
      c.vocab,
      c.dim,
      dtype=jnp.dtype(c.dtype),
      embedding_init=nn.initializers.normal(1.0),
      name='token_embedding',
    )
    x = embed(ids)
    for i in range(c.num_layers):
      x = TextLayer(c, name=f'layer{i}')(x, mask)
    x = T5Norm(name='norm_out')(x)
    return x * mask[..., None].astype(x.dtype)


def encode_text(
  encoder: TextEncoder, params: Any, ids: TokenIds, mask: TokenMask
) -> Text:
  """Token ids `BE` to embeddings `BED`, zero after the end."""
  return encoder.apply({'params': params}, ids, mask)


def batch_text(encoder: TextEncoder, params: Any, batch: Any) -> Text:
  """Embeddings `BED` of a batch: its own `text`, or its token ids encoded.

  With `text` the encoder's parameters may be anything, such as nothing.
  """
  if 'text' in batch:
    return batch['text']
  return encode_text(encoder, params, batch['ids'], batch['mask'])


def init_teacher(
  dit: DiT,
  encoder: TextEncoder,
  key: jax.Array,
  frames: int,
  height: int,
  width: int,
) -> dict[str, Any]:
  """Random parameters `{'dit', 'text'}` for latents of height x width."""
  key_dit, key_text = jax.random.split(key)
  c, t = dit.config, encoder.config
  ids = jnp.zeros((1, t.length), jnp.int32)
  text = jnp.zeros((1, t.length, c.text_dim))
  x = jnp.zeros((1, frames, height, width, c.channels))
  sigma, positions = jnp.zeros((1, frames)), jnp.arange(frames)
  return {
    'dit': dit.init(key_dit, x, sigma, positions, text, method='init_all')[
      'params'
    ],
    'text': encoder.init(key_text, ids, ids == 0)['params'],
  }


def bidirectional(
  dit: DiT, params: Any, x: Latents, sigma: Sigmas, context: TextContext
) -> Latents:
  """Velocity of a whole timeline, every frame seeing every other."""
  positions = jnp.arange(x.shape[1])
  return dit.apply({'params': params}, x, sigma, positions, context)[0]


def text_context(dit: DiT, params: Any, text: Text) -> TextContext:
  """Cross-attention keys and values of text embeddings `BED`."""
  return dit.apply({'params': params}, text, method='text_context')
