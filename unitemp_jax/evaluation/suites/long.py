"""Suites `long` and `schedule`: drift of long videos, and prompts that switch.

Long videos are seen through a sliding window, without sinks, with sinks at the
past end, the future end, or both. A block sees equally many latents in all arms
of a direction, so that a sink is one latent of the window less, and arms are
compared clip by clip. Two more arms are given the first and the last frame of
the real clip, which are their sinks, or of another clip: the control that must
fail. They show digits that hop, since falls come to rest.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation.metrics import bootstrap, long_video, temporal
from unitemp_jax.evaluation.suites.bench import MOTION, Bench, Section
from unitemp_jax.evaluation.suites.runs import Runs, section
from unitemp_jax.evaluation.suites.vae import thirds
from unitemp_jax.plans import Plan

TIMES = 5  # so many times as long as what the model was trained on
WINDOWS = 10
REAL = 'real clips'
OWN, ANOTHER = "the clip's own frames", "another clip's frames"
# Sinks, and whose frames they are if they are given.
ARMS = (
  *((sinks, None) for sinks in orders.SINKS),
  ('both', OWN),
  ('both', ANOTHER),
)
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
_DRIFTS = {
  'drift as played': _PLAYED,
  'drift as made': _MADE,
  'from real': _APART,
}
_ENDS = 'difference of the last 15 % from the first, as played, in real spreads'
_READ = 'share of clips where the classifier reads the {} of the caption there'
_LESS = 'difference from no sinks, paired by caption'
_OWN = "difference from the clip's own frames as sinks, paired by caption"
_SWITCH = (
  'share of clips where the classifier reads the {} of the prompt that {}'
)


def run_long(bench: Bench) -> list[Section]:
  """Measures drift as played and as made, in both directions."""
  runs = Runs.of(bench, _CLIPS)
  frames = 1 + 4 * (TIMES * bench.pipeline.num_latents - 1)
  clips = runs.scene('hop', frames)
  others = runs.scene('hop', frames, first=bench.settings.num_clips)['video']
  reference = long_video.Reference.of(long_video.courses(others, WINDOWS))
  order = list(range(WINDOWS))
  rows = _rows(runs, REAL, clips['video'], clips, reference, order)
  drifts: dict[str, dict[str, np.ndarray]] = {}
  other = np.roll(np.arange(runs.count), -1)
  for sinks, source in ARMS:
    # The same sinks in both directions share a program.
    both = [
      long_plan(runs, way, sinks, given=source is not None)
      for way in orders.DIRECTIONS
    ]
    for way, plan in zip(orders.DIRECTIONS, plans.align(*both), strict=True):
      name = f'{way}, sinks: {sinks}' + (f', {source}' if source else '')
      given = None
      if source is not None:
        real = clips['video'][other if source == ANOTHER else ...]
        given = {0: real[:, :1], frames - 1: real[:, -1:]}
      video = runs.make(name, plan, clips['caption'], given)
      order = long_video.window_order(frames, WINDOWS, spans(plan))
      drifts[name] = _drift(video, reference, order)
      rows += _rows(runs, name, video, clips, reference, order)
  title = f'Long videos: {frames} frames'
  looks = [row for row in rows if row.metric.startswith('drift of ')]
  rest = [row for row in rows if row not in looks]
  return [
    section(title, 'long', rest),
    section(f'{title}: drift as played, by look', 'long', looks),
    section(f'{title}: what sinks do', 'long', _paired(bench, drifts)),
  ]


def _drift(video, reference, order) -> dict[str, np.ndarray]:
  """Drift of every clip, `[n]`, by metric."""
  course = long_video.courses(video, WINDOWS)
  apart = np.abs(course - reference.mean) / reference.spread
  return {
    'drift as played': long_video.ends_apart(course, reference).mean(axis=1),
    'drift as made': long_video.growth(course, reference, order).mean(axis=1),
    'from real': apart.mean(axis=(1, 2)),
  }


def _paired(bench, drifts) -> list:
  """Sinks against none, and another clip's against the own."""
  rows = []
  for way in orders.DIRECTIONS:
    pairs = [
      (f'{way}, sinks: {sinks}', f'{way}, sinks: none', _LESS)
      for sinks in orders.SINKS
      if sinks != 'none'
    ]
    ends = f'{way}, sinks: both'
    pairs.append((f'{ends}, {ANOTHER}', f'{ends}, {OWN}', _OWN))
    for one, beside, how in pairs:
      for metric, values in drifts[one].items():
        apart = bootstrap.paired_difference(values, drifts[beside][metric])
        name = f'{metric}, difference'
        rows.append(bench.row(name, one, apart, '', how))
  return rows


def long_plan(
  runs: Runs, direction: str, sinks: str, given: bool = False
) -> Plan:
  """A long video, seen within the positions that the model was trained on.

  Sinks are one latent each. With them a row sees a block's number of latents,
  forward one more, so that those ahead can keep their distance.
  """
  latents, card = runs.bench.pipeline.num_latents, runs.bench.card
  number = {'none': 0, 'both': 2}.get(sinks, 1)
  visible = card.block + (direction == 'forward')
  return orders.long(
    TIMES * latents,
    direction=direction,
    sinks=sinks,
    span=latents,
    sink_latents=1,
    window=visible - number,
    given_first=int(given),
    given_last=int(given),
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
  drift = _drift(video, reference, order)
  course = long_video.courses(video, WINDOWS)
  ends = long_video.ends_apart(course, reference)
  motion = temporal.motion_ratio(video, clips['video'])
  rows = [
    *(
      bench.row(metric, group, bootstrap.mean(drift[metric]), '', how)
      for metric, how in _DRIFTS.items()
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
