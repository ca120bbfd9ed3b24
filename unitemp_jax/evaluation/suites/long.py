"""Suites `long` and `schedule`: drift of long videos, and prompts that switch.

A block sees equally many latents in all arms of a direction, so that a sink is
one latent of the window less, and arms are compared clip by clip. Two arms are
given the first and the last frame of the real clip, which are their sinks, or
of another clip: the control that must fail. They show digits that hop, since
falls come to rest.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from unitemp_jax import orders, plans, timeline
from unitemp_jax.evaluation.metrics import long_video
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import (
  REAL,
  Bench,
  Values,
  motion,
  thirds,
)
from unitemp_jax.plans import Plan, switches
from unitemp_jax.plans.decoding import describe_blocks

TIMES = 5  # so many times as long as what the model was trained on
WINDOWS = 10
OWN, ANOTHER = "the clip's own frames", "another clip's frames"
# Sinks, and whose frames they are if they are given.
ARMS = (
  *((sinks, None) for sinks in orders.SINKS),
  ('both', OWN),
  ('both', ANOTHER),
)
_CLIPS = 64
_DRIFTS = ('drift as played', 'drift as made', 'from real')


def run_long(bench: Bench) -> list[Section]:
  """Measures drift as played and as made, in both directions."""
  frames = timeline.num_frames(TIMES * bench.num_latents)
  clips = bench.scene('hop', frames, most=_CLIPS)
  first = bench.settings.num_clips
  others = bench.scene('hop', frames, first, _CLIPS)['video']
  reference = long_video.Reference.of(long_video.courses(others, WINDOWS))
  order = list(range(WINDOWS))
  table = {REAL: _drift(bench, clips['video'], clips, reference, order)}
  other = np.roll(np.arange(len(others)), -1)
  for sinks, source in ARMS:
    # The same sinks in both directions share a program.
    both = [
      long_plan(bench, way, sinks, given=source is not None)
      for way in orders.DIRECTIONS
    ]
    for way, plan in zip(orders.DIRECTIONS, plans.align(*both), strict=True):
      name = f'{way}, sinks: {sinks}' + (f', {source}' if source else '')
      given = None
      if source is not None:
        real = clips['video'][other if source == ANOTHER else ...]
        given = {0: real[:, :1], frames - 1: real[:, -1:]}
      video = bench.video(name, plan, clips['caption'], given)
      order = long_video.window_order(frames, WINDOWS, spans(plan))
      table[name] = _drift(bench, video, clips, reference, order)
  parts: tuple[dict, dict] = ({}, {})
  for group, own in table.items():
    for metric, values in own.items():
      part = parts[metric.startswith('drift of ')]
      part.setdefault(group, {})[metric] = values
  title = f'Long videos: {frames} frames'
  return [
    bench.section(title, parts[0], 'long'),
    bench.section(f'{title}: drift as played, by look', parts[1], 'long'),
    bench.section(f'{title}: what sinks do', _paired(table), 'long'),
  ]


def _paired(table: dict[str, Values]) -> dict[str, Values]:
  """Sinks against none, and another clip's against the own."""
  pairs = [(sinks, 'none') for sinks in orders.SINKS if sinks != 'none']
  pairs += [('both', 'past'), ('both', 'future')]
  pairs.append((f'both, {ANOTHER}', f'both, {OWN}'))
  return {
    f'{way}, {one} - {other}': {
      f'{metric}, difference': tuple(
        table[f'{way}, sinks: {sinks}'][metric] for sinks in (one, other)
      )
      for metric in _DRIFTS
    }
    for way in orders.DIRECTIONS
    for one, other in pairs
  }


def long_plan(
  bench: Bench, direction: str, sinks: str, given: bool = False
) -> Plan:
  """A long video, seen within the positions that the model was trained on.

  Sinks are one latent each. With them a row sees a block's number of latents,
  forward one more, so that those ahead can keep their distance.
  """
  number = {'none': 0, 'both': 2}.get(sinks, 1)
  visible = bench.card.block + (direction == 'forward')
  return orders.long(
    TIMES * bench.num_latents,
    direction=direction,
    sinks=sinks,
    span=bench.num_latents,
    sink_latents=None if sinks == 'none' else 1,
    window=visible - number,
    given_first=int(given),
    given_last=int(given),
    **bench.options(),
  )


def spans(plan: Plan) -> list[tuple[int, int]]:
  """First and last frame of every generated block, in the order made."""
  return [
    (
      timeline.first_frame(block[0] - plan.begin),
      timeline.last_frame(block[-1] - plan.begin),
    )
    for block in describe_blocks(plan)['generation_order']
  ]


def _drift(bench: Bench, video, clips, reference, order: Sequence[int]) -> dict:
  """Of long videos, whose windows were made in this order."""
  course = long_video.courses(video, WINDOWS)
  ends = long_video.ends_apart(course, reference.spread)
  drifts = (
    ends.mean(axis=1),
    long_video.growth(course, reference, order).mean(axis=1),
    reference.apart(course).mean(axis=(1, 2)),
  )
  found = dict(zip(_DRIFTS, drifts, strict=True))
  found |= motion(video, clips['video'])
  for look, values in zip(long_video.LOOKS, ends.T, strict=True):
    found[f'drift of {look}'] = values
  cuts = long_video.window_cuts(video.shape[1], WINDOWS)
  # What was made last is where errors would have added up.
  for when, window in (('first', order[0]), ('last', order[-1])):
    part = video[:, cuts[window] : cuts[window + 1]]
    for metric, values in bench.read(part, clips).items():
      found[f'{metric}, {when} made tenth'] = values
  return found


def run_schedule(bench: Bench) -> list[Section]:
  """Switches from the caption of clip i to that of clip i + 1 midway.

  As for users, so that it shows then; also with the block that begins there
  (`plans.switches`), and forward one latent less or more before it.
  """
  latents, clips = bench.num_latents, bench.clips
  # Twice as long, so that there is time before and after the switch.
  length = 2 * latents - latents % 2
  switch = length // 2
  captions = clips['caption']
  other = np.roll(np.arange(len(captions)), -1)
  prompts = [[captions[i], captions[k]] for i, k in enumerate(other)]
  # As for users, nothing is seen that is farther away than in training.
  usual = bench.options(span=latents)
  asked = ((switch, 1),)
  made, sunk = {}, {}
  for direction, sinks in itertools.product(
    orders.DIRECTIONS, ('none', 'both')
  ):
    order = functools.partial(
      orders.long, length, direction=direction, sinks=sinks, **usual
    )

    def make(prompts, order=order):
      return order(prompts=prompts)

    moved = switches.on_time(make, asked)
    group = made if sinks == 'none' else sunk
    name = direction if sinks == 'none' else f'{direction}, sinks'
    group[f'switch, {name}'] = order(prompts=moved)
    group[f'switch not moved, {name}'] = order(prompts=asked)
  made['no switch, forward'] = orders.forward(length, **usual)
  for lead in (switches.LATE - 1, switches.LATE + 1):
    name = f'switch {timeline.STRIDE * lead} frames before, forward'
    own = ((switch - lead, 1),)
    made[name] = orders.forward(length, **usual, prompts=own)
  real = bench.scene('fall', timeline.num_frames(length))['video']
  table, at = {}, timeline.first_frame(switch)
  for name, video in (
    *bench.videos(made, prompts),
    *bench.videos(sunk, prompts),
    (REAL, real),
  ):
    table[name] = _switch(bench, video, other) | motion(video, real)
    if name.startswith('switch'):
      table[name] |= _late(bench, video, other, at)
  title = f'Prompt switch at frame {at} of {real.shape[1]}'
  return [bench.section(title, table, 'schedule')]


def _late(bench: Bench, video, other, asked: int) -> Values:
  """Frames from the one asked for to that at which the second caption shows.

  That splits the frames best into those of the one and of the other; of clips
  whose captions differ in it.
  """
  parts = [video[:, t : t + 1] for t in range(video.shape[1])]
  read = np.stack([bench.digits.read(part)[:2] for part in parts], axis=-1)
  found = {}
  for name, shown in zip(('digit', 'colour'), read, strict=True):
    own = np.asarray(bench.clips[name])[:, None]
    gain = np.where(shown == own, 1, 0) - np.where(shown == own[other], 1, 0)
    best = np.pad(gain.cumsum(axis=1), ((0, 0), (1, 0))).argmax(axis=1)
    late = (best - asked)[own[:, 0] != own[other, 0]]
    found |= {f'frames late, {name}': late, f'frames off, {name}': abs(late)}
  return found


def _switch(bench: Bench, video, other) -> Values:
  begin, _, end = thirds(video.shape[1])
  own = {key: bench.clips[key] for key in ('digit', 'colour')}
  second = {key: values[other] for key, values in own.items()}
  found = {}
  for name, part, clips in (
    ('first third, first prompt', begin, own),
    ('last third, second prompt', end, second),
    ('last third, first prompt', end, own),
  ):
    for metric, values in bench.read(video[:, part], clips).items():
      found[f'{metric.split()[0]}, {name}'] = values
  return found
