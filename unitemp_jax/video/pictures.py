"""What makes a file a picture, and its pixels as uint8 RGB."""

import contextlib
import io
import os
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

# Formats that Pillow reads as pictures; others, and animations, are videos.
_PICTURES = ('PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'AVIF', 'GIF')
_MOVING = ('GIF', 'AVIF')  # read as videos where they move


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
  gamma = image.info.get('gamma')
  image = _in_srgb(_in_8_bits(ImageOps.exif_transpose(image)))
  if gamma and not {'srgb', 'icc_profile'} & {*image.info}:
    image = _with_gamma(image, gamma)
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


def _with_gamma(image: Image.Image, gamma: float) -> Image.Image:
  """Pixels whose values are light to a power that a PNG names, as sRGB's."""
  power = 1 / (2.2 * gamma)
  if abs(power - 1) < 0.05 or image.mode not in ('L', 'RGB'):
    return image
  table = [round(255 * (value / 255) ** power) for value in range(256)]
  return image.point(table * len(image.getbands()))


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
