"""Suite `loops`: loops of any length, and whether their seam can be told."""

from __future__ import annotations

import itertools

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation.metrics import bootstrap, seams, temporal
from unitemp_jax.evaluation.suites.bench import MOTION, Bench, Section
from unitemp_jax.evaluation.suites.runs import Runs, exact, section

REAL, CUT = 'real loops', 'forward, cut'
_CLOSURE = (
  'step from the last frame of the playing loop (without the one that is the '
  'first again) to the first over the median step; median over clips'
)
_VELOCITY = (
  'change of velocity across the seam of the playing loop over the median one; '
  'geometric mean'
)
_RANK = {
  'seam': 'the playing loop is rolled by half; share of its other transitions '
  'that stand out less among their 8 neighbours than the old seam does: 0.5 = '
  'the seam cannot be told',
  'join': 'the same of the transition where the block before the first one '
  'meets it, 3 frames before the seam',
}
_FOUND = (
  'share of clips where it stands out most of all transitions of the rolled '
  'loop'
)
_CHANCE = 'that share if it is like any other transition'
_P = (
  'share of random picks of one transition per clip that stand out as much on '
  'average'
)


def run(bench: Bench) -> list[Section]:
  """Measures loops of two lengths, beside real ones and a video cut off."""
  runs = Runs.of(bench)
  latents = bench.pipeline.num_latents
  # Hops close where 16 frames, four latents, divide the length.
  lengths = (latents, 2 * latents - 1)
  made = {
    f'{4 * (length - 1)} frames, {side}': orders.loop(
      # As for users, nothing is seen that is farther away than in training.
      length,
      side=side,
      **runs.settings(span=latents),
    )
    for length in lengths
    for side in ('past', 'future', 'outside_in')
  }
  rows = []
  for length in lengths:
    real = runs.scene('hop', 4 * (length - 1) + 1)['video']
    name = f'{REAL}, {4 * (length - 1)} frames'
    rows += _rows(bench, name, real[:, :-1], real)
  clips = runs.scene('hop', bench.card.frames)
  real = clips['video']
  for name, plan in zip(made, plans.align(*made.values()), strict=True):
    video = runs.make(name, plan, clips['caption'])
    rows += _rows(bench, name, video[:, :-1], real)
  # Negative control: what the same prompts give if nothing closes it.
  video = runs.make(
    CUT, orders.forward(latents, **runs.settings()), clips['caption']
  )
  rows += _rows(bench, CUT, video, real)
  return [section('Loops of hopping digits', 'loops', rows)]


def _rows(bench: Bench, group: str, playing, real) -> list:
  """Rows of playing loops, whose first frame follows their last."""
  closure = temporal.loop_closure(playing)
  middle = bootstrap.interval(lambda x: np.median(x, axis=-1), closure.step)
  velocity = bootstrap.geometric_mean(closure.velocity)
  motion = bootstrap.mean(temporal.motion_ratio(playing, real))
  rows = [
    bench.row('loop closure', group, middle, 'ratio', _CLOSURE),
    bench.row('velocity closure', group, velocity, 'ratio', _VELOCITY),
    bench.row('motion to real', group, motion, 'ratio', MOTION),
  ]
  # A loop begins inside its first block, whose first 3 frames end it: before
  # them the last block meets the first one.
  places = {'seam': playing, 'join': np.roll(playing, 3, axis=1)}
  for place, kind in itertools.product(places, ('step', 'velocity')):
    test = seams.rolled_seam(places[place], turns=kind == 'velocity')
    rank = bootstrap.mean(test.rank)
    p_value = exact(test.p_value, len(playing))
    chance = exact(test.chance, len(playing))
    rows += [
      bench.row(f'{place} rank, {kind}', group, rank, 'ratio', _RANK[place]),
      bench.share(f'{place} found, {kind}', group, test.found, _FOUND),
      bench.row(f'chance, {place}, {kind}', group, chance, '%', _CHANCE),
      bench.row(f'p of the {place}, {kind}', group, p_value, 'ratio', _P),
    ]
  return rows
