"""Tables of a folder of clips, and the groups that they are made of.

Any system's videos, no model, no network.
Each statistic stands beside the same statistic of real clips cut to the same
length, rate and size.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import arrow_of_time
from unitemp_jax.evaluation.clips import fidelity, metrics
from unitemp_jax.evaluation.clips.fidelity import Reference
from unitemp_jax.evaluation.clips.folder import ClipFile, Listing
from unitemp_jax.evaluation.clips.layout import Layout
from unitemp_jax.evaluation.clips.measure import Job, Measured, Measurer, Window
from unitemp_jax.evaluation.metrics import bootstrap, flicker, frechet, results
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.curves import Curves
from unitemp_jax.evaluation.metrics.frechet import Features
from unitemp_jax.evaluation.metrics.registry import (
  CLIP,
  DIRECTION,
  FIDELITY,
  FLICKER,
  FLOOR,
  MOTION,
  REAL,
)
from unitemp_jax.evaluation.metrics.results import Section


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
  """One measured clip, in little memory: there may be many thousands."""

  name: str  # file name, with a number for windows of real footage
  source: str  # the file's name, the same for all windows of one file
  frames: int
  height: int
  width: int
  steps: np.ndarray  # [T-1], see `Curves`
  layout: Layout
  values: Mapping[str, float]  # metrics by name
  odd: np.ndarray | None = None  # the direction is read from it, if it is
  cells: tuple[int, ...] = ()  # height and width of what that was read from
  file: ClipFile | None = None  # where it came from; None for real clips
  fidelity: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @classmethod
  def of(
    cls, name: str, source: str, curves: Curves, layout: Layout, direction: bool
  ) -> 'Clip':
    """Computes the metrics of a clip; UserError if the layout does not fit."""
    odd = None
    if direction and curves.frames >= arrow_of_time.LEAST_FRAMES:
      odd = arrow_of_time.odd_features(curves.thumbs)
    values = metrics.clip_metrics(curves, layout)
    size = curves.frames, curves.height, curves.width
    cells = curves.thumbs.shape[1:]
    return cls(name, source, *size, curves.steps, layout, values, odd, cells)


# What clips may differ in, and how it is said.
SHAPES: dict[str, Callable[[Clip], str]] = {
  'sizes': lambda clip: f'{clip.height}x{clip.width}',
  'rates': lambda clip: f'{clip.layout.fps:g} frames per second',
  'lengths': lambda clip: f'{clip.frames} frames',
}


@dataclasses.dataclass(frozen=True)
class Group:
  """Clips that are pooled, such as those of one order."""

  name: str
  clips: tuple[Clip, ...]


# Section -> group -> metric -> values, one per clip.
Tables = dict[str, dict[str, dict[str, Any]]]


def sections(
  groups: Sequence[Group], real: Group | None, how: str
) -> tuple[list[Section], list[str]]:
  """All tables that need pixels only.

  Args:
    groups: of generated clips, none empty.
    real: real clips, or None.
    how: the command, appended to how each number was obtained.

  Returns:
    The tables, and one sentence for each that could not be made.
  """
  shown = [*groups, *([real] if real else [])]
  tables: Tables = {m.section: {} for m in CLIP.values()}
  for group in shown:
    for name, metric in CLIP.items():
      values = metrics.column([c.values for c in group.clips], name)
      if values:
        own = tables[metric.section].setdefault(group.name, {})
        own[name] = np.asarray(values)
    tables[FLICKER].setdefault(group.name, {}).update(_significance(group))
    if real:
      for name, values in _moving(group, real).items():
        part = tables[FLICKER if name.startswith('temp') else MOTION]
        part.setdefault(group.name, {})[name] = values
  notes = []
  if real:
    try:
      tables[DIRECTION] = _direction(groups, real)
    except UserError as error:
      notes.append(str(error))
  tables[FIDELITY] = {group.name: _fidelity(group) for group in groups}
  made = [results.section(*table, how) for table in tables.items()]
  return [section for section in made if section.rows], notes


def _significance(group: Group) -> dict[str, Interval]:
  """How much the true block phase stands out of all others, clips pooled."""
  logs = collections.defaultdict(list)
  for clip in group.clips:
    at = metrics.boundaries_inside(clip.steps, clip.layout)
    period = clip.layout.period
    # Others are too short, or have blocks of several lengths.
    with contextlib.suppress(UserError):
      found = flicker.phase_logs(clip.steps[None], at, period=period)
      logs[period].append(found)
  if not logs:
    return {}
  pool = max(logs.values(), key=len)
  test = flicker.pool_phases(np.concatenate(pool))
  return {
    'seam p-value': bootstrap.exact(test.p_value, len(pool)),
    'phases as strong': bootstrap.exact(test.share, len(pool)),
  }


def motion(clip: Clip, real: Group) -> float:
  """Mean step of a clip over that of the real clips."""
  usual = np.mean([c.values['mean step'] for c in real.clips])
  return clip.values['mean step'] / max(float(usual), 1e-9)


def _moving(group: Group, real: Group) -> dict[str, np.ndarray]:
  """Motion, how many clips move, and the flickering of those."""
  ratios = np.array([motion(clip, real) for clip in group.clips])
  found = {'motion to real': ratios, 'moves': ratios >= FLOOR}
  if found['moves'].any():
    name = 'temporal flickering'
    values = np.array([clip.values[name] for clip in group.clips])
    found[f'{name}, moving clips'] = values[found['moves']]
  return found


def _direction(groups: Sequence[Group], real: Group) -> dict[str, dict]:
  """Direction of play, by a classifier that learns the real clips alone."""
  if len(real.clips) < arrow_of_time.LEAST_CLIPS:
    raise UserError(
      f'the direction was not read: {len(real.clips)} real clips are fewer '
      f'than {arrow_of_time.LEAST_CLIPS}.'
    )
  if real.clips[0].odd is None:
    raise UserError(
      'the direction was not read: it needs clips of at least '
      f'{arrow_of_time.LEAST_FRAMES} frames.'
    )
  known = np.stack([clip.odd for clip in real.clips])
  classifier = arrow_of_time.Direction.fit(known)
  sources = [clip.source for clip in real.clips]
  others = arrow_of_time.held_out(known, sources)
  read = {}
  for group in groups:
    cells = real.clips[0].cells
    same = [clip.odd for clip in group.clips if clip.cells == cells]
    if same := [odd for odd in same if odd is not None]:
      read[group.name] = classifier.read(np.stack(same))
  return {
    name: {'called forward': values > 0.5, 'probability of forward': values}
    for name, values in {**read, REAL: others}.items()
  }


def _fidelity(group: Group) -> dict[str, np.ndarray]:
  """PSNR and SSIM of the clips that have a reference."""
  clips = [clip.fidelity for clip in group.clips]
  return {
    name: np.array(metrics.column(clips, name))
    for name in dict.fromkeys(name for clip in clips for name in clip)
  }


def frechet_section(
  name: str, made: Features, real: Features, how: str
) -> Section:
  """The Frechet distance of brought features, with the floor of real halves.

  UserError if the features are of two networks.
  """
  frechet.check_alike(made, real)
  metric = f'Frechet distance, {made.network or "features of unnamed origin"}'
  if made.network.lower().startswith('i3d'):
    metric = f'FVD ({made.network})'
  counts = f'{len(made.values)} against {len(real.values)} clips'
  how = f'{counts}, {made.values.shape[1]} features; {how}'
  table = {name: {metric: frechet.frechet_interval(made.values, real.values)}}
  if len(real.values) >= 4:
    floor = frechet.floor_interval(real.values)
    table[f'{REAL}, half to half'] = {metric: floor}
  return results.section('Distance of sets', table, how)


def to_csv(groups: Sequence[Group]) -> str:
  """One line per clip with all of its metrics."""
  head = ['group', 'clip', 'prompt', 'sample', 'frames', 'height', 'width']
  rows = []
  for group in groups:
    for clip in group.clips:
      file = clip.file
      about = [file.prompt, file.sample] if file else ['', '']
      size = [clip.frames, clip.height, clip.width]
      numbers = [clip.values.get(name, '') for name in CLIP]
      rows.append([group.name, clip.name, *about, *size, *numbers])
  return results.to_csv([*head, *CLIP], rows)


def measure_clips(
  listed: Sequence[ClipFile],
  measurer: Measurer,
  references: Mapping[Path, ClipFile] | None = None,
  direction: bool = False,
) -> tuple[list[Clip], list[str]]:
  """Measures generated clips.

  Args:
    listed: of a folder.
    measurer: measures them.
    references: by clip, where there is one.
    direction: whether the direction of play will be read.

  Returns:
    The clips, and one sentence per clip that could not be measured or compared.
  """
  references = references or {}

  def keep(i: int, found: Measured) -> tuple[Clip | None, str]:
    file = listed[i]
    try:
      if found.problem:
        raise UserError(found.problem)
      (curves,), layout = found.curves, file.layout
      clip = Clip.of(file.name, file.name, curves, layout, direction)
    except UserError as error:
      return None, f'{file.name} was not measured: {error}'
    values = {}
    if found.fidelity is not None:
      values = fidelity.values(found.fidelity, layout.conditioning)
    unlike = found.unlike and f'{file.name} was not compared: {found.unlike}'
    return dataclasses.replace(clip, file=file, fidelity=values), unlike

  jobs = [job_of(file, references.get(file.path)) for file in listed]
  measured = measurer.measure(jobs, keep)
  clips = [clip for clip, _ in measured if clip is not None]
  return clips, [problem for _, problem in measured if problem]


def job_of(file: ClipFile, reference: ClipFile | None = None) -> Job:
  """What is to be measured of a generated clip."""
  return Job(
    file.path,
    scale=file.scale,
    reference=None if reference is None else Reference.of(reference, file),
    ends=all(file.layout.conditioning),
  )


def grouped(clips: Sequence[Clip], folder: Path) -> list[Group]:
  """One group per temporal order, else named by the folder."""
  groups: dict[str, list[Clip]] = {}
  for clip in clips:
    order = clip.file.order if clip.file else ''
    groups.setdefault(order or folder.resolve().name, []).append(clip)
  return [Group(name, tuple(own)) for name, own in groups.items()]


def mixed(clips: Sequence[Clip]) -> list[str]:
  """One sentence for each of size, rate and length that is not the same."""
  sentences = []
  for what, read in SHAPES.items():
    counts = collections.Counter(map(read, clips))
    if len(counts) > 1:
      listed = ', '.join(f'{n} of {v}' for v, n in counts.most_common(4))
      sentences.append(
        f'the clips have {len(counts)} {what} ({listed}): steps, drift and '
        'flickering depend on them, ratios less.'
      )
  return sentences


def measure_real(
  listing: Listing,
  like: Sequence[Clip],
  measurer: Measurer,
  direction: bool = False,
) -> tuple[Group, list[str]]:
  """Measures real footage, cut into clips of the shape that most clips have.

  Args:
    listing: of the footage.
    like: the generated clips.
    measurer: measures it.
    direction: whether the direction of play will be read.

  Returns:
    The group, and one sentence for each file that gave no clip.

  Raises:
    UserError: not one clip of that length.
  """
  window, layout = _common_window(like)

  def keep(i: int, found: Measured) -> tuple[list[Clip], str]:
    file = listing.clips[i].name
    clips = [
      Clip.of(f'{file}#{number}', file, curves, layout, direction)
      for number, curves in enumerate(found.curves)
    ]
    if found.cuts:
      return clips, (
        f'{file}: {found.cuts} real clips were left out, the scene changes in '
        'them.'
      )
    why = found.problem or (
      f'it is shorter than {window.frames} frames at {window.fps:g} a second'
    )
    return clips, '' if clips else f'{file} gave no real clip: {why}.'

  jobs = [Job(clip.path, window=window) for clip in listing.clips]
  measured = measurer.measure(jobs, keep)
  clips = tuple(clip for found, _ in measured for clip in found)
  problems = [problem for _, problem in measured if problem]
  if not clips:
    raise UserError(
      f'{listing.folder} holds no real clip of {window.frames} frames at '
      f'{window.fps:g} per second (first problem: {problems[0]}); give longer '
      'footage with --real.'
    )
  return Group(REAL, clips), problems


def _common_window(clips: Sequence[Clip]) -> tuple[Window, Layout]:
  """The shape and the layout that most clips have."""
  shapes = collections.Counter(
    Window(c.frames, c.layout.fps, c.height, c.width) for c in clips
  )
  window = shapes.most_common(1)[0][0]
  layouts = collections.Counter(
    dataclasses.replace(c.layout, spans=(), fps=window.fps)
    for c in clips
    if c.frames == window.frames
  )
  return window, layouts.most_common(1)[0][0]
