"""Reads whole video files, their tags, and pictures, as uint8 RGB.

What changes how the pixels of a file are meant is heeded: of videos see
`decode`; of pictures the orientation and the colour profile that a camera
wrote, more than 8 bits, transparency, palettes and shades of grey.
"""

import contextlib
import io
import json
import os
from typing import Any

import av
import numpy as np
from PIL import Image, ImageCms, ImageOps

from unitemp_jax.errors import UserError
from unitemp_jax.video import decode

Path = str | os.PathLike[str]


def read_video(
  path: Path, fps: float | None = None
) -> tuple[np.ndarray, float]:
  """Reads a whole video file.

  Args:
    path: mp4, mov, webm, gif or whatever else PyAV reads.
    fps: frames per second to resample to, by nearest time; None keeps all.

  Returns:
    uint8 [T, H, W, 3] and its frames per second.

  Raises:
    UserError: the file is missing, damaged or holds no video.
  """
  if fps is not None and fps <= 0:
    raise UserError(f'fps must be positive, got {fps}.')
  decoded = decode.decode(path)
  if fps is None:
    frames = [pixels for _, _, pixels in decoded]
  else:
    frames = list(decode.resample(decoded, fps))
  if len({frame.shape for frame in frames}) > 1:
    raise UserError(f'The picture size changes within {os.fspath(path)}.')
  return np.stack(frames), float(fps or decode.video_fps(path))


def read_metadata(path: Path) -> dict[str, Any]:
  """Reads the tags of a video file; JSON values come back as such.

  Raises:
    UserError: the file is missing or damaged.
  """
  with decode.reading(path), av.open(os.fspath(path)) as container:
    tags = dict(container.metadata)
  for name, text in tags.items():
    with contextlib.suppress(ValueError):
      tags[name] = json.loads(text)
  return tags


def read_image(path: Path) -> np.ndarray:
  """Reads a PNG, JPEG or other image file.

  Returns:
    uint8 [H, W, 3]; turned as the camera says, in sRGB, transparency on black.

  Raises:
    UserError: the file is missing or damaged.
  """
  with decode.reading(path), Image.open(path) as image:
    image = _in_srgb(_in_8_bits(ImageOps.exif_transpose(image)))
    if image.has_transparency_data:
      image = image.convert('RGBA')
      black = Image.new('RGBA', image.size, (0, 0, 0, 255))
      image = Image.alpha_composite(black, image)
    return np.asarray(image.convert('RGB'))


def _in_8_bits(image: Image.Image) -> Image.Image:
  """Greys of 16 bits, or of fractions of white, in 8; others as they are."""
  if not image.mode.startswith(('I', 'F')):
    return image
  values = np.asarray(image).astype(np.float64)
  if image.mode != 'F':
    values = values / 65535
  if not (values.min() >= 0 and values.max() <= 1):
    raise ValueError('its values lie outside black and white')
  return Image.fromarray(np.rint(255 * values).astype(np.uint8))


def _in_srgb(image: Image.Image) -> Image.Image:
  """Converts colours that are meant by another profile than sRGB."""
  data = image.info.get('icc_profile')
  modes = {'RGB': 'RGB', 'RGBA': 'RGBA', 'L': 'RGB', 'CMYK': 'RGB'}
  if not data or image.mode not in modes:
    return image
  with contextlib.suppress(ImageCms.PyCMSError, OSError):  # It says nothing.
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    if 'srgb' not in ImageCms.getProfileDescription(profile).lower():
      srgb, mode = ImageCms.createProfile('sRGB'), modes[image.mode]
      made = ImageCms.profileToProfile(image, profile, srgb, outputMode=mode)
      return made or image
  return image
