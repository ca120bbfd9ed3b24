"""Training the causal VAE: weighted reconstruction and a small KL term.

Most pixels of sparse footage are background, and a mean over pixels hardly
sees the rest. Pixels near something bright count `foreground` times more.
"""

import jax
import jax.numpy as jnp

from unitemp_jax.shapes import Video


def foreground_weight(
  video: Video, foreground: float, threshold: float = -0.8
) -> jax.Array:
  """Weights `BTHW1`, mean 1: pixels within 2 of a bright one weigh more."""
  bright = (video.max(-1, keepdims=True) > threshold).astype(video.dtype)
  near = jax.lax.reduce_window(
    bright, 0.0, jax.lax.max, (1, 1, 5, 5, 1), (1, 1, 1, 1, 1), 'SAME'
  )
  weight = 1.0 + (foreground - 1.0) * near
  return weight / weight.mean()


def cut(video: jax.Array, rng: jax.Array, frames: int) -> jax.Array:
  """Cuts clips to a length, half of them anywhere, the rest at their start.

  The first latent of a cut is an image latent of the middle of a clip, as it
  is in windowed anchors and in images that are given for later times.

  Args:
    video: `BTHW3`.
    rng: key.
    frames: length of the result, at most T.
  """
  keys = jax.random.split(rng)
  rows = video.shape[0]
  start = jax.random.randint(keys[0], (rows,), 0, video.shape[1] - frames + 1)
  start = jnp.where(jax.random.bernoulli(keys[1], 0.5, (rows,)), start, 0)
  return jax.vmap(
    lambda clip, first: jax.lax.dynamic_slice_in_dim(clip, first, frames)
  )(video, start)


def loss(
  params,
  batch: dict[str, jax.Array],
  rng: jax.Array,
  *,
  reconstruct,
  foreground: float = 4.0,
  l1: float = 0.5,
  kl: float = 1e-5,
  first: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted squared and absolute error plus KL to a unit Gaussian.

  Args:
    params: parameters of the VAE.
    batch: `video` uint8 or float in [-1, 1], `BTHW3`.
    rng: key for sampling the latents.
    reconstruct: (params, video, key) -> (pixels, mu, logvar).
    foreground: how much more a pixel near something bright weighs.
    l1: weight of the absolute error beside the squared one.
    kl: weight of the KL term per latent value.
    first: how much more the first frame weighs, which has a latent of its own.

  Returns:
    The loss and metrics; `psnr` is of the unweighted error, in dB.
  """
  video = to_unit(batch['video'])
  pixels, mu, logvar = reconstruct(params, video, rng)
  weight = foreground_weight(video, foreground)
  if first != 1.0:
    weight = weight.at[:, 0].multiply(first)
    weight /= weight.mean()
  error = pixels - video
  rec = (weight * (error**2 + l1 * jnp.abs(error))).mean()
  divergence = 0.5 * (mu**2 + jnp.exp(logvar) - 1.0 - logvar).mean()
  mse = ((jnp.clip(pixels, -1.0, 1.0) - video) ** 2).mean()
  psnr = 10.0 * jnp.log10(4.0 / jnp.maximum(mse, 1e-10))
  total = rec + kl * divergence
  return total, {
    'loss': total,
    'reconstruction': rec,
    'kl': divergence,
    'psnr': psnr,
  }


def to_unit(video: jax.Array) -> jax.Array:
  """uint8 pixels to float32 in [-1, 1]; floats pass through."""
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 127.5 - 1.0
  return video
