"""Suite `transitions`: one shot from one scene to another.

The first frame is that of one held-out clip, the last frame the last of
another one. Cross-fade and cut are the null: they meet both frames, and nothing
moves in them but the blend.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation import bootstrap, seams, temporal
from unitemp_jax.evaluation.suite_bench import Bench, Section
from unitemp_jax.evaluation.suite_orders import MOTION
from unitemp_jax.evaluation.suite_runs import Runs, paste, section
from unitemp_jax.evaluation.suite_vae import thirds

REAL, FADE, CUT = 'real clips', 'cross-fade', 'cut'
SIDES = ('outside_in', 'past')
_JOIN = (
  'frame difference between a given and a generated frame, given frames '
  'pasted in, over the median one; geometric mean over clips'
)
_JUMP = 'largest frame difference over the median one; median over clips'
_RESIDUAL = (
  'root mean square distance of the frames between from the nearest blend of '
  'the two ends, over the distance of the ends; 0 = blend, cut or still'
)
_DIM = (
  'light of the dimmest frame over that of the median one (99.5th percentile '
  'of brightness); a cross-fade is dim in its middle'
)
_GIVEN = 'PSNR against the given frame, decoded jointly, before it is pasted in'
_READ = (
  'share of clips where the oracle reads {} of the clip that {} comes from'
)
_FLOOR = 'share of clips that move at least half as much as real ones'


def run(bench: Bench) -> list[Section]:
  """Measures transitions from clip i to clip i + 1, beside blends."""
  runs = Runs.of(bench)
  real, count = bench.real, runs.count
  other = np.roll(np.arange(count), -1)
  first, last = real[:, 0], real[other, -1]
  length = real.shape[1]
  blends = {
    FADE: temporal.cross_fade(first, last, length),
    CUT: temporal.nearest_frame(first, last, length),
  }
  rows = _rows(runs, REAL, real, np.arange(count))
  for name, video in blends.items():
    video = np.rint(255 * video).astype(np.uint8)
    rows += _rows(runs, name, video, other)
  made = [
    orders.transition(bench.pipeline.num_latents, side=side, **runs.settings())
    for side in SIDES
  ]
  for side, plan in zip(SIDES, plans.align(*made), strict=True):
    name = f'transition, {side}'
    # The scene that it leads to is what the prompt says.
    prompts = [bench.clips['caption'][i] for i in other]
    given = {0: first[:, None], length - 1: last[:, None]}
    video = runs.make(name, plan, prompts, given)
    shown = paste(video, given)
    rows += _rows(runs, name, shown, other)
    rows += _given_rows(bench, name, video, first, last)
  return [section('Transitions between two clips', 'transition', rows)]


def _rows(runs: Runs, group: str, video: np.ndarray, other) -> list:
  bench = runs.bench
  joins = temporal.join_jump(video, [0, video.shape[1] - 2])
  motion = temporal.motion_ratio(video, bench.real)
  residual = bootstrap.mean(seams.blend_residual(video))
  jump = bootstrap.interval(
    lambda x: np.median(x, axis=-1), seams.largest_jump(video)
  )
  dim = bootstrap.mean(seams.dimmest_frame(video))
  rows = [
    bench.row(
      f'join jump, {end}',
      group,
      bootstrap.geometric_mean(jumps),
      'ratio',
      _JOIN,
    )
    for end, jumps in zip(('first', 'last'), joins.T, strict=True)
  ]
  rows += [
    bench.row('largest jump', group, jump, 'ratio', _JUMP),
    bench.row('no blend', group, residual, 'ratio', _RESIDUAL),
    bench.row('dimmest frame', group, dim, 'ratio', _DIM),
    bench.row('motion to real', group, bootstrap.mean(motion), 'ratio', MOTION),
    bench.share('moves', group, motion >= 0.5, _FLOOR),
  ]
  begin, _, end = thirds(video.shape[1])
  for name, part, who in (
    ('first third', begin, np.arange(runs.count)),
    ('last third', end, other),
  ):
    for what, values in runs.reads(video[:, part], who).items():
      how = _READ.format(what, f'the {name.split()[0]} frame')
      rows.append(bench.share(f'{what} of the {name}', group, values, how))
  return rows


def _given_rows(bench, group, made, first, last) -> list:
  rows = []
  for name, at, frame in (('first', 0, first), ('last', -1, last)):
    psnr = bootstrap.mean(temporal.psnr(made[:, at][:, None], frame[:, None]))
    metric = f'PSNR at the {name} frame'
    rows.append(bench.row(metric, group, psnr, 'dB', _GIVEN))
  return rows
