"""Pixels uint8 to latents and back, whole batches or clips piece by piece."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.models import vae3d

PIECE = 16  # frames that are encoded at a time, after the first


class Codec:
  """The VAE's programs over bytes; parameters are given with every call."""

  def __init__(self, config: vae3d.VAEConfig):
    """Compiles nothing yet."""
    self.config = config
    self._vae = vae3d.VAE(config)
    self.decode = jax.jit(self._decode_fn)
    self.encode = jax.jit(self._encode_fn)
    self.decode_chunk = jax.jit(self._decode_chunk_fn)
    self.encode_chunk = jax.jit(self._encode_chunk_fn)

  def check(self, frames: int, height: int, width: int) -> None:
    """Raises ValueError unless such a clip can be encoded by itself."""
    vae3d.num_latents(frames, self.config.temporal_stride)
    vae3d.latent_grid(self.config, height, width)

  def encode_clip(self, params: Any, video: Any) -> np.ndarray:
    """One clip `[1, 1 + 4k, H, W, 3]` to latents, in constant device memory.

    Longer clips run in pieces of one length; what the last one is filled up
    with comes later in time and changes nothing.
    """
    if video.shape[1] == 1:
      return np.asarray(self.encode(params, video))
    stride = self.config.temporal_stride
    memory, parts = None, []
    for first, end in _pieces(video.shape[1]):
      own = video[:, first:end]
      length = PIECE + (first == 0)
      short = length - own.shape[1]
      own = np.concatenate([own, np.repeat(own[:, -1:], short, axis=1)], 1)
      latents, memory = self.encode_chunk(params, own, memory)
      kept = latents.shape[1] - short // stride
      parts.append(np.asarray(latents)[:, :kept])
    return np.concatenate(parts, axis=1)

  def _decode_fn(self, params, latents):
    return self._decode_chunk_fn(params, latents, None)[0]

  def _decode_chunk_fn(self, params, latents, memory):
    frames, memory = self._vae.apply(
      {'params': params}, latents, memory, method='decode'
    )
    return jnp.round((frames + 1.0) * 127.5).astype(jnp.uint8), memory

  def _encode_fn(self, params, video):
    return self._encode_chunk_fn(params, video, None)[0]

  def _encode_chunk_fn(self, params, video, memory):
    pixels = video.astype(jnp.float32) / 127.5 - 1.0
    return self._vae.apply({'params': params}, pixels, memory, method='encode')


def _pieces(frames: int) -> list[tuple[int, int]]:
  """Cuts 1 + 4k frames into the first `PIECE` + 1 and `PIECE` each."""
  cuts = [0, *range(PIECE + 1, frames, PIECE), frames]
  return list(itertools.pairwise(cuts))
