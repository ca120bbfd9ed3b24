"""Suites `long` and `schedule`: drift of long videos, and prompts that switch.

Long videos are seen through a sliding window, without sinks, with sinks at the
past end, the future end, or both. Whatever a block sees, sinks included, spans
as many positions as the model was trained on; so sinks cost window. They show
digits that hop, since falls come to rest.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation.metrics import bootstrap, long_video, temporal
from unitemp_jax.evaluation.suites.bench import Bench, Section
from unitemp_jax.evaluation.suites.orders import MOTION
from unitemp_jax.evaluation.suites.runs import Runs, section
from unitemp_jax.evaluation.suites.vae import thirds
from unitemp_jax.plans import Plan

TIMES = 5  # so many times as long as what the model was trained on
WINDOWS = 10
REAL = 'real clips'
_CLIPS = 64
_PLAYED = (
  'difference of the last 15 % from the first, as played, in units of the '
  'spread of real windows; mean over brightness, contrast, saturation, '
  'sharpness, clipped share and motion'
)
_MADE = (
  'distance from real clips at the same time, of the last generated 15 % minus '
  'the first generated 15 %; units and mean as before; positive = errors add up'
)
_APART = 'distance from real clips at the same time, mean over all windows'
_ENDS = 'difference of the last 15 % from the first, as played, in real spreads'
_READ = 'share of clips where the oracle reads the {} of the caption there'
_SWITCH = 'share of clips where the oracle reads the {} of the prompt that {}'


def run_long(bench: Bench) -> list[Section]:
  """Measures drift as played and as made, in both directions."""
  runs = Runs.of(bench, _CLIPS)
  frames = 1 + 4 * (TIMES * bench.pipeline.num_latents - 1)
  clips = runs.scene('hop', frames)
  others = runs.scene('hop', frames, first=bench.settings.num_clips)['video']
  reference = long_video.Reference.of(long_video.courses(others, WINDOWS))
  order = list(range(WINDOWS))
  rows = _rows(runs, REAL, clips['video'], clips, reference, order)
  for sinks in orders.SINKS:
    # The same sinks in both directions share a program.
    both = [long_plan(runs, way, sinks) for way in orders.DIRECTIONS]
    for way, plan in zip(orders.DIRECTIONS, plans.align(*both), strict=True):
      name = f'{way}, sinks: {sinks}'
      video = runs.make(name, plan, clips['caption'])
      order = long_video.window_order(frames, WINDOWS, spans(plan))
      rows += _rows(runs, name, video, clips, reference, order)
  title = f'Long videos: {frames} frames'
  looks = [row for row in rows if row.metric.startswith('drift of ')]
  rest = [row for row in rows if row not in looks]
  return [
    section(title, 'long', rest),
    section(f'{title}: drift as played, by look', 'long', looks),
  ]


def long_plan(runs: Runs, direction: str, sinks: str) -> Plan:
  """A long video, seen within the positions that the model was trained on."""
  latents = runs.bench.pipeline.num_latents
  return orders.long(
    TIMES * latents,
    direction=direction,
    sinks=sinks,
    span=latents,
    # Backward, anchors take of the span what forward would leave for more.
    sink_latents=1,
    **runs.settings(),
  )


def spans(plan: Plan) -> list[tuple[int, int]]:
  """First and last frame of every generated row, in the order made."""
  start = plan.begin
  found = []
  for row in np.flatnonzero(~plan.given & (plan.count > 0)):
    positions = [position - start for position, _ in plan.entries(row)]
    found.append((max(4 * positions[0] - 3, 0), 4 * positions[-1]))
  return found


def _rows(runs, group, video, clips, reference, order) -> list:
  bench = runs.bench
  course = long_video.courses(video, WINDOWS)
  ends = long_video.ends_apart(course, reference)
  grown = long_video.growth(course, reference, order).mean(axis=1)
  apart = np.abs(course - reference.mean) / reference.spread
  motion = temporal.motion_ratio(video, clips['video'])
  rows = [
    bench.row(
      'drift as played', group, bootstrap.mean(ends.mean(axis=1)), '', _PLAYED
    ),
    bench.row('drift as made', group, bootstrap.mean(grown), '', _MADE),
    bench.row(
      'from real', group, bootstrap.mean(apart.mean(axis=(1, 2))), '', _APART
    ),
    bench.row('motion to real', group, bootstrap.mean(motion), 'ratio', MOTION),
  ]
  for look, values in zip(long_video.LOOKS, ends.T, strict=True):
    measured = bootstrap.mean(values)
    rows.append(bench.row(f'drift of {look}', group, measured, '', _ENDS))
  cuts = long_video.window_cuts(video.shape[1], WINDOWS)
  # What was made last is where errors would have added up.
  for when, window in (('first', order[0]), ('last', order[-1])):
    part = video[:, cuts[window] : cuts[window + 1]]
    read = runs.reads(part, clips['digit'], clips['colour'])
    for what, values in read.items():
      metric = f'{what} read, {when} made tenth'
      rows.append(bench.share(metric, group, values, _READ.format(what)))
  return rows


def run_schedule(bench: Bench) -> list[Section]:
  """Switches from the caption of clip i to that of clip i + 1 midway."""
  runs, latents = Runs.of(bench), bench.pipeline.num_latents
  # Twice as long, so that there is time before and after the switch.
  length = 2 * latents - latents % 2
  switch = length // 2
  other = np.roll(np.arange(runs.count), -1)
  captions = runs.captions
  pairs = [[captions[i], captions[k]] for i, k in enumerate(other)]
  # As for users, nothing is seen that is farther away than in training.
  usual = runs.settings(span=latents)
  switched = {**usual, 'prompts': ((switch, 1),)}
  made = {
    'switch, forward': orders.forward(length, **switched),
    'switch, backward': orders.backward(length, **switched),
    'no switch, forward': orders.forward(length, **usual),
  }
  rows = []
  for name, plan in zip(made, plans.align(*made.values()), strict=True):
    video = runs.make(name, plan, pairs)
    rows += _switch_rows(runs, name, video, other)
  real = runs.longer(1 + 4 * (length - 1))
  rows += _switch_rows(runs, REAL, real, other)
  title = f'Prompt switch at frame {4 * switch} of {4 * length - 3}'
  return [section(title, 'schedule', rows)]


def _switch_rows(runs, group, video, other) -> list:
  begin, _, end = thirds(video.shape[1])
  clips, own, rows = runs.bench.clips, np.arange(runs.count), []
  for name, part, who, when in (
    ('first third, first prompt', begin, own, 'holds first'),
    ('last third, second prompt', end, other, 'holds last'),
    ('last third, first prompt', end, own, 'holds first'),
  ):
    read = runs.reads(video[:, part], clips['digit'][who], clips['colour'][who])
    for what, values in read.items():
      how = _SWITCH.format(what, when)
      rows.append(runs.bench.share(f'{what}, {name}', group, values, how))
  return rows
