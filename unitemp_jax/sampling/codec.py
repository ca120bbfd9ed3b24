"""Pixels uint8 to latents and back, whole batches or clips piece by piece."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.models import vae3d

_PIECE = 16  # frames that are encoded at a time, after the first


class Codec:
  """The VAE's programs over bytes; parameters are given with every call.

  With `large_frames` whole clips run latent by latent too: two programs.

  Attributes:
    piece: frames of a clip that are encoded at a time, after the first.
    decode_piece: (params, latents, memory) -> frames, memory: one program,
      which takes the memory over.
    encode_piece: likewise, of pixels to latents.
  """

  def __init__(self, config: vae3d.VAEConfig):
    """Compiles nothing yet."""
    self.config = config
    self._vae = vae3d.VAE(config)
    self.piece = config.temporal_stride if config.large_frames else _PIECE
    self._decode_whole = jax.jit(self._decode_whole_fn)
    self._decode = jax.jit(self._decode_fn, donate_argnames='memory')
    self._encode = jax.jit(self._encode_fn)
    self.decode_piece = jax.jit(self._decode_piece_fn, donate_argnames='memory')
    self.encode_piece = jax.jit(self._encode_piece_fn, donate_argnames='memory')

  def check(self, frames: int, height: int, width: int) -> None:
    """Raises ValueError unless such a clip can be encoded by itself."""
    timeline.num_latents(frames, self.config.temporal_stride)
    vae3d.latent_grid(self.config, height, width)

  def latents_at_a_time(self, most: int) -> int:
    """How many of `most` latents are decoded at a time."""
    return 1 if self.config.large_frames else most

  def decode(self, params: Any, latents: Any) -> Any:
    """Latents `[B, F, h, w, C]` to bytes, from the start of a video."""
    if self.config.large_frames:
      return self.decode_chunk(params, latents, None)[0]
    return _checked(*self._decode_whole(params, latents))

  def decode_chunk(self, params: Any, latents: Any, memory: Any):
    """Latents to bytes, and the memory for those that follow.

    Args:
      params: of the VAE.
      latents: `[B, F, h, w, C]`.
      memory: of what came before, which is used up; None at the start.

    Raises:
      UserError: pixels came out that are not finite, which bytes cannot show.
    """
    size, parts = self.latents_at_a_time(latents.shape[1]), []
    for k in range(0, latents.shape[1], size):
      own = latents[:, k : k + size]
      frames, memory, finite = self._decode(params, own, memory)
      parts.append(_checked(frames, finite))
    if len(parts) == 1:
      return parts[0], memory
    return np.concatenate([np.asarray(part) for part in parts], axis=1), memory

  def encode(self, params: Any, video: Any) -> Any:
    """Clips `[B, 1 + 4k, H, W, 3]` of bytes to latents."""
    if self.config.large_frames:
      return self.encode_clip(params, video)
    return self._encode(params, video)

  def encode_clip(self, params: Any, video: Any) -> np.ndarray:
    """Clips `[B, 1 + 4k, H, W, 3]` to latents, in constant device memory.

    Longer ones run in pieces of one length; what the last one is filled up
    with comes later in time and changes nothing.
    """
    if video.shape[1] == 1:
      return np.asarray(self._encode(params, video))
    stride = self.config.temporal_stride
    memory, parts = None, []
    # The first frame alone, or the first piece with it.
    start = 1 if self.config.large_frames else 1 + self.piece
    for first, end in _pieces(video.shape[1], start, self.piece):
      own = video[:, first:end]
      short = (self.piece if first else start) - own.shape[1]
      own = np.concatenate([own, np.repeat(own[:, -1:], short, axis=1)], 1)
      latents, memory = self.encode_piece(params, own, memory)
      kept = latents.shape[1] - short // stride
      parts.append(np.asarray(latents)[:, :kept])
    return np.concatenate(parts, axis=1)

  def _decode_whole_fn(self, params, latents):
    frames, _, finite = self._decode_fn(params, latents, None)
    return frames, finite

  def _decode_piece_fn(self, params, latents, memory):
    return self._decode_fn(params, latents, memory)[:2]

  def _decode_fn(self, params, latents, memory):
    frames, memory = self._vae.apply(
      {'params': params},
      latents.astype(self.config.decode_dtype),
      memory,
      method='decode',
    )
    bytes_ = jnp.round((frames.astype(jnp.float32) + 1.0) * 127.5)
    return bytes_.astype(jnp.uint8), memory, jnp.isfinite(frames).all()

  def _encode_fn(self, params, video):
    return self._encode_piece_fn(params, video, None)[0]

  def _encode_piece_fn(self, params, video, memory):
    pixels = video.astype(jnp.float32) / 127.5 - 1.0
    return self._vae.apply({'params': params}, pixels, memory, method='encode')


def _checked(frames: jax.Array, finite: jax.Array) -> jax.Array:
  if not bool(finite):
    raise UserError(
      'the pixels of a block came out with numbers that are not finite, and '
      'show nothing; check the weights of the VAE, or let it compute in '
      'float32.'
    )
  return frames


def _pieces(frames: int, start: int, piece: int) -> list[tuple[int, int]]:
  """Cuts 1 + 4k frames into the first `start` and `piece` each."""
  cuts = [0, *range(start, frames, piece), frames]
  return list(itertools.pairwise(cuts))
