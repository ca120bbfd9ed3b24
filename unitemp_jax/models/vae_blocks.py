"""Building blocks of the causal 3-D VAE of Wan 2.1, layout BTHWC.

Convolutions are causal: time is padded on the left only, by zeros at the start
of a video, as in Wan's VAE, and by the layer's cache of earlier frames in later
chunks (Wan-Video/Wan2.1, `wan/modules/vae.py`, `feat_cache`). Every layer reads
its past from a `ConvCache` and leaves the frames that the next chunk needs on
it.
"""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from unitemp_jax.models.params import param
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import split_rows
from unitemp_jax.shapes import AnyArray


class ConvCache:
  """Causal conv cache: what all layers of one pass keep, in visiting order.

  `first` is True while the chunk starts the video (no cache was given).
  Reading beyond the end or leaving entries unread is a programming error.
  """

  def __init__(self, cache: tuple[jax.Array, ...] | None):
    self.first = cache is None
    self._given = None if cache is None else list(cache)
    self.kept: list[jax.Array] = []

  def past(self, like: AnyArray, frames: int) -> jax.Array:
    """The `frames` frames before `like` `BTHWC`; zeros at the start."""
    if self._given is None:
      shape = (like.shape[0], frames, *like.shape[2:])
      return jnp.zeros(shape, like.dtype)
    return self.own()

  def own(self) -> jax.Array:
    """The cache of the layer that is visited."""
    return self.rest()[0]

  def keep(self, history: AnyArray, frames: int) -> None:
    """Remembers the last `frames` frames of `history` `BTHWC`."""
    self.kept.append(split_rows(history[:, -frames:]))

  def rest(self) -> tuple[jax.Array, ...]:
    """The cache of the layers that have not been visited."""
    return tuple(self._given or ())[len(self.kept) :]

  def extend(self, cache: tuple[jax.Array, ...]) -> None:
    """Takes what the next layers leave, which ran on a cache of their own."""
    self.kept.extend(cache)

  def arrays(self) -> tuple[jax.Array, ...]:
    """What to hand to the next chunk."""
    if self._given is not None and len(self.kept) != len(self._given):
      raise ValueError(
        f'{len(self._given)} caches given, {len(self.kept)} layers read'
      )
    return tuple(self.kept)


class FrameConvCache(ConvCache):
  """The cache of one of an even number of frames that follow each other.

  Every layer remembers two frames, and the older one is overwritten where it
  lies: so a loop over frames needs no second cache. After an even number of
  frames they are in order again.
  """

  def __init__(self, cache: tuple[jax.Array, ...], number: jax.Array):
    """Before frame `number`, counted from 0."""
    super().__init__(cache)
    self._older = number % 2

  def past(self, like: AnyArray, frames: int) -> jax.Array:
    """Two frames `B2HWC` in their order."""
    del like, frames
    cache = self.own()
    both = (self._older, 1 - self._older)
    parts = [lax.dynamic_index_in_dim(cache, place, 1) for place in both]
    return jnp.concatenate(parts, axis=1)

  def keep(self, history: AnyArray, frames: int) -> None:
    """Remembers the last frame in the place of the older one."""
    del frames
    cache = lax.dynamic_update_slice_in_dim(
      self.own(), history[:, -1:], self._older, 1
    )
    self.kept.append(split_rows(cache))


_WIDE = 32  # channels from which on taps are not folded


def conv_form(form: str) -> str:
  """Resolves 'auto' to the form that suits what is computed on."""
  if form != 'auto':
    return form
  return 'folded' if device_mesh.platform() == 'cpu' else 'direct'


def valid_time_conv(x: AnyArray, kernel: AnyArray, form: str) -> jax.Array:
  """Convolves `BTHWC` with `[kt, kh, kw, I, O]`: valid in time, same in space.

  XLA's direct 3-D convolution on CPU is 5 to 14 times slower than 2-D ones:
  one with the time taps folded into the channels, or where channels are many,
  so that folding copies much, one for each tap. On TPU and GPU the direct form
  is the natural one. All compute the same sums.

  Returns `[B, T - kt + 1, H, W, O]`.
  """
  kt, kh, kw, c_in, c_out = kernel.shape
  pad = [(kh // 2, kh // 2), (kw // 2, kw // 2)]
  if conv_form(form) == 'direct':
    return lax.conv_general_dilated(
      x,
      kernel,
      (1, 1, 1),
      [(0, 0), *pad],
      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    )
  b, t, h, w, _ = x.shape
  dtype = x.dtype
  if device_mesh.platform() == 'cpu':  # Half precision is slower there.
    x, kernel = (a.astype(jnp.float32) for a in (x, kernel))
  t_out = t - kt + 1
  taps = [x[:, i : i + t_out] for i in range(kt)]

  def flat_conv(x, kernel):
    return lax.conv_general_dilated(
      x.reshape(-1, *x.shape[2:]),
      *(kernel, (1, 1), pad),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  if c_in >= _WIDE:
    parts = (flat_conv(*one) for one in zip(taps, kernel, strict=True))
    y = functools.reduce(operator.add, parts)
    return y.reshape(b, t_out, h, w, c_out).astype(dtype)
  kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * c_in, c_out)
  y = flat_conv(jnp.concatenate(taps, axis=-1), kernel)
  return y.reshape(b, t_out, h, w, c_out).astype(dtype)


class CausalConv(nn.Module):
  """Causal convolution `BTHWC` -> `BTHWO`; `kernel_size` is (kt, kh, kw)."""

  features: int
  kernel_size: tuple[int, int, int] = (3, 3, 3)
  form: str = 'auto'
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
    """Convolves one chunk; kt - 1 frames are read from the cache and left."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = param(self, 'kernel', self.kernel_init, shape)
    bias = param(self, 'bias', nn.initializers.zeros, (self.features,))
    reach = self.kernel_size[0] - 1
    if reach:
      x = jnp.concatenate([conv_cache.past(x, reach), x], axis=1)
      conv_cache.keep(x, reach)
    y = valid_time_conv(split_rows(x), kernel.astype(x.dtype), self.form)
    return y + bias.astype(x.dtype).reshape(1, 1, 1, 1, -1)


def fold_time(x: AnyArray) -> jax.Array:
  """Puts frames into the batch: `BTHWC` -> `(BT)HWC`."""
  return x.reshape(-1, *x.shape[2:])


def unfold_time(x: AnyArray, batch: int) -> jax.Array:
  """Undoes `fold_time`."""
  return x.reshape(batch, -1, *x.shape[1:])


class ChannelNorm(nn.Module):
  """L2-normalises channels and scales by sqrt(C) gamma (Wan's RMS_norm)."""

  @nn.compact
  def __call__(self, x: AnyArray) -> jax.Array:
    """Normalises the last axis, statistics in float32."""
    gamma = param(self, 'gamma', nn.initializers.ones, (x.shape[-1],))
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
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
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
  def __call__(self, x: AnyArray) -> jax.Array:
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
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
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
  def __call__(self, x: AnyArray, conv_cache: ConvCache) -> jax.Array:
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
