"""What stands on a timeline, as frames and as files."""

import functools
from pathlib import Path

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.studio.timeline import Piece, Source
from unitemp_jax.video import read, write

_TILES, _TILE = 16, 64  # of a strip: number and height


def strip(frames: np.ndarray) -> np.ndarray:
  """Evenly spaced frames side by side, of one height."""
  count, height, width, _ = frames.shape
  shown = np.linspace(0, count - 1, min(count, _TILES)).round().astype(int)
  wide = min(max(round(_TILE * width / height), 1), 8 * _TILE)
  return np.concatenate([read.fit(frames[k], _TILE, wide) for k in shown], 1)


def frames_of(path: Path, fps: float) -> np.ndarray:
  """Frames `[n, H, W, 3]` of a picture or clip; those of a few are kept."""
  return _frames(path, path.stat().st_mtime_ns, fps)


@functools.lru_cache(8)
def _frames(path: Path, _: int, fps: float) -> np.ndarray:
  return read.read_frames(path, fps)


def cut(source: Source, piece: Piece, fps: float, folder: Path) -> Path:
  """The file of a piece, in a folder; that of the source if it is all of it."""
  if piece.last >= source.frames:
    raise UserError('a piece of the timeline ends after its source; trim it.')
  if piece.count == source.frames:
    return source.path
  key = files.sha256(str(source.path.resolve()))[:8]
  ending = 'png' if piece.count == 1 else 'mkv'
  path = folder / f'{key}-{piece.first}-{piece.last}.{ending}'
  if not path.is_file():
    own = frames_of(source.path, fps)[piece.first : piece.last + 1]
    if piece.count == 1:
      write.write_image(path, own[0])
    else:
      write.write_video(path, own, fps, kind='mkv')
  return path
