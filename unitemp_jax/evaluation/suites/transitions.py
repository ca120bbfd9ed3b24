"""Suite `transitions`: one shot from one scene to another.

The ends are given: the first and last frame of held-out clips in which a digit
becomes another one, and, further from what the model has seen, the first frame
of one falling digit and the last of another. Cross-fade and cut are the null:
they meet both frames, and nothing moves in them but the blend.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation.metrics import bootstrap, seams, temporal
from unitemp_jax.evaluation.suites.bench import MOTION, Bench, Section
from unitemp_jax.evaluation.suites.runs import Runs, paste, section
from unitemp_jax.evaluation.suites.vae import thirds

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
  'of the brightest channel); a cross-fade is dim in its middle'
)
_GIVEN = 'PSNR against the given frame, decoded jointly, before it is pasted in'
_READ = (
  'share of clips where the classifier reads {} of the clip that {} comes from'
)
_FLOOR = 'share of clips that move at least half as much as real ones'


# Digit and colour, each [n], of the first and of the last frame.
Shown = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Task:
  """Transitions to be made.

  Attributes:
    prefix: of the metrics.
    real: clips that their motion is compared with.
    first: first frames, `[n, H, W, 3]`.
    last: last frames.
    prompts: a text for each, or one for each end.
    switch: (position, prompt index) at which the second one takes over, if any.
    shown: digit and colour of the first and of the last frame.
    real_shown: the same of the real clips.
  """

  prefix: str
  real: np.ndarray
  first: np.ndarray
  last: np.ndarray
  prompts: list[str] | list[list[str]]
  switch: tuple[tuple[int, int], ...]
  shown: Shown
  real_shown: Shown


def run(bench: Bench) -> list[Section]:
  """Measures transitions of both kinds, beside blends and real clips."""
  runs = Runs.of(bench)
  turn = runs.scene('turn', bench.card.frames)
  video = turn['video']
  before = turn['digit'], turn['colour']
  after = turn['digit_after'], turn['colour_after']
  known = _Task(
    'transition',
    video,
    video[:, 0],
    video[:, -1],
    turn['caption'],
    (),
    (before, after),
    (before, after),
  )
  clips, video = bench.clips, bench.real
  other = np.roll(np.arange(runs.count), -1)
  own = clips['digit'], clips['colour']
  foreign = _Task(
    'foreign transition',
    video,
    video[:, 0],
    video[other, -1],
    # Each scene has its own prompt, the first one for one block.
    [[clips['caption'][i], clips['caption'][k]] for i, k in enumerate(other)],
    ((bench.card.block, 1),),
    (own, (clips['digit'][other], clips['colour'][other])),
    (own, own),
  )
  return [
    section(title, task.prefix, _measure(runs, task))
    for title, task in (
      ('Transitions: a digit becomes another', known),
      ('Transitions between two unrelated clips', foreign),
    )
  ]


def _measure(runs: Runs, task: _Task) -> list:
  bench, length = runs.bench, task.real.shape[1]
  blends = {
    FADE: temporal.cross_fade(task.first, task.last, length),
    CUT: temporal.nearest_frame(task.first, task.last, length),
  }
  rows = _rows(runs, task, REAL, task.real, task.real_shown)
  for name, blend in blends.items():
    blend = np.rint(255 * blend).astype(np.uint8)
    rows += _rows(runs, task, name, blend, task.shown)
  made = [
    orders.transition(
      bench.pipeline.num_latents,
      side=side,
      **runs.settings(prompts=task.switch),
    )
    for side in SIDES
  ]
  given = {0: task.first[:, None], length - 1: task.last[:, None]}
  for side, plan in zip(SIDES, plans.align(*made), strict=True):
    name = f'transition, {side}'
    video = runs.make(f'{task.prefix}, {side}', plan, task.prompts, given)
    rows += _rows(runs, task, name, paste(video, given), task.shown)
    rows += _given_rows(bench, name, video, task.first, task.last)
  return rows


def _rows(
  runs: Runs, task: _Task, group: str, video: np.ndarray, shown: Shown
) -> list:
  bench = runs.bench
  joins = temporal.join_jump(video, [0, video.shape[1] - 2])
  motion = temporal.motion_ratio(video, task.real)
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
  for name, part, own in (
    ('first third', begin, shown[0]),
    ('last third', end, shown[1]),
  ):
    for what, values in runs.reads(video[:, part], *own).items():
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
