"""What makes a file a picture, and its pixels as uint8 RGB.

What is heeded: the orientation and the colour profile that a camera wrote, the
gamma and the colours that a PNG names, more than 8 bits, transparency, palettes
and grey.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

# Formats that Pillow reads as pictures; others, and animations, are videos.
_PICTURES = ('PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'AVIF', 'GIF')
_MOVING = ('GIF', 'AVIF')  # read as videos where they move
_BITS, _WHITE = 258, 262  # tags of TIFF: bits of a value, 0 if 0 is white


def is_picture(path: str | os.PathLike[str]) -> bool:
  """Whether the content of a file is one picture, whatever its name."""
  if not os.path.isfile(path):  # A pipe would wait for its writer.
    return False
  with warnings.catch_warnings(action='ignore'):
    try:
      with Image.open(path, formats=_PICTURES) as image:
        moves = getattr(image, 'is_animated', False)
        return not (moves and image.format in _MOVING)
    except UnidentifiedImageError:
      return False
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError):
      return True  # and `read_image` says what is wrong


def on_black(pixels: np.ndarray) -> np.ndarray:
  """RGB of RGB or RGBA, what is transparent on black."""
  if pixels.shape[-1] == 3:
    return pixels
  shares = pixels[..., 3:].astype(np.uint16)
  return ((pixels[..., :3] * shares + 127) // 255).astype(np.uint8)


def pixels(image: Image.Image) -> np.ndarray:
  """`[H, W, 3]`: upright, in sRGB and 8 bits, what is transparent on black."""
  about, tags = image.info, getattr(image, 'tag_v2', {})
  image = ImageOps.exif_transpose(image)
  alpha = None
  if image.mode.startswith(('I', 'F')):
    image, alpha = _in_8_bits(image, about.get('transparency'), tags)
  elif image.has_transparency_data:
    alpha = image.convert('RGBA').getchannel('A')
  if image.mode not in ('RGB', 'CMYK', 'L'):
    image = image.convert('L' if image.mode in ('1', 'LA', 'La') else 'RGB')
  gamma, profile = about.get('gamma'), about.get('icc_profile')
  if profile:
    image = _in_srgb(image, profile)
  elif gamma and 'srgb' not in about:
    image = _with_gamma(image, gamma)
  image = image.convert('RGB')
  if alpha is not None:
    image.putalpha(alpha)
    black = Image.new('RGBA', image.size, (0, 0, 0, 255))
    image = Image.alpha_composite(black, image).convert('RGB')
  return np.asarray(image)


def _in_8_bits(
  image: Image.Image, clear: int | None, tags: Mapping[int, Any]
) -> tuple[Image.Image, Image.Image | None]:
  """Greys of 16 bits or of fractions of white, in 8, and their opacity.

  Args:
    image: of such greys.
    clear: the grey that a PNG shows as transparent.
    tags: of a TIFF: which value is white, and how many bits there are.
  """
  values, alpha = np.asarray(image).astype(np.float64), None
  if clear is not None:
    alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
  if image.mode != 'F':
    bits = min(tags.get(_BITS, (16,))[0], 16)
    values = values / (2**bits - 1)
  if not (values.min() >= 0 and values.max() <= 1):
    raise ValueError('its values lie outside black and white')
  if tags.get(_WHITE) == 0:
    values = 1 - values
  return Image.fromarray(np.rint(255 * values).astype(np.uint8)), alpha


def _with_gamma(image: Image.Image, gamma: float) -> Image.Image:
  """Pixels whose values are light to a power that a PNG names, as sRGB's."""
  power = 1 / (2.2 * gamma)
  if abs(power - 1) < 0.05:
    return image
  table = [round(255 * (value / 255) ** power) for value in range(256)]
  return image.point(table * len(image.getbands()))


def _in_srgb(image: Image.Image, data: bytes) -> Image.Image:
  """Converts colours that are meant by another profile than sRGB."""
  with contextlib.suppress(ImageCms.PyCMSError, OSError):  # It says nothing.
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    if 'srgb' not in ImageCms.getProfileDescription(profile).lower():
      srgb = ImageCms.createProfile('sRGB')
      made = ImageCms.profileToProfile(image, profile, srgb, outputMode='RGB')
      return made or image
  return image
