"""Clips as the records that stages train on, in constant device memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.sampling.decode import Codec


class ClipRecorder:
  """Adds to clips what students need beside them (see `data.latents`)."""

  def __init__(self, config: VAEConfig, params: Any, windows: Sequence[slice]):
    """Of a VAE, for anchors that stand for these frames."""
    self._codec, self._params = Codec(config), params
    self._windows = windows
    self._mean = np.asarray(config.latent_mean or 0.0)
    self._std = np.asarray(config.latent_std or 1.0)

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Pixels uint8 `[1, T, H, W, 3]` to latents `[N, h, w, C]`."""
    return self._codec.encode_clip(self._params, video)[0]

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
  ) -> dict[str, np.ndarray]:
    """A clip's arrays, float16, before normalisation.

    Args:
      latents: of the clip, normalised, `[N, h, w, C]`.
      video: its pixels uint8 `[1, T, H, W, 3]`.
      **more: arrays in the space of the latents.
    """
    arrays = {'latents': latents, **more}
    arrays['last_image'] = self.encode(video[:, -1:])
    if self._windows:
      parts = [self.encode(video[:, window]) for window in self._windows]
      arrays['anchors'] = np.stack(parts)
    return {
      name: (np.asarray(array) * self._std + self._mean).astype(np.float16)
      for name, array in arrays.items()
    }
