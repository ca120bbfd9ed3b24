"""Small pictures of clips for the gallery: one frame, and a strip of the whole.

A strip holds frames side by side, time running evenly from left to right, as
the drawing of the generation order wants it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import io
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.video import read
from unitemp_jax.video.read import fit

_TILES = 27  # at most
_STRIP, _POSTER = 56, 180  # heights in pixels


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Files below the folder they were written to; '' if there is none."""

  poster: str
  strip: str


def draw(
  clips: Sequence[tuple[Path, int]], out: Path, workers: int = 1
) -> list[Pictures]:
  """Writes the pictures of clips that are not there yet.

  Args:
    clips: path and number of frames of each.
    out: folder; the pictures go to `out/pictures`.
    workers: processes.
  """
  one = functools.partial(_draw, out=out)
  if workers == 1:
    return [one(clip) for clip in clips]
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    return list(pool.map(one, clips, chunksize=4))


def _draw(clip: tuple[Path, int], *, out: Path) -> Pictures:
  path, frames = clip
  about = path.stat()
  words = f'{path.resolve()} {about.st_size} {about.st_mtime_ns}'
  name = files.sha256(words)[:20]
  made = Pictures(f'pictures/{name}.jpg', f'pictures/{name}.strip.jpg')
  if (out / made.poster).exists() and (out / made.strip).exists():
    return made
  count = min(_TILES, max(frames, 1))
  chosen = ((np.arange(count) + 0.5) * frames / count).astype(int)
  tiles, poster = [], None
  try:
    for t, (_, _, frame) in enumerate(read.decode(path)):
      if t == frames // 2:
        poster = _shrink(frame, _POSTER)
      tiles += [_shrink(frame, _STRIP)] * int((chosen == t).sum())
  except UserError:
    return Pictures('', '')
  if not tiles or poster is None:
    return Pictures('', '')
  _write(out / made.poster, poster)
  _write(out / made.strip, np.concatenate(tiles, axis=1))
  return made


def _shrink(frame: np.ndarray, height: int) -> np.ndarray:
  height = min(height, frame.shape[0])
  width = max(1, round(frame.shape[1] * height / frame.shape[0]))
  return fit(frame, height, width)


def _write(path: Path, picture: np.ndarray) -> None:
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, 'JPEG', quality=82)
  files.write(path, buffer.getvalue())
