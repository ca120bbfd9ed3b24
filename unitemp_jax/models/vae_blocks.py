"""Building blocks of the causal 3-D VAE of Wan 2.1, layout BTHWC."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from unitemp_jax.models.causal_conv import CausalConv, ConvCache


def fold_time(x: jax.Array) -> jax.Array:
  """Puts frames into the batch: `BTHWC` -> `(BT)HWC`."""
  return x.reshape(-1, *x.shape[2:])


def unfold_time(x: jax.Array, batch: int) -> jax.Array:
  """Undoes `fold_time`."""
  return x.reshape(batch, -1, *x.shape[1:])


class ChannelNorm(nn.Module):
  """L2-normalises channels and scales by sqrt(C) gamma (Wan's RMS_norm)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises the last axis, statistics in float32."""
    gamma = self.param('gamma', nn.initializers.ones, (x.shape[-1],))
    x32 = x.astype(jnp.float32)
    # A floor inside the root keeps the gradient finite at a zero vector.
    square = jnp.maximum(jnp.sum(x32**2, -1, keepdims=True), 1e-24)
    y = x32 * jax.lax.rsqrt(square) * jnp.sqrt(float(x.shape[-1]))
    return (y * gamma.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class ResidualBlock(nn.Module):
  """norm, SiLU, conv, norm, SiLU, conv; a 1x1x1 shortcut if widths differ."""

  features: int
  form: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, conv_cache: ConvCache) -> jax.Array:
    """Maps `BTHWC` to `BTHW[features]`."""
    y = nn.silu(ChannelNorm(name='norm1')(x))
    y = CausalConv(self.features, form=self.form, name='conv1')(y, conv_cache)
    y = nn.silu(ChannelNorm(name='norm2')(y))
    y = CausalConv(self.features, form=self.form, name='conv2')(y, conv_cache)
    if x.shape[-1] != self.features:
      shortcut = CausalConv(self.features, (1, 1, 1), name='shortcut')
      x = shortcut(x, conv_cache)
    return x + y


class FrameAttention(nn.Module):
  """Single-head attention among the positions of each frame."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Adds attention to `BTHWC`; no frame sees another."""
    b, t, h, w, c = x.shape
    y = ChannelNorm(name='norm')(x).reshape(b * t, h * w, 1, c)
    y = nn.Dense(3 * c, dtype=x.dtype, name='to_qkv')(y)
    q, k, v = jnp.split(y, 3, axis=-1)
    y = jax.nn.dot_product_attention(q, k, v)
    y = nn.Dense(c, dtype=x.dtype, name='proj')(y)
    return x + y.reshape(b, t, h, w, c)


class Downsample(nn.Module):
  """Halves space, and time too if `temporal` (the first frame stays alone)."""

  temporal: bool

  @nn.compact
  def __call__(self, x: jax.Array, conv_cache: ConvCache) -> jax.Array:
    """Maps `BTHWC` to half size; 1 + 2m first frames become 1 + m."""
    c = x.shape[-1]
    resample = nn.Conv(
      *(c, (3, 3), (2, 2)),
      padding=((0, 1), (0, 1)),
      dtype=x.dtype,
      name='resample',
    )
    y = unfold_time(resample(fold_time(x)), x.shape[0])
    if not self.temporal:
      return y
    # Its kernel is [3 C, C]: taps, then C.
    time_conv = nn.Dense(c, dtype=x.dtype, name='time_conv')
    head = y[:, :1] if conv_cache.first else y[:, :0]
    if not conv_cache.first:
      y = jnp.concatenate([conv_cache.past(y, 1), y], axis=1)
    conv_cache.keep(y, 1)
    m = (y.shape[1] - 1) // 2
    taps = [y[:, i : i + 2 * m : 2] for i in range(3)]
    tail = time_conv(jnp.concatenate(taps, axis=-1))
    return jnp.concatenate([head, tail], axis=1)


class Upsample(nn.Module):
  """Doubles space and halves channels; doubles time too if `temporal`.

  The first latent of a video is not doubled in time, and the time
  convolution of the second one sees no history, as in Wan 2.1. With
  `one_by_one` only one frame at a time is of double size and all channels.
  """

  temporal: bool
  one_by_one: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, conv_cache: ConvCache) -> jax.Array:
    """Maps `BTHWC` to double size; 1 + m first frames become 1 + 2m."""
    c = x.shape[-1]
    if self.temporal:
      head, tail = (x[:, :1], x[:, 1:]) if conv_cache.first else (x[:, :0], x)
      tail = jnp.concatenate([conv_cache.past(x, 2), tail], axis=1)
      conv_cache.keep(tail, 2)
      m = tail.shape[1] - 2
      taps = [tail[:, i : i + m] for i in range(3)]
      time_conv = nn.Dense(2 * c, dtype=x.dtype, name='time_conv')
      tail = time_conv(jnp.concatenate(taps, axis=-1))
      tail = rearrange(tail, 'b t h w (j c) -> b (t j) h w c', j=2)
      x = jnp.concatenate([head, tail], axis=1)
    resample = nn.Conv(
      *(c // 2, (3, 3)),
      padding=((1, 1), (1, 1)),
      dtype=x.dtype,
      name='resample',
    )

    def enlarged(conv, carry, frames):
      return carry, conv(frames.repeat(2, axis=1).repeat(2, axis=2))

    if not self.one_by_one or x.shape[1] == 1:
      return unfold_time(enlarged(resample, (), fold_time(x))[1], x.shape[0])
    scan = nn.scan(
      enlarged,
      variable_broadcast='params',
      split_rngs={'params': False},
      in_axes=1,  # Not over rows, which lie on different devices.
      out_axes=1,
    )
    return scan(resample, (), x)[1]
