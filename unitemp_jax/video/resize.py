"""Resizes frames, uint8 RGB `[..., H, W, 3]`."""

import numpy as np
from PIL import Image


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes to cover height x width and crops the centre.

  Sizes that are a multiple of the target by a whole number are averaged, which
  is exactly the inverse of the enlarging `write_video` does.

  Args:
    frames: uint8 [..., H, W, 3].
    height: pixels.
    width: pixels.

  Returns:
    uint8 [..., height, width, 3].
  """
  h, w = frames.shape[-3:-1]
  if (h, w) == (height, width):
    return frames
  scale = max(height / h, width / w)
  box_h, box_w = min(h, height / scale), min(w, width / scale)
  top, left = (h - box_h) / 2, (w - box_w) / 2
  whole = h % height == 0 and h * width == w * height
  how = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
  fitted = [
    np.asarray(
      Image.fromarray(frame).resize(
        (width, height), how, box=(left, top, left + box_w, top + box_h)
      )
    )
    for frame in np.ascontiguousarray(frames).reshape(-1, h, w, 3)
  ]
  return np.stack(fitted).reshape(*frames.shape[:-3], height, width, 3)
