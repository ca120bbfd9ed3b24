"""The causal 3-D VAE of Wan 2.1, over any size (arXiv 2503.20314).

1 + 4k pixel frames become 1 + k latents, space is divided by 8 (with the usual
temporal and spatial strides). Pixels are in [-1, 1]; latents are normalised per
channel, (mu - mean) / std. Frame t of the output depends on latents up to its
own only: the VAE is causal in time.

A video may be processed in chunks. `cache=None` starts a video: the first
chunk holds 1 + 4m frames (1 + m latents). Later chunks hold 4m frames (m
latents) and take the cache that the chunk before returned. However a video is
cut, the result is the same.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.models.vae_blocks import (
  CausalConv,
  ChannelNorm,
  ConvCache,
  Downsample,
  FrameAttention,
  FrameConvCache,
  ResidualBlock,
  Upsample,
)
from unitemp_jax.shapes import AnyArray, Latents, Video

Cache = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class VAEConfig:
  """Size of the VAE; the defaults are Wan 2.1's.

  `patch` folds patch x patch pixels into channels before the first convolution
  (1 in Wan 2.1, 2 in Wan 2.2). `latent_mean` and `latent_std` have `z_dim`
  entries, or are empty for no normalisation. `decode_dtype` is what a finished
  model decodes in. Of `large_frames` memory holds few: they are coded a latent
  at a time, and one by one where they are largest.
  """

  base_dim: int = 96
  dim_mult: tuple[int, ...] = (1, 2, 4, 4)
  num_res_blocks: int = 2
  temporal_down: tuple[bool, ...] = (False, True, True)
  z_dim: int = 16
  patch: int = 1
  latent_mean: tuple[float, ...] = ()
  latent_std: tuple[float, ...] = ()
  conv_form: str = 'auto'
  decode_dtype: str = 'float32'
  large_frames: bool = False

  @property
  def temporal_stride(self) -> int:
    """Pixel frames per latent after the first."""
    return 2 ** sum(self.temporal_down)

  @property
  def spatial_stride(self) -> int:
    """Pixels per latent, in each direction."""
    return self.patch * 2 ** len(self.temporal_down)


class Middle(nn.Module):
  """Residual block, attention within each frame, residual block."""

  features: int
  form: str

  @nn.compact
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """Maps `BTHWC` to the same shape."""
    x = ResidualBlock(self.features, self.form, name='res0')(x, conv_cache)
    x = FrameAttention(name='attention')(x)
    return ResidualBlock(self.features, self.form, name='res1')(x, conv_cache)


class Encoder(nn.Module):
  """Pixels to the moments of the latents."""

  config: VAEConfig

  @nn.compact
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """Maps `BTHWC` to `BFhw[2 z]`."""
    c = self.config
    x = CausalConv(c.base_dim, form=c.conv_form, name='conv_in')(x, conv_cache)
    for i, mult in enumerate(c.dim_mult):
      for j in range(c.num_res_blocks):
        block = ResidualBlock(
          c.base_dim * mult, c.conv_form, name=f'stage{i}_res{j}'
        )
        x = block(x, conv_cache)
      if i < len(c.temporal_down):
        x = Downsample(c.temporal_down[i], name=f'stage{i}_down')(x, conv_cache)
    x = Middle(x.shape[-1], c.conv_form, name='middle')(x, conv_cache)
    x = nn.silu(ChannelNorm(name='norm_out')(x))
    return CausalConv(2 * c.z_dim, form=c.conv_form, name='conv_out')(
      x, conv_cache
    )


class Decoder(nn.Module):
  """Latents to pixels."""

  config: VAEConfig

  @nn.compact
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """Maps `BFhwz` to `BTHW[3 patch^2]`."""
    c = self.config
    width = c.base_dim * c.dim_mult[-1]
    x = CausalConv(width, form=c.conv_form, name='conv_in')(x, conv_cache)
    x = Middle(width, c.conv_form, name='middle')(x, conv_cache)
    # After these stages there are as many frames as there will be.
    timed = 1 + int(max(np.flatnonzero(c.temporal_down[::-1]), default=-1))
    for i in range(timed):
      x = self._stage(i, x, conv_cache)
    if not c.large_frames or conv_cache.first:
      return self._rest(timed, x, conv_cache)

    def one(decoder, cache, inputs):
      frame, number = inputs
      own = FrameConvCache(cache, number)
      y = decoder._rest(timed, frame[:, None], own)
      return own.arrays(), y[:, 0]

    scan = nn.scan(
      one,
      variable_broadcast='params',
      split_rngs={'params': False},
      in_axes=((1, 0),),
      out_axes=1,
    )
    cache, x = scan(self, conv_cache.rest(), (x, jnp.arange(x.shape[1])))
    conv_cache.extend(cache)
    return x

  def _stage(self, i: int, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """Residual blocks of one size, then twice the size, but for the last."""
    c = self.config
    for j in range(c.num_res_blocks + 1):
      block = ResidualBlock(
        c.base_dim * c.dim_mult[::-1][i], c.conv_form, name=f'stage{i}_res{j}'
      )
      x = block(x, conv_cache)
    if i < len(c.temporal_down):
      temporal = c.temporal_down[::-1][i]
      upsample = Upsample(temporal, c.large_frames, name=f'stage{i}_up')
      x = upsample(x, conv_cache)
    return x

  def _rest(self, first: int, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """The stages from `first` on, to pixels."""
    c = self.config
    for i in range(first, len(c.dim_mult)):
      x = self._stage(i, x, conv_cache)
    x = nn.silu(ChannelNorm(name='norm_out')(x))
    channels = 3 * c.patch**2
    return CausalConv(channels, form=c.conv_form, name='conv_out')(
      x, conv_cache
    )


class VAE(nn.Module):
  """Encodes and decodes, whole or in chunks with an explicit cache."""

  config: VAEConfig

  def setup(self):
    """Names follow the two halves; 1x1x1 convolutions join them."""
    self.encoder = Encoder(self.config)
    self.decoder = Decoder(self.config)
    self.to_moments = nn.Dense(2 * self.config.z_dim)
    self.from_latents = nn.Dense(self.config.z_dim)

  def __call__(
    self, video: Video, key: jax.Array | None = None, noise: float = 0.0
  ):
    """Reconstructs `BTHW3`; with a key the latents are sampled (training).

    Args:
      video: pixels in [-1, 1].
      key: of the noise; None decodes the means.
      noise: most that is added to a clip's latents, as a share of their
        standard deviation; each clip draws its own. What a student makes is
        off too, and a decoder that has seen it forgives more.

    Returns:
      Pixels, mu `BFhwz` and logvar `BFhwz`, all unclipped.
    """
    mu, logvar, _ = self.moments(video)
    z = mu
    if key is not None:
      sigma = jnp.exp(0.5 * logvar)
      if noise:
        rows = (len(mu), 1, 1, 1, 1)
        share = jax.random.uniform(jax.random.fold_in(key, 1), rows)
        spread = mu.std((0, 1, 2, 3), keepdims=True)
        sigma = jnp.hypot(sigma, noise * share * spread)
      z = mu + sigma * jax.random.normal(key, mu.shape, mu.dtype)
    frames, _ = self._decode_raw(z, None)
    return frames, mu, logvar

  def moments(self, video: Video, cache: Cache | None = None):
    """Mean and log-variance of the raw latents, and the cache."""
    stride = self.config.temporal_stride
    if cache is None:
      timeline.num_latents(video.shape[1], stride)
    elif video.shape[1] % stride:
      raise ValueError(
        f'a later chunk must hold a multiple of {stride} frames, '
        f'this one has {video.shape[1]}'
      )
    conv_cache = ConvCache(cache)
    p = self.config.patch
    x = rearrange(video, 'b t (h p) (w q) c -> b t h w (c q p)', p=p, q=p)
    mu, logvar = jnp.split(
      self.to_moments(self.encoder(x, conv_cache)), 2, axis=-1
    )
    return mu, jnp.clip(logvar, -30.0, 20.0), conv_cache.arrays()

  def encode(self, video: Video, cache: Cache | None = None):
    """Pixels `BTHW3` in [-1, 1] to normalised latents `BFhwz`, and cache."""
    mu, _, cache = self.moments(video, cache)
    mean, std = self._statistics()
    return (mu - mean) / std, cache

  def decode(self, latents: Latents, cache: Cache | None = None):
    """Normalised latents `BFhwz` to pixels `BTHW3` in [-1, 1], and cache."""
    mean, std = self._statistics()
    raw = (latents * std + mean).astype(latents.dtype)
    frames, cache = self._decode_raw(raw, cache)
    return jnp.clip(frames, -1.0, 1.0), cache

  def _decode_raw(self, z: jax.Array, cache: Cache | None):
    conv_cache = ConvCache(cache)
    x = self.decoder(self.from_latents(z).astype(z.dtype), conv_cache)
    p = self.config.patch
    x = rearrange(x, 'b t h w (c q p) -> b t (h p) (w q) c', p=p, q=p)
    return x, conv_cache.arrays()

  def _statistics(self) -> tuple[jax.Array, jax.Array]:
    """Per-channel mean and std, applied once, here and nowhere else."""
    c = self.config
    mean = jnp.asarray(c.latent_mean or (0.0,) * c.z_dim, jnp.float32)
    std = jnp.asarray(c.latent_std or (1.0,) * c.z_dim, jnp.float32)
    shape = (1, 1, 1, 1, c.z_dim)
    return mean.reshape(shape), std.reshape(shape)


def latent_grid(config: VAEConfig, height: int, width: int) -> tuple[int, int]:
  """Latent rows and columns of a video; UserError if they do not divide."""
  stride = config.spatial_stride
  if height % stride or width % stride:
    raise UserError(
      f'{height}x{width} pixels are not a multiple of {stride}; the nearest '
      f'size is {math.ceil(height / stride) * stride}x'
      f'{math.ceil(width / stride) * stride}.'
    )
  return height // stride, width // stride
