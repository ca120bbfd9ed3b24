"""From folders of clips to the groups that tables are made of."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import fidelity, measure, metrics
from unitemp_jax.evaluation.clips.fidelity import Reference
from unitemp_jax.evaluation.clips.folder import ClipFile, Listing
from unitemp_jax.evaluation.clips.layout import Layout
from unitemp_jax.evaluation.clips.measure import Job, Window
from unitemp_jax.evaluation.clips.tables import REAL, SHAPES, Clip, Group
from unitemp_jax.evaluation.metrics.curves import Curves

Report = Callable[[str], None]


def measure_groups(
  listing: Listing,
  cache: Path,
  workers: int,
  report: Report,
  references: Mapping[Path, ClipFile],
) -> tuple[list[Group], list[str]]:
  """Measures every clip of a folder; one group per temporal order.

  Args:
    listing: of the folder.
    cache: folder for what was measured.
    workers: processes.
    report: is given lines about the progress.
    references: by clip, where there is one.

  Returns:
    The groups, named by their order or else by the folder, and one sentence per
    clip that could not be measured or compared.

  Raises:
    UserError: not one clip could be measured.
  """
  jobs = [job_of(clip, references.get(clip.path)) for clip in listing.clips]
  measured = measure.measure(jobs, cache, workers=workers, report=report)
  groups: dict[str, list[Clip]] = {}
  problems = []
  for file, found in zip(listing.clips, measured, strict=True):
    try:
      clip = whole_clip(file, found)
    except UserError as error:
      problems.append(f'{file.name} was not measured: {error}')
      continue
    if found.unlike:
      problems.append(f'{file.name} was not compared: {found.unlike}')
    name = file.order or listing.folder.resolve().name
    groups.setdefault(name, []).append(clip)
  if not groups:
    raise UserError(
      f'no clip in {listing.folder} could be measured (first problem: '
      f'{problems[0]}).'
    )
  return [Group(name, tuple(clips)) for name, clips in groups.items()], problems


def job_of(file: ClipFile, reference: ClipFile | None = None) -> Job:
  """What is to be measured of a generated clip."""
  return Job(
    file.path,
    scale=file.scale,
    reference=None if reference is None else Reference.of(reference, file),
    ends=all(file.layout.given),
  )


def whole_clip(file: ClipFile, found: measure.Measured) -> Clip:
  """A generated clip with its metrics.

  Raises:
    UserError: it could not be measured, or its layout does not fit.
  """
  if found.problem:
    raise UserError(found.problem)
  clip = make_clip(file.name, file.name, found.curves[0], file.layout, file)
  if found.fidelity is None:
    return clip
  values = fidelity.values(found.fidelity, file.layout.given)
  return dataclasses.replace(clip, fidelity=values)


def make_clip(
  name: str,
  source: str,
  curves: Curves,
  layout: Layout,
  file: ClipFile | None = None,
) -> Clip:
  """Computes the metrics of one clip.

  Raises:
    UserError: the layout does not fit the clip.
  """
  values = metrics.clip_metrics(curves, layout)
  return Clip(name, source, curves, layout, values, file)


def mixed(groups: Sequence[Group]) -> list[str]:
  """One sentence for each of size, rate and length that is not the same."""
  clips = [clip for group in groups for clip in group.clips]
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


def common_window(groups: Sequence[Group]) -> tuple[Window, Layout]:
  """The shape and the layout that most clips have."""
  clips = [clip for group in groups for clip in group.clips]
  shapes = collections.Counter(
    Window(c.curves.frames, c.layout.fps, c.curves.height, c.curves.width)
    for c in clips
  )
  window = shapes.most_common(1)[0][0]
  layouts = collections.Counter(
    Layout(c.layout.boundaries, c.layout.period, c.layout.given, (), window.fps)
    for c in clips
    if c.curves.frames == window.frames
  )
  return window, layouts.most_common(1)[0][0]


def measure_real(
  listing: Listing,
  window: Window,
  layout: Layout,
  cache: Path,
  workers: int,
  report: Report,
) -> tuple[Group, list[str]]:
  """Measures real footage, cut into clips of the shape of the generated ones.

  Returns:
    The group, and one sentence for each file that gave no clip.

  Raises:
    UserError: not one clip of that length.
  """
  jobs = [Job(clip.path, window=window) for clip in listing.clips]
  measured = measure.measure(jobs, cache, workers=workers, report=report)
  clips, problems = [], []
  for file, found in zip(listing.clips, measured, strict=True):
    for number, curves in enumerate(found.curves):
      name = f'{file.name}#{number}'
      clips.append(make_clip(name, file.name, curves, layout))
    if found.cuts:
      problems.append(
        f'{file.name}: {found.cuts} real clips were left out, the scene '
        'changes in them.'
      )
    elif not found.curves:
      why = found.problem or (
        f'it is shorter than {window.frames} frames at {window.fps:g} a second'
      )
      problems.append(f'{file.name} gave no real clip: {why}.')
  if not clips:
    raise UserError(
      f'{listing.folder} holds no real clip of {window.frames} frames at '
      f'{window.fps:g} per second (first problem: {problems[0]}); give longer '
      'footage with --real.'
    )
  return Group(REAL, tuple(clips)), problems
