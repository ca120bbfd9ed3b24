"""What is sent to a timeline and stands on it, as frames and as files."""

import re
from pathlib import Path

import av
import numpy as np
from PIL import Image

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.studio.timeline import Piece, Source
from unitemp_jax.video import pictures, read, write
from unitemp_jax.video.container import video_stream

_TILES, _TILE = 16, 64  # of a strip: number and height
_MOST_SIDE, _MOST_RATIO = 8192, 32  # pixels, and long by short side
_MOST_BYTES = 2**30  # of the frames of one clip
# First bytes -> ending. Nothing else is handed to a decoder: text that names
# other files, as play lists do, is no clip.
_MAGIC = {
  rb'\x89PNG': '.png',
  rb'\xff\xd8\xff': '.jpg',
  rb'BM': '.bmp',
  rb'RIFF....WEBP': '.webp',
  rb'RIFF....AVI ': '.avi',
  rb'GIF8': '.gif',
  rb'\x1aE\xdf\xa3': '.mkv',
  rb'....ftyp': '.mp4',
}


def read_upload(path: Path, fps: float) -> tuple[np.ndarray, str]:
  """Frames `[n, H, W, 3]` of a file that somebody sent, and its ending.

  Raises:
    UserError: it is neither a picture nor a clip, is damaged, or too large.
  """
  with path.open('rb') as file:
    head = file.read(16)
  endings = [e for m, e in _MAGIC.items() if re.match(m, head, re.DOTALL)]
  if not endings:
    raise UserError(
      'this is neither a picture (PNG, JPEG, WebP, AVIF, BMP) nor a clip (mp4, '
      'mov, webm, mkv, avi, GIF).'
    )
  [ending] = endings
  try:
    with read.reading(path):
      if picture := pictures.is_picture(path):
        with Image.open(path) as image:
          width, height = image.size
        # Pictures are read by what they hold.
        ending = '.png' if ending in ('.gif', '.mp4') else ending
      else:
        width, height = _size(path)
    if max(width, height) > min(_MOST_SIDE, _MOST_RATIO * min(width, height)):
      raise UserError(
        f'{width}x{height} pixels are no picture for a video; use at most '
        f'{_MOST_SIDE} a side, and sides up to 1:{_MOST_RATIO}.'
      )
    if picture:
      return read.read_image(path)[None], ending
    return read.read_video(path, fps, _MOST_BYTES)[0], ending
  except UserError as error:  # Its name here says nothing to who sent it.
    raise UserError(str(error).replace(str(path), 'this file')) from error


def _size(clip: Path) -> tuple[int, int]:
  """Width and height in square pixels."""
  with av.open(str(clip)) as container:
    context = video_stream('this clip', container).codec_context
    ratio = float(context.sample_aspect_ratio or 1)
    width = round(context.width * max(ratio, 1))
    return width, round(context.height / min(ratio, 1))


def strip(frames: np.ndarray) -> np.ndarray:
  """Evenly spaced frames side by side, of one height."""
  count, height, width, _ = frames.shape
  shown = np.linspace(0, count - 1, min(count, _TILES)).round().astype(int)
  wide = min(max(round(_TILE * width / height), 1), 8 * _TILE)
  return np.concatenate([read.fit(frames[k], _TILE, wide) for k in shown], 1)


def cut(source: Source, piece: Piece, fps: float, folder: Path) -> Path:
  """The file of a piece, in a folder; that of the source if it is all of it."""
  if piece.last >= source.frames:
    raise UserError('a piece of the timeline ends after its source; trim it.')
  if piece.count == source.frames:
    return source.path
  about = source.path.stat()
  words = f'{source.path.resolve()} {about.st_size} {about.st_mtime_ns}'
  key = files.sha256(words)[:8]
  ending = 'png' if piece.count == 1 else 'mkv'
  path = folder / f'{key}-{piece.first}-{piece.last}.{ending}'
  if not path.is_file():
    own = read.read_once(source.path, fps)[piece.first : piece.last + 1]
    if piece.count == 1:
      write.write_image(path, own[0])
    else:
      write.write_video(path, own, fps, kind='mkv')
  return path
