"""Suites `loop` and `loops`: does the end meet the start, can the seam be told?

Loops of falls close though no fall does; loops of hops, of two lengths, have
real ones beside them. Clips that are cut off are no loops: the control.
"""

import itertools

import numpy as np

from unitemp_jax import orders, timeline
from unitemp_jax.evaluation.metrics import bootstrap, seams, temporal
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import REAL, Bench, Values, motion

REAL_LOOPS, CUT = 'real loops', 'forward, cut'


def run_loop(bench: Bench) -> list[Section]:
  """Measures the seam of the loop, beside clips that are no loops."""
  videos = {
    # Its last frame is the first again, which a player does not show twice.
    'loop': bench.joint('loop')[:, :-1],
    'forward': bench.joint('forward'),
    REAL: bench.real,
  }
  table = {
    group: temporal.loop_closure(playing) for group, playing in videos.items()
  }
  return [bench.section('Loop', table)]


def run_loops(bench: Bench) -> list[Section]:
  """Measures loops of two lengths, beside real ones and a video cut off."""
  latents = bench.num_latents
  # Hops close where 16 frames, four latents, divide the length.
  lengths = (latents, 2 * latents - 1)
  made = {
    f'{timeline.num_frames(length) - 1} frames, {side}': orders.loop(
      # As for users, nothing is seen that is farther away than in training.
      length,
      side=side,
      **bench.options(span=latents),
    )
    for length in lengths
    for side in ('past', 'future', 'outside_in')
  }
  table = {}
  for frames in map(timeline.num_frames, lengths):
    real = bench.scene('hop', frames)['video']
    name = f'{REAL_LOOPS}, {frames - 1} frames'
    table[name] = _loop(bench, real[:, :-1], real)
  clips = bench.scene('hop', bench.card.frames)
  captions, real = clips['caption'], clips['video']
  for name, video in bench.videos(made, captions):
    table[name] = _loop(bench, video[:, :-1], real)
  # Negative control: what the same prompts give if nothing closes it.
  cut = orders.forward(latents, **bench.options())
  table[CUT] = _loop(bench, bench.video(CUT, cut, captions), real)
  return [bench.section('Loops of hopping digits', table, 'loops')]


def _loop(bench: Bench, playing, real) -> Values:
  """Of playing loops, whose first frame follows their last."""
  closure = temporal.loop_closure(playing)
  del closure['BFR of the seam']
  found = closure | motion(playing, real)
  # A loop begins inside its first block, whose first 3 frames end it: before
  # them the last block meets the first one.
  early = timeline.STRIDE - 1
  places = {'seam': playing, 'join': np.roll(playing, early, axis=1)}
  for place, kind in itertools.product(places, ('step', 'velocity')):
    test = seams.rolled_seam(places[place], turns=kind == 'velocity')
    count = len(playing)
    found |= {
      f'{place} rank, {kind}': test.rank,
      f'{place} found, {kind}': test.found,
      f'chance, {place}, {kind}': bootstrap.exact(test.chance, count),
      f'p of the {place}, {kind}': bootstrap.exact(test.p_value, count),
    }
  return found
