"""One transformer block of Wan 2.1 (`wan/modules/model.py`).

Self-attention and feed-forward are modulated per latent frame by the timestep;
cross-attention is neither modulated nor gated. Statistics, modulation and
residual additions are in float32, matrix products in the compute dtype.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from unitemp_jax.models import remat, rope
from unitemp_jax.models.attention import attention
from unitemp_jax.models.cache import KVCache, beside, stage
from unitemp_jax.models.linear import Linear
from unitemp_jax.parallel.mesh_context import (
  join_heads,
  split_heads,
  split_tokens,
)

EPS = 1e-6


def layer_norm(x: jax.Array) -> jax.Array:
  """LayerNorm without affine, in float32, over the last axis."""
  x = x.astype(jnp.float32)
  mean = x.mean(-1, keepdims=True)
  var = ((x - mean) ** 2).mean(-1, keepdims=True)
  return (x - mean) * jax.lax.rsqrt(var + EPS)


class RMSNorm(nn.Module):
  """RMSNorm with a learned weight, over the full width, before head split."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises the last axis in float32, cast back."""
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt((x32**2).mean(-1, keepdims=True) + EPS)
    return (x32 * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Projections(nn.Module):
  """q, k, v, o of one attention, with RMSNorm on q and k."""

  dim: int
  num_heads: int
  dtype: DTypeLike

  def setup(self):
    """Xavier-uniform kernels, as in Wan's own initialisation."""

    def dense(name):
      init = nn.initializers.xavier_uniform()
      return Linear(self.dim, dtype=self.dtype, kernel_init=init, name=name)

    self.q, self.k, self.v, self.o = (dense(n) for n in 'qkvo')
    self.norm_q = RMSNorm()
    self.norm_k = RMSNorm()

  def split(self, x: jax.Array) -> jax.Array:
    """`BTD` or `BFSD` to `BTNK`, T = F S."""
    heads = x.reshape(*x.shape[:-1], self.num_heads, -1)
    if x.ndim == 4:
      heads = split_heads(heads)
    return heads.reshape(x.shape[0], -1, *heads.shape[-2:])

  def query(self, x: jax.Array) -> jax.Array:
    """`BFSD` to normalised queries `BTNK`."""
    return self.split(self.norm_q(self.q(x)))

  def key_value(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`BED` or `BFSD` to normalised keys and values `BENK` or `BTNK`."""
    return self.split(self.norm_k(self.k(x))), self.split(self.v(x))

  def out(self, y_BTNK: jax.Array, frames: int) -> jax.Array:
    """Heads `BTNK` back to `BFSD`."""
    b, t, *heads = y_BTNK.shape
    y = join_heads(y_BTNK.reshape(b, frames, t // frames, *heads))
    return self.o(y.reshape(*y.shape[:3], -1))


class Block(nn.Module):
  """Self-attention, cross-attention, feed-forward; scanned over layers."""

  dim: int
  num_heads: int
  ffn_dim: int
  dtype: DTypeLike

  def setup(self):
    """One layer's parameters."""
    init = nn.initializers.normal(self.dim**-0.5)
    self.modulation = self.param('modulation', init, (6, self.dim))
    self.self_attn = Projections(self.dim, self.num_heads, self.dtype)
    self.cross_attn = Projections(self.dim, self.num_heads, self.dtype)
    # Not the fast variance, which loses all digits far from zero.
    self.norm_cross = nn.LayerNorm(epsilon=EPS, use_fast_variance=False)
    xavier = nn.initializers.xavier_uniform()
    self.ffn_up = Linear(self.ffn_dim, dtype=self.dtype, kernel_init=xavier)
    self.ffn_down = Linear(self.dim, dtype=self.dtype, kernel_init=xavier)

  def text_kv(self, carry, text: jax.Array):
    """This layer's keys and values of the text `BED`; the carry is unused."""
    return carry, self.cross_attn.key_value(text)

  def __call__(
    self, carry, text_kv, e_BF6D, angle_TK, token, kv_len, mask_BQS, read
  ):
    """One layer on the carry (x, cache or None, layer index).

    Args:
      carry: x `BFSD` (or `BTD`, T = F S), the whole cache (all layers) or None,
        and this layer's index.
      text_kv: keys and values `BENK` of the text for this layer.
      e_BF6D: timestep modulation of every frame, float32.
      angle_TK: rotary angles of the tokens of x.
      token: where in the cache this pass stages its keys.
      kv_len: how many keys are visible, staged ones included, or None.
      mask_BQS: bool mask or None.
      read: a whole cache that is only read, in place of the carried one.
    """
    given, cache, layer = carry
    given = remat.mark_input(given)
    frames = e_BF6D.shape[1]
    x = given.reshape(given.shape[0], frames, -1, given.shape[-1])

    def modulate(y, scale_BFD, shift_BFD):
      y = layer_norm(y) * (1.0 + scale_BFD[:, :, None]) + shift_BFD[:, :, None]
      return split_tokens(y.astype(self.dtype))

    def add(y, delta, gate_BFD=None):
      delta = delta.astype(jnp.float32)
      if gate_BFD is not None:
        delta = delta * gate_BFD[:, :, None]
      return split_tokens((y.astype(jnp.float32) + delta).astype(y.dtype))

    m = self.modulation[None, None].astype(jnp.float32) + e_BF6D
    m = [m[:, :, i] for i in range(6)]

    h = modulate(x, m[1], m[0])
    q = rope.rotate(self.self_attn.query(h), angle_TK)
    raw, v = self.self_attn.key_value(h)
    k = rope.rotate(raw, angle_TK)
    if cache is not None:
      cache, k, v = stage(cache, layer, k, v, token, raw)
    elif read is not None:
      k, v = beside(read, layer, k, v, token)
    y = attention(q, k.astype(q.dtype), v.astype(q.dtype), kv_len, mask_BQS)
    x = add(x, self.self_attn.out(y, frames), m[2])

    h = split_tokens(self.norm_cross(x).astype(self.dtype))
    y = attention(self.cross_attn.query(h), *text_kv)
    x = add(x, self.cross_attn.out(y, frames))

    h = modulate(x, m[4], m[3])
    h = self.ffn_down(nn.gelu(self.ffn_up(h), approximate=True))
    x = add(x, h, m[5]).reshape(given.shape)
    return (x, cache, layer + 1), None


def zero_init_carry(x: jax.Array, cache: KVCache | None):
  """The carry that enters layer 0."""
  return x, cache, jnp.zeros((), jnp.int32)
