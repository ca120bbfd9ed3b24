"""Given frames and clips at either end: from files to latents and back."""

import dataclasses
from pathlib import Path

import numpy as np

from unitemp_jax.data import video_io
from unitemp_jax.errors import UserError

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

  def latents(self, encode) -> np.ndarray | None:
    """Latents of both ends in the order of `Plan.preloaded`.

    Each clip is encoded by itself, so that its first latent is an image latent
    (method.md section 4).
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


def read_end(path: str | Path, height: int, width: int, fps: float):
  """Reads an image or a clip as `[1, n, H, W, 3]`, resized and cropped.

  Raises:
    UserError: unreadable, or a clip that has not 1 + 4k frames.
  """
  path = Path(path)
  if path.suffix.lower() in _IMAGES:
    frames = video_io.read_image(path)[None]
  else:
    frames, _ = video_io.read_video(path, fps)
  if (len(frames) - 1) % 4:
    keep = 1 + 4 * ((len(frames) - 1) // 4)
    raise UserError(
      f'{path} has {len(frames)} frames at {fps:g} per second; a given clip '
      f'must have 1 + 4k, for example {keep}: cut it first.'
    )
  return video_io.fit(frames, height, width)[None]
