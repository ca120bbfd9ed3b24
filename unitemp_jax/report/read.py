"""Reader of folders of generated clips, for the report.

The folder holds `ORDER/CLIP.mp4` with a sidecar `ORDER/CLIP.json`, maybe
`ORDER/CLIP.strip.png` (frames side by side, time running evenly from left to
right) and `metrics.json`; an evaluation set holds `videos/ORDER/CLIP.mp4` with
records, posters and plans likewise. What cannot be used is named with its
reason and left out; nothing is changed.
"""

import array
import base64
import dataclasses
import functools
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import av
import av.error

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import layout
from unitemp_jax.evaluation.clips.layout import is_int, is_list
from unitemp_jax.evaluation.metrics.results import Result, ResultTable
from unitemp_jax.evaluation_sets import store
from unitemp_jax.generate import clip_file
from unitemp_jax.plans import drawing, text
from unitemp_jax.video.read import parse_tags


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
  """One generated video as a page shows it.

  Paths are relative to the page's folder, '' where there is none. `order` is
  the temporal order, or the name of a system. `boundary_frames` are transitions
  between blocks, and `frame_difference[j]` is the change from frame j to j + 1.
  `block_frames` has the first and last frame of each block, in generation
  order. `plan_image` is a data URI, `strip` a picture of the whole clip, and
  `stages` are unfinished videos. `sample` counts the clips of one prompt.
  """

  name: str
  order: str
  video: str
  prompt: str
  frames: int
  fps: float
  width: int
  height: int
  boundary_frames: Sequence[int] = ()
  frame_difference: Sequence[float] = ()
  block_frames: layout.Spans = ()
  seed: int = 0
  sample: int | None = None
  checkpoint: str = ''
  version: str = ''
  timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
  plan_image: str = ''
  poster: str = ''
  strip: str = ''
  stages: Sequence[str] = ()
  note: str = ''

  @property
  def shape(self) -> str:
    """Length, size and rate in words."""
    size = f'{self.width} × {self.height}'
    return f'{self.frames} frames, {size}, {self.fps:g} per second'

  @property
  def largest_difference(self) -> float:
    """The upper end of its chart."""
    return max(self.frame_difference, default=0.0)


@dataclasses.dataclass(frozen=True)
class Contents:
  """All that a report shows: clips, measurements, and what was left out.

  `effort` says what an evaluation set has cost, '' for other folders.
  """

  folder: pathlib.Path
  clips: list[Clip]
  results: list[Result]
  problems: list[str]
  effort: str = ''

  @property
  def orders(self) -> list[str]:
    """The orders present: forward and backward first, then by name."""
    first = {'forward': 0, 'backward': 1}
    names = {clip.order for clip in self.clips}
    return sorted(names, key=lambda name: (first.get(name, 2), name))


def read_folder(folder: pathlib.Path) -> Contents:
  """Reads every clip below a folder.

  UserError if there is no such folder or not one usable clip in it.
  """
  if not folder.is_dir():
    raise UserError(
      f'{folder} is not a folder; give the one that unitemp generate wrote.'
    )
  is_set = (folder / 'records').is_dir()
  clips, problems = [], []
  for path in _visible(
    folder.glob('records/*/**/*.json' if is_set else '*/*.json')
  ):
    try:
      clips.append(read_clip(folder, path))
    except UserError as error:
      problems.append(str(error))
  named = {clip.video for clip in clips} | {
    stage for clip in clips for stage in clip.stages
  }
  for path in _visible(
    folder.glob('videos/*/**/*.mp4' if is_set else '*/*.mp4')
  ):
    name = path.relative_to(folder).as_posix()
    if name not in named and not _sidecar_of(folder, path).exists():
      problems.append(f'{name} has no sidecar; make the clip again.')
  if not clips:
    reason = f' (first problem: {problems[0]})' if problems else ''
    raise UserError(
      f'there is no usable clip in {folder}{reason}; '
      f'run unitemp generate --out={folder} first.'
    )
  results: list[Result] = []
  if (folder / 'metrics.json').exists():
    try:
      results = list(ResultTable.from_json(folder / 'metrics.json').rows)
    except UserError as error:
      problems.append(str(error))
  effort = str(store.read_effort(folder) or '')
  return Contents(folder, clips, results, problems, effort)


def _visible(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  return sorted(path for path in paths if not path.name.startswith('.'))


def _sidecar_of(folder: pathlib.Path, video: pathlib.Path) -> pathlib.Path:
  parts = video.relative_to(folder).with_suffix('.json').parts
  if parts[0] == 'videos' and (folder / 'records').is_dir():
    parts = ('records', *parts[1:])
  return folder.joinpath(*parts)


@functools.lru_cache(maxsize=64)
def _plan_of(path: pathlib.Path) -> str:
  """Drawing of the plan of a whole order; '' where there is none."""
  return drawing.draw(text.load(path)) if path.is_file() else ''


def read_clip(folder: pathlib.Path, sidecar: pathlib.Path) -> Clip:
  """Reads one sidecar and the header of its video.

  UserError if the sidecar or the video is broken; the file is named.
  """
  name = sidecar.relative_to(folder).as_posix()
  try:
    record = files.read_json(sidecar, 'a sidecar', 'make the clip again')
  except UserError as error:
    raise UserError(str(error).replace(str(sidecar), name, 1)) from error
  try:
    return _read_clip(folder, sidecar, record)
  except UserError as error:
    raise UserError(f'{name}: {error}') from error


def _read_clip(
  folder: pathlib.Path, sidecar: pathlib.Path, record: dict[str, Any]
) -> Clip:
  get = functools.partial(layout.field, record)
  place = sidecar.relative_to(folder).with_suffix('')
  order, poster = sidecar.parent.name, sidecar.with_suffix('.png')
  video, plan = sidecar.with_suffix('.mp4'), ''
  if place.parts[0] == 'records':
    order = place.parts[1]
    video = folder.joinpath('videos', *place.parts[1:-1], f'{place.name}.mp4')
    poster = folder.joinpath('posters', *place.parts[1:-1], f'{place.name}.png')
    plan = _plan_of(folder / 'plans' / f'{order}.json')
  width, height = _read_size(folder, video, record)
  frames = get('frames', is_int)
  if frames < 1:
    raise UserError(f'frames is {frames}, it must be at least 1.')
  fps = get('fps', _is_number)
  blocks = layout.Layout.read(record, frames, fps)

  def below(path: pathlib.Path) -> str:
    there = os.path.isfile(path)
    return path.relative_to(folder).as_posix() if there else ''

  def beside(file_name: str) -> str:
    return below(video.parent / pathlib.PurePath(file_name).name)

  try:
    drawn = _to_image(get('plan_svg', _is_text, '') or plan)
  except ElementTree.ParseError as error:
    raise UserError(f'plan_svg is no drawing ({error}).') from error
  stages = get('stages', is_list(_is_text), [])
  sample = record.get('sample')
  return Clip(
    name=video.stem,
    order=order,
    video=video.relative_to(folder).as_posix(),
    prompt=get('prompt', _is_text),
    seed=get('seed', is_int),
    frames=frames,
    fps=fps,
    width=width,
    height=height,
    boundary_frames=blocks.boundaries if 'boundary_frames' in record else (),
    frame_difference=array.array(
      'd', get('frame_difference', is_list(_is_number), [])
    ),
    block_frames=blocks.spans,
    checkpoint=sys.intern(get('checkpoint', _is_text, '')),
    version=sys.intern(get('version', _is_text, '')),
    timings=get('timings', _is_timings, {}),
    plan_image=drawn,
    poster=beside(get('poster', _is_text, '')) or below(poster),
    strip=beside(video.stem + '.strip.png'),
    stages=[path for path in map(beside, stages) if path],
    sample=sample if is_int(sample) else None,
  )


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_number(value: Any) -> bool:
  if isinstance(value, float):
    return math.isfinite(value)
  return is_int(value) and abs(value) < 2**63


def _is_timings(value: Any) -> bool:
  return isinstance(value, dict) and all(map(_is_number, value.values()))


def _read_size(
  folder: pathlib.Path, video: pathlib.Path, record: Mapping[str, Any]
) -> tuple[int, int]:
  """Returns width and height, which also shows that the file is a video."""
  name = video.relative_to(folder).as_posix()
  if not video.is_file():
    raise UserError(f'{name} is missing beside its sidecar.')
  width, height = record.get('width'), record.get('height')
  written = record.get('bytes') == video.stat().st_size
  if written and isinstance(width, int) and isinstance(height, int):
    return width, height
  try:
    with av.open(str(video)) as container:
      context = container.streams.video[0].codec_context
      width, height = context.width, context.height
      tags = parse_tags(container.metadata)
  except (av.error.FFmpegError, IndexError) as error:
    raise UserError(f'{name} is no readable video ({error}).') from error
  if not clip_file.is_told(video, record, tags):
    raise UserError(f'{name} is not the clip that its sidecar tells of.')
  return width, height


@functools.lru_cache(maxsize=64)
def _to_image(svg: str) -> str:
  """Wraps a drawing as an image, in which no script of it can run."""
  if not svg:
    return ''
  ElementTree.fromstring(svg)
  code = base64.b64encode(svg.encode('utf-8')).decode('ascii')
  return f'data:image/svg+xml;base64,{code}'
