"""The page of a comparison: tables, videos side by side, unpaired clips.

Clips have a poster and a strip: frames side by side, time running evenly from
left to right, as the drawing of the generation order wants it.
"""

import collections
import dataclasses
import functools
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unitemp_jax import files
from unitemp_jax.compare import table
from unitemp_jax.compare.pairing import Pair, Unpaired
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import measure
from unitemp_jax.evaluation.clips.tables import Clip as Measured
from unitemp_jax.report import pages
from unitemp_jax.report.read import Clip
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
  return list(measure.spread(one, clips, workers, 4))


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


PAGE, EYEBROW = 'index.html', 'unitemp comparison'
_LISTED = 400  # unpaired clips on the page; all are in the CSV


# Names of two systems and the rows of their table.
Match = tuple[tuple[str, str], tuple[table.Row, ...]]


@dataclasses.dataclass(frozen=True)
class Contents:
  """All that the page shows."""

  names: tuple[str, ...]  # of the systems
  folders: tuple[Path, ...]  # of each system
  matches: tuple[Match, ...]  # what was compared
  pairs: tuple[Pair, ...]  # of clips
  # what was measured of each clip, by its path
  measured: Mapping[Path, Measured]
  pictures: Mapping[Path, Pictures]  # of some clips, by path
  unpaired: tuple[Unpaired, ...]  # clips that stand alone
  notes: tuple[str, ...]  # sentences
  command: str  # that made it
  blind: str  # link to the blind page, or ''


def render(contents: Contents, out: Path) -> tuple[str, pages.Gallery]:
  """Returns the page, and its gallery, of which all but a part is written.

  Videos stay where they are and are linked from there.
  """
  shapes = {name: collections.Counter[str]() for name in contents.names}

  def rows() -> Iterator[pages.Row]:
    for pair in contents.pairs:
      names = [name for name in contents.names if name in pair.clips]
      clips = [_clip(contents, name, pair, out) for name in names]
      for clip in clips:
        shapes[clip.order][clip.shape] += 1
      yield pair.prompt, f'sample {pair.sample}', clips

  first, *others = contents.names
  title = others[0] if len(others) == 1 else f'{len(others)} others'
  gallery = pages.write_gallery(out / PAGE, rows(), contents.names)
  folders = zip(contents.names, contents.folders, strict=True)
  page = pages.render(
    'comparison.html',
    title=f'{first} against {title}',
    eyebrow=EYEBROW,
    problems=contents.notes,
    contents=contents,
    matches=[
      (names, pages.grouped((row.section, row) for row in rows))
      for names, rows in contents.matches
    ],
    gallery=gallery,
    unpaired=pages.grouped(
      ((alone.system, alone.reason), alone.clip.name)
      for alone in contents.unpaired[:_LISTED]
    ),
    unlisted=len(contents.unpaired) - _LISTED,
    systems=[(name, folder, shapes[name]) for name, folder in folders],
  )
  return page, gallery


def _clip(contents: Contents, name: str, pair: Pair, out: Path) -> Clip:
  """A clip as the report shows it, under the name of its system."""
  file = pair.clips[name]
  measured = contents.measured[file.path]
  layout, values = file.layout, measured.values
  pictures = contents.pictures.get(file.path, Pictures('', ''))
  note = f'motion {pages.number(255 * values["mean step"])}/255'
  if 'BFR' in values:
    note = f'BFR {pages.number(values["BFR"])}, {note}'
  return Clip(
    name=file.name,
    order=name,
    video=os.path.relpath(file.path, out).replace(os.sep, '/'),
    prompt=pair.prompt,
    frames=measured.frames,
    fps=file.fps,
    width=measured.width,
    height=measured.height,
    boundary_frames=layout.boundaries,
    frame_difference=[round(float(s), 5) for s in measured.steps],
    block_frames=layout.spans or layout.as_played(measured.frames),
    poster=pictures.poster,
    strip=pictures.strip,
    note=note,
  )
