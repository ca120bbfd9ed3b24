"""Tables of a folder of clips: any system's videos, no model, no network.

Each statistic stands beside the same statistic of real clips cut to the same
length, rate and size.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import arrow_of_time
from unitemp_jax.evaluation.clips import metrics
from unitemp_jax.evaluation.clips.folder import ClipFile
from unitemp_jax.evaluation.clips.layout import Layout
from unitemp_jax.evaluation.clips.metrics import METRICS
from unitemp_jax.evaluation.metrics import bootstrap, flicker, frechet, results
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.curves import Curves
from unitemp_jax.evaluation.metrics.frechet import Features
from unitemp_jax.evaluation.metrics.results import Result
from unitemp_jax.evaluation.suites.bench import Section

REAL = 'real clips'
FLOOR = 0.5  # of the motion of real clips, below which a clip stands still


@dataclasses.dataclass(frozen=True)
class Clip:
  """One measured clip.

  Attributes:
    name: file name, with a number for windows of real footage.
    source: the file's name, the same for all windows of one file.
    curves: what was measured.
    layout: its blocks.
    values: metrics by name.
    file: where it came from; None for real clips.
    fidelity: to its reference, by name; empty without one.
  """

  name: str
  source: str
  curves: Curves
  layout: Layout
  values: Mapping[str, float]
  file: ClipFile | None = None
  fidelity: Mapping[str, float] = dataclasses.field(default_factory=dict)


# What clips may differ in, and how it is said.
SHAPES: dict[str, Callable[[Clip], str]] = {
  'sizes': lambda clip: f'{clip.curves.height}x{clip.curves.width}',
  'rates': lambda clip: f'{clip.layout.fps:g} frames per second',
  'lengths': lambda clip: f'{clip.curves.frames} frames',
}


@dataclasses.dataclass(frozen=True)
class Group:
  """Clips that are pooled, such as those of one order."""

  name: str
  clips: tuple[Clip, ...]


# Adds a row: section, metric, group, value, definition, unit.
Add = Callable[[str, str, str, Interval, str, str], None]
_FLICKER, _MOTION, _DIRECTION = 'Flicker', 'Motion and joins', 'Direction'


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
  tables: dict[str, list[Result]] = {m.section: [] for m in METRICS.values()}

  def add(section, metric, group, value, about, unit='ratio'):
    text = f'{about}; {how}'
    row = results.result(metric, group, value, unit=unit, how=text)
    tables.setdefault(section, []).append(row)

  for name, metric in METRICS.items():
    for group in shown:
      values = metrics.column([c.values for c in group.clips], name)
      if values:
        value = metrics.pooled(name, values)
        add(metric.section, name, group.name, value, metric.how, metric.unit)
  notes = []
  _significance(add, shown)
  if real:
    _motion(add, shown, real)
    try:
      _direction(add, groups, real)
    except UserError as error:
      notes.append(str(error))
  _fidelity(add, groups)
  made = [Section(title, tuple(rows)) for title, rows in tables.items() if rows]
  return made, notes


def _significance(add: Add, groups: Sequence[Group]) -> None:
  """How much the true block phase stands out of all others, clips pooled."""
  for group in groups:
    logs = collections.defaultdict(list)
    for clip in group.clips:
      at = metrics.boundaries_inside(clip.curves, clip.layout)
      period = clip.layout.period
      # Others are too short, or have blocks of several lengths.
      with contextlib.suppress(UserError):
        steps = clip.curves.steps[None]
        found = flicker.phase_logs(steps, at, period=period)
        logs[period].append(found)
    if not logs:
      continue
    pool = max(logs.values(), key=len)
    test = flicker.pool_phases(np.concatenate(pool))
    for name, value, against in (
      ('seam p-value', test.p_value, 'a phase drawn for each clip'),
      ('phases as strong', test.share, 'all phases of the blocks'),
    ):
      about = f'BFR at the true boundaries against {against}'
      number = Interval(value, value, value, len(pool))
      add(_FLICKER, name, group.name, number, about, 'ratio')


def motion(clip: Clip, real: Group) -> float:
  """Mean step of a clip over that of the real clips."""
  usual = np.mean([c.values['mean step'] for c in real.clips])
  return clip.values['mean step'] / max(float(usual), 1e-9)


def _motion(add: Add, groups: Sequence[Group], real: Group) -> None:
  """Motion, how many clips move, and the flickering of those."""
  name = 'temporal flickering'
  for group in groups:
    ratios = np.array([motion(clip, real) for clip in group.clips])
    moves = ratios >= FLOOR
    about = 'mean step over that of real clips'
    value = bootstrap.mean(ratios)
    add(_MOTION, 'motion to real', group.name, value, about, 'ratio')
    about = f'share of clips with at least {FLOOR}'
    add(_MOTION, 'moves', group.name, bootstrap.mean(moves), about, '%')
    if moves.any():
      values = np.array([clip.values[name] for clip in group.clips])[moves]
      about = 'VBench, of the clips that move alone, so that no still wins'
      value = bootstrap.mean(values)
      add(_FLICKER, f'{name}, moving clips', group.name, value, about, 'ratio')


def _direction(add: Add, groups: Sequence[Group], real: Group) -> None:
  """Direction of play, by a classifier that learns the real clips alone."""
  if len(real.clips) < arrow_of_time.LEAST_CLIPS:
    raise UserError(
      f'the direction was not read: {len(real.clips)} real clips are fewer '
      f'than {arrow_of_time.LEAST_CLIPS}.'
    )
  thumbs = [clip.curves.thumbs for clip in real.clips]
  shape = thumbs[0].shape[1:]
  classifier = arrow_of_time.Direction.fit(thumbs)
  sources = [clip.source for clip in real.clips]
  others = arrow_of_time.held_out(thumbs, sources)
  learned = f'by a classifier of {len(thumbs)} real clips'
  read = []
  for group in groups:
    pictures = [clip.curves.thumbs for clip in group.clips]
    same = [picture for picture in pictures if picture.shape[1:] == shape]
    if same:
      read.append((group.name, classifier.read(same), learned))
  read.append((REAL, others, 'by classifiers of other real clips'))
  for name, values, by in read:
    about = f'forward against reversed, {by}'
    for metric, numbers, unit in (
      ('called forward', values > 0.5, '%'),
      ('probability of forward', values, 'ratio'),
    ):
      add(_DIRECTION, metric, name, bootstrap.mean(numbers), about, unit)


def _fidelity(add: Add, groups: Sequence[Group]) -> None:
  """PSNR and SSIM of the clips that have a reference."""
  title = 'Fidelity to references'
  about = 'against the reference of the same name, mean over clips'
  for group in groups:
    clips = [clip.fidelity for clip in group.clips]
    for name in dict.fromkeys(name for clip in clips for name in clip):
      value = bootstrap.mean(np.array(metrics.column(clips, name)))
      unit = 'dB' if name.startswith('PSNR') else 'ratio'
      add(title, name, group.name, value, about, unit)


def frechet_section(
  name: str, made: Features, real: Features, how: str
) -> Section:
  """The Frechet distance of brought features, with the floor of real halves.

  Raises:
    UserError: the features are of two networks.
  """
  frechet.check_alike(made, real)
  metric = f'Frechet distance, {made.network or "features of unnamed origin"}'
  if made.network.lower().startswith('i3d'):
    metric = f'FVD ({made.network})'
  about = (
    f'{len(made.values)} against {len(real.values)} clips, '
    f'{made.values.shape[1]} features; {how}'
  )
  values = {name: frechet.frechet_interval(made.values, real.values)}
  if len(real.values) >= 4:
    values[f'{REAL}, half to half'] = frechet.floor_interval(real.values)
  rows = [
    results.result(metric, group, value, unit='ratio', how=about)
    for group, value in values.items()
  ]
  return Section('Distance of sets', tuple(rows))


def to_csv(groups: Sequence[Group]) -> str:
  """One line per clip with all of its metrics."""
  text = io.StringIO()
  head = ['group', 'clip', 'prompt', 'sample', 'frames', 'height', 'width']
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow([*head, *METRICS])
  for group in groups:
    for clip in group.clips:
      file, curves = clip.file, clip.curves
      about = [file.prompt, file.sample] if file else ['', '']
      size = [curves.frames, curves.height, curves.width]
      numbers = [clip.values.get(name, '') for name in METRICS]
      writer.writerow([group.name, clip.name, *about, *size, *numbers])
  return text.getvalue()
