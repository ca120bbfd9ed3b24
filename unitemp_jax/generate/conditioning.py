"""Given frames and clips: from what users have to latents."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Request, places
from unitemp_jax.video.read import read_image, read_video

Encode = Callable[[np.ndarray], np.ndarray]  # clips [B, n, ..] to latents
Source = str | Path | Image.Image | np.ndarray
_IMAGES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')


@dataclasses.dataclass(frozen=True)
class Ends:
  """What is given at the ends of the timeline, uint8 `[B, n, H, W, 3]`.

  n is 1 for an image, or 1 + 4k for a clip; None for an open end.
  """

  first: np.ndarray | None = None
  last: np.ndarray | None = None

  @property
  def counts(self) -> tuple[int, int]:
    """Latents that are given at each end."""
    first, last = (
      0 if clip is None else 1 + (clip.shape[1] - 1) // 4
      for clip in (self.first, self.last)
    )
    return first, last

  def latents(self, encode: Encode) -> np.ndarray | None:
    """Latents of both ends in the order of `Plan.preloaded`.

    Each clip is encoded by itself, so that its first latent is an image latent
    (`unitemp_jax/README.md`, Given frames).
    """
    parts = [encode(c) for c in (self.first, self.last) if c is not None]
    return np.concatenate(parts, axis=1) if parts else None

  def paste(self, video: np.ndarray) -> np.ndarray:
    """The video with the given frames in place, pixel for pixel."""
    video = video.copy()
    if self.first is not None:
      video[:, : self.first.shape[1]] = self.first
    if self.last is not None:
      video[:, video.shape[1] - self.last.shape[1] :] = self.last
    return video


def latents(requests: Sequence[Request], encode: Encode) -> np.ndarray | None:
  """Latents given to a batch, in the order of `Plan.preloaded`.

  Args:
    requests: of one plan, with frames given at the same places.
    encode: of the VAE; every clip is encoded by itself.

  Returns:
    `[B, K, h, w, C]`, or None if nothing is given.
  """
  first = requests[0]
  if not first.given:
    return None
  clips = [
    encode(np.stack([request.given[i].video for request in requests]))
    for i in range(len(first.given))
  ]
  order = places(first.plan, first.given)
  return np.stack([clips[clip][:, k] for clip, k in order], axis=1)


def read_frames(source: Source, fps: float) -> np.ndarray:
  """Frames of an image or a clip, uint8 `[n, H, W, 3]`.

  Args:
    source: a path of an image or video file, a PIL image, or an array
      `[H, W, 3]` or `[n, H, W, 3]`, uint8 or floats in [0, 1].
    fps: frames per second that video files are resampled to.

  Raises:
    UserError: unreadable, or no picture at all.
  """
  if isinstance(source, str | Path):
    path = Path(source)
    if path.suffix.lower() in _IMAGES:
      return read_image(path)[None]
    return read_video(path, fps)[0]
  if isinstance(source, Image.Image):
    return np.asarray(source.convert('RGB'))[None]
  frames = np.asarray(source)
  if frames.dtype.kind == 'f' and frames.size:
    if frames.min() < 0 or frames.max() > 1:
      raise UserError('frames given as floats must lie in [0, 1].')
    frames = np.round(frames * 255).astype(np.uint8)
  frames = frames[None] if frames.ndim == 3 else frames
  if frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] != 3:
    raise UserError(
      'given frames must be an image [H, W, 3] or a clip [n, H, W, 3], not '
      f'an array of shape {list(frames.shape)}.'
    )
  if frames.dtype != np.uint8:
    raise UserError(
      f'given frames must be uint8 or floats in [0, 1], not {frames.dtype}.'
    )
  return frames
