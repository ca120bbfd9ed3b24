"""Tables of a folder of clips: any system's videos, no model, no network.

Each statistic stands beside the same statistic of real clips cut to the same
length, rate and size.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import direction
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
  tables: dict[str, list[Result]] = {}
  for name, metric in METRICS.items():
    rows = tables.setdefault(metric.section, [])
    for group in shown:
      values = [c.values[name] for c in group.clips if name in c.values]
      if values:
        rows.append(
          results.result(
            name,
            group.name,
            metrics.pooled(name, values),
            unit=metric.unit,
            how=f'{metric.how}; {how}',
          )
        )
  notes = []
  tables['Flicker'] += _significance(shown, how)
  if real:
    tables['Motion and joins'] += _motion(shown, real, how)
    tables['Flicker'] += _moving_flicker(shown, real, how)
    try:
      tables['Direction'] = _direction(groups, real, how)
    except UserError as error:
      notes.append(str(error))
  tables['Fidelity to references'] = _fidelity(groups, how)
  made = [Section(title, tuple(rows)) for title, rows in tables.items() if rows]
  return made, notes


def _significance(groups: Sequence[Group], how: str) -> list[Result]:
  """How much the true block phase stands out of all others, clips pooled."""
  rows = []
  for group in groups:
    logs = collections.defaultdict(list)
    for clip in group.clips:
      at = metrics.boundaries_inside(clip.curves, clip.layout)
      period = clip.layout.period
      try:
        found = flicker.phase_logs(clip.curves.steps[None], at, period=period)
      except UserError:
        continue  # too short, or blocks of several lengths
      logs[period].append(found)
    if not logs:
      continue
    pool = max(logs.values(), key=len)
    test = flicker.pool_phases(np.concatenate(pool))
    for name, value, about in (
      ('seam p-value', test.p_value, 'a phase drawn for each clip'),
      ('phases as strong', test.share, 'all phases of the blocks'),
    ):
      number = Interval(value, value, value, len(pool))
      text = f'BFR at the true boundaries against {about}; {how}'
      rows.append(
        results.result(name, group.name, number, unit='ratio', how=text)
      )
  return rows


def motion(clip: Clip, real: Group) -> float:
  """Mean step of a clip over that of the real clips."""
  usual = np.mean([c.values['mean step'] for c in real.clips])
  return clip.values['mean step'] / max(float(usual), 1e-9)


def _motion(groups, real, how) -> list[Result]:
  rows = []
  for group in groups:
    ratios = np.array([motion(clip, real) for clip in group.clips])
    for name, values, unit, about in (
      ('motion to real', ratios, 'ratio', 'mean step over that of real clips'),
      ('moves', ratios >= FLOOR, '%', f'share of clips with at least {FLOOR}'),
    ):
      measured = bootstrap.mean(values)
      text = f'{about}; {how}'
      rows.append(
        results.result(name, group.name, measured, unit=unit, how=text)
      )
  return rows


def _moving_flicker(groups, real, how) -> list[Result]:
  name, rows = 'temporal flickering', []
  for group in groups:
    values = [c.values[name] for c in group.clips if motion(c, real) >= FLOOR]
    if values:
      text = (
        f'VBench, of the clips that move alone, so that no still wins; {how}'
      )
      measured = bootstrap.mean(np.array(values))
      rows.append(
        results.result(
          f'{name}, moving clips',
          group.name,
          measured,
          unit='ratio',
          how=text,
        )
      )
  return rows


def _direction(groups, real, how) -> list[Result]:
  """Direction of play, by a classifier that learns the real clips alone."""
  if len(real.clips) < direction.LEAST_CLIPS:
    raise UserError(
      f'the direction was not read: {len(real.clips)} real clips are fewer '
      f'than {direction.LEAST_CLIPS}.'
    )
  thumbs = [clip.curves.thumbs for clip in real.clips]
  shape = thumbs[0].shape[1:]
  classifier = direction.Direction.fit(thumbs)
  sources = [clip.source for clip in real.clips]
  read = {REAL: direction.held_out(thumbs, sources)}
  for group in groups:
    pictures = [clip.curves.thumbs for clip in group.clips]
    same = [picture for picture in pictures if picture.shape[1:] == shape]
    if same:
      read[group.name] = classifier.read(same)
  rows = []
  for name in [*(group.name for group in groups if group.name in read), REAL]:
    learned = (
      'by classifiers of other real clips'
      if name == REAL
      else (f'by a classifier of {len(thumbs)} real clips')
    )
    for metric, values, unit in (
      ('called forward', read[name] > 0.5, '%'),
      ('probability of forward', read[name], 'ratio'),
    ):
      rows.append(
        results.result(
          metric,
          name,
          bootstrap.mean(values),
          unit=unit,
          how=f'forward against reversed, {learned}; {how}',
        )
      )
  return rows


def _fidelity(groups: Sequence[Group], how: str) -> list[Result]:
  """PSNR and SSIM of the clips that have a reference."""
  rows = []
  text = f'against the reference of the same name, mean over clips; {how}'
  for group in groups:
    clips = [clip.fidelity for clip in group.clips]
    for name in dict.fromkeys(name for clip in clips for name in clip):
      values = np.array(metrics.column(clips, name))
      unit = 'dB' if name.startswith('PSNR') else 'ratio'
      measured = bootstrap.mean(values)
      rows.append(
        results.result(name, group.name, measured, unit=unit, how=text)
      )
  return rows


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
  rows = [
    results.result(
      metric,
      name,
      frechet.frechet_interval(made.values, real.values),
      unit='ratio',
      how=about,
    )
  ]
  if len(real.values) >= 4:
    rows.append(
      results.result(
        metric,
        f'{REAL}, half to half',
        frechet.floor_interval(real.values),
        unit='ratio',
        how=about,
      )
    )
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
