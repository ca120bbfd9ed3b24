"""Clips as the records that stages train on, in constant device memory."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from unitemp_jax.data.latents import DTYPES
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.parallel.mesh import make_mesh, put_batch
from unitemp_jax.sampling.decode import Codec


class ClipRecorder:
  """Adds to clips what students need beside them (see `data.latents`).

  Batches are split over this host's devices where they divide.
  """

  def __init__(
    self,
    config: VAEConfig,
    params: Any,
    windows: Sequence[slice],
    dtype: str = 'float16',
  ):
    """Of a VAE, for anchors that stand for these frames; `dtype` of records."""
    self._codec, self._params = Codec(config), params
    self._mesh = make_mesh({'data': -1}, jax.local_devices())
    self._windows, self._dtype = windows, DTYPES[dtype]
    self._mean = np.asarray(config.latent_mean or 0.0)
    self._std = np.asarray(config.latent_std or 1.0)

  @functools.cached_property
  def _everywhere(self) -> Any:
    """The weights on each of the devices."""
    replicated = NamedSharding(self._mesh, PartitionSpec())
    return jax.device_put(self._params, replicated)

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Pixels uint8 `[B, T, H, W, 3]` to latents `[B, N, h, w, C]`."""
    if self._mesh.size > 1 and len(video) % self._mesh.size == 0:
      video = put_batch(video, self._mesh)
      return self._codec.encode_clip(self._everywhere, video)
    return self._codec.encode_clip(self._params, video)

  def decode(self, latents: np.ndarray) -> np.ndarray:
    """Latents `[N, h, w, C]` to pixels `[1, T, H, W, 3]`, one at a time."""
    frames, memory = [], None
    for latent in latents:
      part, memory = self._codec.decode_chunk(
        self._params, latent[None, None], memory
      )
      frames.append(np.asarray(part))
    return np.concatenate(frames, axis=1)

  def record(
    self, latents: np.ndarray, video: np.ndarray, **more: np.ndarray
  ) -> list[dict[str, np.ndarray]]:
    """The arrays of clips, before normalisation.

    Args:
      latents: of the clips, normalised, `[B, N, h, w, C]`.
      video: their pixels uint8 `[B, T, H, W, 3]`.
      **more: arrays in the space of the latents, `[B, ...]`.
    """
    arrays = {'latents': latents, **more}
    arrays['last_image'] = self.encode(video[:, -1:])
    if self._windows:
      parts = [self.encode(video[:, window]) for window in self._windows]
      arrays['anchors'] = np.stack(parts, axis=1)
    stored = {
      name: (np.asarray(array) * self._std + self._mean).astype(self._dtype)
      for name, array in arrays.items()
    }
    return [
      {name: array[i] for name, array in stored.items()}
      for i in range(len(video))
    ]
