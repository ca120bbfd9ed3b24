"""Causal 3-D convolution with an explicit cache of earlier frames.

Time is padded on the left only. What would be padding is the layer's cache of
earlier frames when a video is processed in chunks, as in Wan's VAE
(Wan-Video/Wan2.1, `wan/modules/vae.py`, `feat_cache`): every layer reads its
past from a `ConvCache` and leaves the frames that the next chunk needs on it. A
fresh cache supplies zeros, which is the padding of Wan's VAE.

XLA's direct 3-D convolution on CPU is 5 to 14 times slower than one 2-D
convolution with the time taps folded into the channels; on TPU and GPU the
direct form is the natural one. Both compute the same sums.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from unitemp_jax.parallel import mesh_context
from unitemp_jax.parallel.mesh_context import split_rows


class ConvCache:
  """Causal conv cache: what all layers of one pass keep, in visiting order.

  `first` is True while the chunk starts the video (no cache was given).
  Reading beyond the end or leaving entries unread is a programming error.
  """

  def __init__(self, cache: tuple[jax.Array, ...] | None):
    self.first = cache is None
    self._given = None if cache is None else list(cache)
    self.kept: list[jax.Array] = []

  def past(self, like: jax.Array, frames: int) -> jax.Array:
    """The `frames` frames before `like` `BTHWC`; zeros at the start."""
    if self._given is None:
      shape = (like.shape[0], frames, *like.shape[2:])
      return jnp.zeros(shape, like.dtype)
    return self.own()

  def own(self) -> jax.Array:
    """The cache of the layer that is visited."""
    return self.rest()[0]

  def keep(self, history: jax.Array, frames: int) -> None:
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

  def past(self, like: jax.Array, frames: int) -> jax.Array:
    """Two frames `B2HWC` in their order."""
    del like, frames
    cache = self.own()
    both = (self._older, 1 - self._older)
    parts = [lax.dynamic_index_in_dim(cache, place, 1) for place in both]
    return jnp.concatenate(parts, axis=1)

  def keep(self, history: jax.Array, frames: int) -> None:
    """Remembers the last frame in the place of the older one."""
    del frames
    cache = lax.dynamic_update_slice_in_dim(
      self.own(), history[:, -1:], self._older, 1
    )
    self.kept.append(split_rows(cache))


def conv_form(form: str) -> str:
  """Resolves 'auto' to the form that suits what is computed on."""
  if form != 'auto':
    return form
  return 'folded' if mesh_context.platform() == 'cpu' else 'direct'


def valid_time_conv(x: jax.Array, kernel: jax.Array, form: str) -> jax.Array:
  """Convolves `BTHWC` with `[kt, kh, kw, I, O]`: valid in time, same in space.

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
  t_out = t - kt + 1
  taps = [x[:, i : i + t_out] for i in range(kt)]
  folded = jnp.concatenate(taps, axis=-1).reshape(-1, h, w, kt * c_in)
  kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * c_in, c_out)
  y = lax.conv_general_dilated(
    folded, kernel, (1, 1), pad, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  return y.reshape(b, t_out, h, w, c_out)


class CausalConv(nn.Module):
  """Causal convolution `BTHWC` -> `BTHWO`; `kernel_size` is (kt, kh, kw)."""

  features: int
  kernel_size: tuple[int, int, int] = (3, 3, 3)
  form: str = 'auto'
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array, conv_cache: ConvCache) -> jax.Array:
    """Convolves one chunk; kt - 1 frames are read from the cache and left."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    reach = self.kernel_size[0] - 1
    if reach:
      x = jnp.concatenate([conv_cache.past(x, reach), x], axis=1)
      conv_cache.keep(x, reach)
    y = valid_time_conv(split_rows(x), kernel.astype(x.dtype), self.form)
    return y + bias.astype(x.dtype).reshape(1, 1, 1, 1, -1)
