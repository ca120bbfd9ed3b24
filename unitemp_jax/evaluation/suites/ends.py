"""Suites `inbetween` and `loop`: does a video meet the ends it was given?"""

from __future__ import annotations

import numpy as np

from unitemp_jax import orders
from unitemp_jax.evaluation.metrics import bootstrap, temporal
from unitemp_jax.evaluation.suites.bench import FIRST_GIVEN, Bench, Section

INBETWEEN = tuple(name for name in orders.ORDERS if name.startswith('inbe'))
CROSS_FADE, NEAREST = 'cross-fade', 'nearest frame'
_GIVEN = (
  'PSNR against the given frame of a real clip, decoded jointly, before the '
  'given frame is pasted in'
)
_JOIN = (
  'frame difference between a given and a generated frame, given frames '
  'pasted in, over the median one; geometric mean over clips'
)
_INSIDE = 'PSNR of the frames between the given ones against the real clip'
_PAIRED = f'{_INSIDE}, paired by caption'
_STEP = (
  'step from the last frame of the playing loop (without the one that is the '
  'first again) to the first over the median step; median over clips'
)
_VELOCITY = (
  'change of velocity across that seam over the median one; geometric mean'
)
_ROLLED = 'boundary flicker ratio at the seam of the playing loop'


def run_inbetween(bench: Bench) -> list[Section]:
  """Measures given frames, joins and the interior, beside plain blends."""
  real = bench.real
  ends = real[:, 0], real[:, -1], real.shape[1]
  videos = {
    'VAE reconstruction': lambda: bench.reconstruction,
    CROSS_FADE: lambda: temporal.cross_fade(*ends),
    NEAREST: lambda: temporal.nearest_frame(*ends),
    FIRST_GIVEN: lambda: bench.joint(FIRST_GIVEN),
  }
  rows, inside = [], {}
  for group, video in videos.items():
    shown = video()
    inside[group] = _interior(shown, real)
    rows += _interior_rows(bench, group, inside[group], shown)
  rows += _join_rows(bench, 'real clips', real)
  for name in INBETWEEN:
    shown = bench.joint(name)
    inside[name] = _interior(shown, real)
    rows += _interior_rows(bench, name, inside[name], shown)
    rows += _given_rows(bench, name, shown)
    rows += _join_rows(bench, name, bench.given(name).paste(shown))
  paired = []
  for name in INBETWEEN:
    for other in (CROSS_FADE, NEAREST, FIRST_GIVEN):
      apart = bootstrap.paired_difference(inside[name], inside[other])
      metric, group = 'interior PSNR, difference', f'{name} - {other}'
      paired.append(bench.row(metric, group, apart, 'dB', _PAIRED))
  return [
    Section('Inbetween', tuple(rows)),
    Section('Inbetween: interior against blends', tuple(paired)),
  ]


def _interior(video, real) -> np.ndarray:
  if video.dtype != np.uint8:
    video = np.rint(video * 255).astype(np.uint8)
  return temporal.psnr(video[:, 1:-1], real[:, 1:-1])


def _interior_rows(bench, group, psnr, video) -> list:
  measured = bootstrap.mean(psnr)
  return [
    bench.row('interior PSNR', group, measured, 'dB', _INSIDE),
    *bench.motion(group, video),
  ]


def _given_rows(bench, group, video) -> list:
  rows = []
  for name, at in (('first', slice(0, 1)), ('last', slice(-1, None))):
    psnr = bootstrap.mean(temporal.psnr(video[:, at], bench.real[:, at]))
    rows.append(
      bench.row(f'PSNR at the {name} frame', group, psnr, 'dB', _GIVEN)
    )
  return rows


def _join_rows(bench, group, video) -> list:
  jumps = temporal.join_jump(video, [0, video.shape[1] - 2])
  return [
    bench.row(
      f'join jump, {name}',
      group,
      bootstrap.geometric_mean(jump),
      'ratio',
      _JOIN,
    )
    for name, jump in zip(('first', 'last'), jumps.T, strict=True)
  ]


def run_loop(bench: Bench) -> list[Section]:
  """Measures the seam of the loop, beside clips that are no loops."""
  videos = {
    # Its last frame is the first again, which a player does not show twice.
    'loop': bench.joint('loop')[:, :-1],
    'forward': bench.joint('forward'),
    'real clips': bench.real,
  }
  rows = []
  for group, playing in videos.items():
    closure = temporal.loop_closure(playing)
    middle = bootstrap.interval(lambda x: np.median(x, axis=-1), closure.step)
    velocity = bootstrap.geometric_mean(closure.velocity)
    rolled = bootstrap.geometric_mean(closure.rolled)
    rows += [
      bench.row('loop closure', group, middle, 'ratio', _STEP),
      bench.row('velocity closure', group, velocity, 'ratio', _VELOCITY),
      bench.row('BFR of the seam', group, rolled, 'ratio', _ROLLED),
    ]
  return [Section('Loop', tuple(rows))]
