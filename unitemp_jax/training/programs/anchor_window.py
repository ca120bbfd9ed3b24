"""The frames that anchors stand for, out of a rollout, latent by latent.

What anchors should be is the encoding of a few frames by themselves. A causal
decoder needs all latents before them, but never more than one at a time, and
none after them: a whole video of full size would not fit beside a training.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitemp_jax.models.vae3d import VAE
from unitemp_jax.parallel.mesh import split_rows


def decoded(
  vae: VAE, params: Any, latents: jax.Array, first: jax.Array, count: int
) -> jax.Array:
  """The last frame of latent `first` and all frames of the `count - 1` after.

  Equals that part of decoding everything. No gradient flows.

  Args:
    vae: the VAE.
    params: its weights; in bfloat16 all of it is computed so.
    latents: normalised, `[B, N, h, w, C]`.
    first: int scalar, at most N - `count`.
    count: latents.

  Returns:
    Pixels `[B, stride (count - 1) + 1, H, W, 3]`.
  """
  dtype = jax.tree.leaves(params)[0].dtype
  latents = lax.stop_gradient(latents).astype(dtype)
  stride = vae.config.temporal_stride

  def decode(latent, memory):
    return vae.apply({'params': params}, latent, memory, method='decode')

  frame, memory = decode(latents[:, :1], None)
  # The first latent is one frame, where later ones are `stride`.
  padded = jnp.pad(
    frame, ((0, 0), (stride - 1, 0)) + ((0, 0),) * (frame.ndim - 2)
  )
  held = jnp.zeros((frame.shape[0], count, *padded.shape[1:]), frame.dtype)
  held = split_rows(held.at[:, 0].set(padded))

  def body(carry, number):
    def taken(carry):
      held, memory = carry
      latent = lax.dynamic_slice_in_dim(latents, number, 1, axis=1)
      frames, memory = decode(latent, memory)
      place = jnp.where(number >= first, number - first, count)
      return split_rows(held.at[:, place].set(frames, mode='drop')), memory

    return lax.cond(number < first + count, taken, lambda c: c, carry), None

  later = jnp.arange(1, latents.shape[1])
  (held, _), _ = lax.scan(body, (held, memory), later)
  frames = held.reshape(held.shape[0], count * stride, *held.shape[3:])
  return frames[:, stride - 1 :]


def encoded(vae: VAE, params: Any, video: jax.Array) -> jax.Array:
  """Latents of a short video, encoded `stride` frames at a time."""
  stride = vae.config.temporal_stride

  def encode(frames, memory):
    return vae.apply({'params': params}, frames, memory, method='encode')

  latent, memory = encode(video[:, :1], None)
  parts = [latent]
  for start in range(1, video.shape[1], stride):
    latent, memory = encode(video[:, start : start + stride], memory)
    parts.append(latent)
  return jnp.concatenate(parts, axis=1)


def target(
  vae: VAE,
  params: Any,
  latents: jax.Array,
  first: jax.Array,
  count: int,
  by_latent: bool,
) -> jax.Array:
  """Returns what windowed anchors should be: their frames, encoded alone.

  Args:
    vae: the VAE.
    params: its weights.
    latents: the timeline, `[B, N, h, w, C]`.
    first: int scalar, where the anchors begin.
    count: P.
    by_latent: decode latent by latent, in a fraction of the memory.

  Returns:
    `[B, P, h, w, C]`; no gradient flows.
  """
  if by_latent:
    window = decoded(vae, params, latents, first, count)
    return jax.lax.stop_gradient(encoded(vae, params, window))
  stride = vae.config.temporal_stride
  video, _ = vae.apply({'params': params}, latents, method='decode')
  window = lax.dynamic_slice_in_dim(
    video, stride * first, stride * (count - 1) + 1, axis=1
  )
  made, _ = vae.apply({'params': params}, window, method='encode')
  return jax.lax.stop_gradient(made)
