"""Suite `flicker`: are the seams between blocks visible, and what removes them?

Every order is decoded in the three ways of `plans.decoding`, and measured at
each boundary by itself: where anchors reach back to the start of the video, a
boundary is easier. What anchors do is told by backward runs that are given the
last frame, with and without them, and by one of which the first block alone has
some. The void arm has neither context nor anchors in its first block, so that
it makes an opening and puts it at the end: a control that must fail, as must
the swapped block. Motion of the last third stands beside the ratios, since a
tail that stands still lowers them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, flicker
from unitemp_jax.evaluation.metrics.results import Result
from unitemp_jax.evaluation.suites.bench import (
  HYBRID,
  LAST_GIVEN,
  NO_ANCHORS,
  START_OFF,
  VOID,
  Bench,
  Section,
  bare,
)
from unitemp_jax.evaluation.suites.runs import Runs
from unitemp_jax.evaluation.suites.vae import read_rows
from unitemp_jax.generate.pipeline import Generated
from unitemp_jax.plans import Plan
from unitemp_jax.plans.decoding import MODES
from unitemp_jax.video.frames import frame_steps

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = (960, 520), 70, 50, 660, 450
# Okabe and Ito's colours, which most colour-blind people can tell apart.
_COLOURS = (
  (90, 90, 90),
  (0, 114, 178),
  (213, 94, 0),
  (0, 158, 115),
  (204, 121, 167),
)
_INK, _FAINT = (30, 30, 30), (220, 220, 220)
_FLOOR = 0.2  # what is lower is drawn there
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def curves(
  x: np.ndarray,
  lines: Mapping[str, np.ndarray],
  *,
  title: str,
  labels: tuple[str, str],
  marked: int,
) -> np.ndarray:
  """Draws lines over whole numbers, on a logarithmic scale.

  Args:
    x: int `[n]`, rising.
    lines: positive values `[n]` by what the legend calls them.
    title: above the chart.
    labels: of the two axes.
    marked: x at which a vertical line stands.

  Returns:
    uint8 `[H, W, 3]`.
  """
  image = Image.new('RGB', _SIZE, (255, 255, 255))
  draw = ImageDraw.Draw(image)
  lines = {name: np.maximum(line, _FLOOR) for name, line in lines.items()}
  values = np.concatenate(list(lines.values()))
  low, high = np.log(values.min() / 1.15), np.log(values.max() * 1.15)

  def across(value):
    share = (value - x[0]) / max(x[-1] - x[0], 1)
    return _LEFT + share * (_RIGHT - _LEFT)

  def down(value):
    share = (np.log(value) - low) / (high - low)
    return _BOTTOM - share * (_BOTTOM - _TOP)

  for tick in _TICKS:
    if low <= np.log(tick) <= high:
      y = down(tick)
      draw.line([(_LEFT, y), (_RIGHT, y)], fill=_FAINT)
      _write(draw, (_LEFT - 8, y), f'{tick:g}', 'rm')
  for value in x[:: max(len(x) // 13, 1)]:
    _write(draw, (across(value), _BOTTOM + 8), str(value), 'mt')
  draw.line([(across(marked), _TOP), (across(marked), _BOTTOM)], fill=_FAINT)
  draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK)
  for k, (name, line) in enumerate(lines.items()):
    colour = _COLOURS[k % len(_COLOURS)]
    points = [(across(a), down(b)) for a, b in zip(x, line, strict=True)]
    draw.line(points, fill=colour, width=3)
    y = _TOP + 12 + 22 * k
    draw.line([(_RIGHT + 14, y), (_RIGHT + 40, y)], fill=colour, width=3)
    _write(draw, (_RIGHT + 48, y), name, 'lm')
  _write(draw, (_LEFT, 24), title, 'lm', 17)
  _write(draw, (_RIGHT, _BOTTOM + 40), labels[0], 'rm')
  _write(draw, (_LEFT + 8, _TOP - 8), labels[1], 'lm')
  return np.asarray(image)


def _write(draw, at, text: str, anchor: str, size: int = 14) -> None:
  draw.text(
    at, text, fill=_INK, anchor=anchor, font=ImageFont.load_default(size)
  )


def swap_block(
  latents: np.ndarray, index: int, *, block: int = 3, mix: float = 1.0
) -> np.ndarray:
  """Replaces one block of every clip by the next clip's block.

  Args:
    latents: [n, N, h, w, C], n >= 2.
    index: which block, counted from 0; it holds latents index*block onwards.
    block: latent frames of a block.
    mix: share of the other clip, 1 = replaced wholly.

  Returns:
    New latents, [n, N, h, w, C]; clip i got its block from clip i+1 modulo n.

  Raises:
    UserError: a single clip, or no such block.
  """
  start = index * block
  if len(latents) < 2:
    raise UserError(
      'swapping a block needs at least two clips, but got '
      f'{len(latents)}; pass more.'
    )
  if not 0 <= start < latents.shape[1]:
    raise UserError(
      f'there is no block {index} of {block} latents in {latents.shape[1]} '
      'latents; choose an earlier one.'
    )
  swapped = np.array(latents)
  chosen = swapped[:, start : start + block]
  other = np.roll(chosen, -1, axis=0)
  swapped[:, start : start + block] = (1 - mix) * chosen + mix * other
  return swapped


REAL, SWAPPED = 'real clips', 'swapped block'
TRUE, TRUE_BARE = 'true latents', 'true latents, P = 0'
PICTURE = 'flicker.png'
# Lag is as good as joint decoding if the ratio of the two is below this.
MARGIN = 1.1
_CLIPS = 64  # of the longer videos
_REACH = 6  # transitions on each side of a boundary in the picture
_HOW = {
  'BFR': 'frame difference at the boundary over the median around it',
  'wide4': 'mean of the 4 frame differences from the boundary on over 4 on '
  'each side',
  'latent step': 'change of the latents across the boundary over the changes '
  'beside it; the real one is that of the encoded clips',
}
_ALIKE = 'geometric mean over clips'
_EXCESS = 'geometric mean minus that of the real clips'
_PAIRED = 'geometric mean of the ratio of the two, paired by caption'
_EQUAL = f'{_PAIRED}; equivalent if the interval ends below {MARGIN}'
_OPENING = (
  'root mean square difference, same seeds, of the first block made from the '
  'opening of the forward run'
)
# What is compared with what, and how that is said.
_PAIRS = (
  ((LAST_GIVEN, 'lag'), (LAST_GIVEN, 'joint'), _EQUAL),
  ((LAST_GIVEN, 'stream'), (LAST_GIVEN, 'joint'), _PAIRED),
  ((LAST_GIVEN, 'joint'), (NO_ANCHORS, 'joint'), _PAIRED),
  ((LAST_GIVEN, 'stream'), (NO_ANCHORS, 'stream'), _PAIRED),
  ((LAST_GIVEN, 'lag'), (NO_ANCHORS, 'lag'), _PAIRED),
)
_SHORT = {LAST_GIVEN: 'P = 3', NO_ANCHORS: 'P = 0'}

Ratios = dict[str, np.ndarray]  # [n], by metric


@dataclasses.dataclass(frozen=True)
class Arm:
  """One arm: ratios by metric, and by mode steps and what is read."""

  ratios: Ratios
  steps: dict[str, np.ndarray]
  read: dict[str, dict[str, np.ndarray]]
  tail: Sequence[Result] = ()


def run(bench: Bench) -> list[Section]:
  """Measures all orders, the backward arms, ceilings and controls."""
  at = flicker.boundaries(bench.pipeline.num_latents, bench.card.block)
  at = [j for j in at.tolist() if j < bench.real.shape[1] - 2]
  made: dict[str, Callable[[], Generated]] = {
    TRUE: lambda: true_latents(bench, bench.plans[LAST_GIVEN]),
    TRUE_BARE: lambda: true_latents(bench, bench.plans[NO_ANCHORS]),
  }
  # The blocks of a loop begin elsewhere; its seam has a suite of its own.
  names = [name for name in orders.ORDERS if name != 'loop']
  for name in (*names, LAST_GIVEN, START_OFF, NO_ANCHORS, HYBRID, VOID):
    made[name] = functools.partial(bench.made, name)
  arms = {REAL: _still(bench, bench.real, bench.latents, at, MODES)}
  swapped = swap_block(bench.latents, 1, block=bench.card.block)
  arms[SWAPPED] = _still(bench, bench.decode(swapped), swapped, at, ['joint'])
  for name, generated in made.items():
    arms[name] = _arm(bench, name, generated(), bench.real, at)
  bench.pictures[PICTURE] = _picture(arms, at[-1])
  sections = [
    section
    for j in at
    for section in _tables(bench, arms, j, f'Flicker at transition {j}')
  ]
  read = []
  for group, arm in arms.items():
    for mode, values in arm.read.items():
      read += read_rows(bench, group, values, mode)
  return [
    *sections,
    Section('Flicker: what it comes to', tuple(_pairs(bench, arms, at))),
    Section('Flicker: controls', tuple(_controls(bench))),
    Section('Flicker: what the classifier reads', tuple(read)),
    *_longer(bench),
  ]


def true_latents(bench: Bench, plan: Plan) -> Generated:
  """The encoded clips, as if a plan that is given the last frame made them.

  Its anchors are windowed, the encoding of their frames by themselves.
  """
  latents = np.concatenate(
    [bench.latents, bench.encode(bench.real[:, -1:])], axis=1
  )
  number, grid = plan.num_anchors, latents.shape[2:]
  shape = (plan.num_rows, len(latents), number, *grid)
  anchors = np.zeros(shape, latents.dtype)
  for row in np.flatnonzero(plan.anchor):
    first = int(plan.target[row, 0])
    frames = slice(4 * (first - number), 4 * (first - 1) + 1)
    anchors[row] = bench.encode(bench.real[:, frames])
  return Generated(latents, anchors, plan)


def _pixels(steps: np.ndarray, at: Sequence[int], mode: str) -> Ratios:
  found = {}
  for j in at:
    found[f'BFR at {j}, {mode}'] = flicker.boundary_flicker_ratio(steps, [j])
    found[f'wide4 at {j}, {mode}'] = flicker.wide_ratio(steps, [j])
  return found


def _latents(latents: np.ndarray, at: Sequence[int]) -> Ratios:
  latents = latents.reshape(*latents.shape[:2], 1, 1, -1)
  return {
    f'latent step at {j}': flicker.latent_step_ratio(latents, [j]) for j in at
  }


def _still(bench, video, latents, at, modes) -> Arm:
  """Pixels that are the same in every mode."""
  steps, ratios = frame_steps(video), _latents(latents, at)
  for mode in modes:
    ratios |= _pixels(steps, at, mode)
  read = {'joint': bench.read(video)}
  return Arm(ratios, dict.fromkeys(modes, steps), read)


def _arm(bench, group, made: Generated, real: np.ndarray, at) -> Arm:
  """A generated arm, decoded in every mode."""
  ratios, steps, read = _latents(made.timeline, at), {}, {}
  for mode in MODES:
    video = made.decoded(bench.decode, mode)
    steps[mode] = frame_steps(video)
    ratios |= _pixels(steps[mode], at, mode)
    if len(video) == len(bench.real):
      read[mode] = bench.read(video)
    if mode == 'joint':
      tail = bench.motion(group, video, real)[1:]
  return Arm(ratios, steps, read, tail)


def _metrics(j: int) -> dict[str, str]:
  """Names of the metrics at one boundary, and how each is obtained."""
  found = {
    f'{kind} at {j}, {mode}': f'{_HOW[kind]}, {mode} decoding'
    for kind in ('BFR', 'wide4')
    for mode in MODES
  }
  return {**found, f'latent step at {j}': _HOW['latent step']}


def _tables(bench, arms: Mapping[str, Arm], j: int, title: str):
  """The ratios at one boundary, and their excess over real clips."""
  ratios, over = [], []
  for group, arm in arms.items():
    for metric, how in _metrics(j).items():
      if metric not in arm.ratios:
        continue
      values = arm.ratios[metric]
      measured = bootstrap.geometric_mean(values)
      row = bench.row(metric, group, measured, 'ratio', f'{how}, {_ALIKE}')
      ratios.append(row)
      if group != REAL:
        excess = _excess(values, arms[REAL].ratios[metric])
        name, how = f'excess {metric}', f'{how}, {_EXCESS}'
        over.append(bench.row(name, group, excess, 'ratio', how))
    ratios += arm.tail
  return [
    Section(title, tuple(ratios)),
    Section(f'{title}: excess over real', tuple(over)),
  ]


def _excess(values: np.ndarray, floor: np.ndarray) -> bootstrap.Interval:
  """Geometric mean of values minus that of floor, same clips, both `[n]`."""
  return bootstrap.interval(
    lambda a, b: np.exp(a.mean(axis=-1)) - np.exp(b.mean(axis=-1)),
    np.log(values),
    np.log(floor),
  )


def _pairs(bench, arms, at, where: str = '') -> list:
  """Anchors against none, and the ways to decode, at every boundary."""
  rows = []
  for (one, mode), (other, beside), how in _PAIRS:
    group = f'{_SHORT[one]}, {mode} / {_SHORT[other]}, {beside}'
    for j in at:
      ratio = bootstrap.paired_ratio(
        arms[one].ratios[f'BFR at {j}, {mode}'],
        arms[other].ratios[f'BFR at {j}, {beside}'],
      )
      metric = f'BFR at {j}{where}, ratio'
      rows.append(bench.row(metric, group, ratio, 'ratio', how))
  return rows


def _controls(bench) -> list:
  """What is wrong with a run that begins from nothing."""
  block, rows = bench.card.block, []
  opening = bench.made('forward').timeline[:, :block]
  for name in (LAST_GIVEN, NO_ANCHORS, HYBRID, 'backward', VOID):
    made = bench.made(name).timeline[:, -block:]
    change = np.asarray(made, np.float64) - opening
    apart = np.sqrt(np.square(change).reshape(len(made), -1).mean(axis=1))
    metric = 'distance from an opening'
    rows.append(bench.row(metric, name, bootstrap.mean(apart), '', _OPENING))
    forward = bench.arrow.read(bench.joint(name)) > 0.5
    how = 'share of clips that the classifier of reversed clips calls forward'
    rows.append(bench.share('called forward', name, forward, how))
  return rows


def _longer(bench) -> list[Section]:
  """Hops of two more blocks than the model was trained on."""
  runs, block = Runs.of(bench, _CLIPS), bench.card.block
  trained = bench.pipeline.num_latents
  length = trained + 2 * block
  clips = runs.scene('hop', 1 + 4 * (length - 1))
  # As for users, nothing is seen that is farther away than in training.
  plan = orders.backward(length, given_last=1, **runs.settings(span=trained))
  given = {4 * (length - 1): clips['video'][:, -1:]}
  at = flicker.boundaries(length, block).tolist()
  real = clips['video']
  steps = frame_steps(real)
  arms = {
    REAL: Arm(
      {k: v for mode in MODES for k, v in _pixels(steps, at, mode).items()},
      dict.fromkeys(MODES, steps),
      {},
    )
  }
  for name, own in ((LAST_GIVEN, plan), (NO_ANCHORS, bare(plan))):
    made = runs.generate(
      f'longer, {_SHORT[name]}', own, clips['caption'], given
    )
    arms[name] = _arm(bench, name, made, real, at)
  frames = real.shape[1]
  rows = []
  for group, arm in arms.items():
    for j in at:
      for mode in MODES:
        values = bootstrap.geometric_mean(arm.ratios[f'BFR at {j}, {mode}'])
        metric = f'BFR at {j} of {frames}, {mode}'
        how = f'{_HOW["BFR"]}, {mode} decoding, {_ALIKE}'
        rows.append(bench.row(metric, group, values, 'ratio', how))
  title = f'Flicker of {frames} frames'
  pairs = _pairs(bench, arms, at, f' of {frames}')
  return [
    Section(title, tuple(rows)),
    Section(f'{title}: what it comes to', tuple(pairs)),
  ]


def _picture(arms: Mapping[str, Arm], j: int) -> np.ndarray:
  """Frame differences around a boundary, over those of its neighbourhood."""
  near = np.arange(j - _REACH, j + _REACH + 1)
  lines = {}
  for label, group, mode in (
    (REAL, REAL, 'joint'),
    ('joint', LAST_GIVEN, 'joint'),
    ('stream', LAST_GIVEN, 'stream'),
    ('lag', LAST_GIVEN, 'lag'),
    ('void (P = 0, no context), stream', VOID, 'stream'),
  ):
    steps = arms[group].steps[mode]
    near = near[near < steps.shape[1]]
    level = np.median(steps[:, near], axis=1, keepdims=True)
    ratio = np.log(steps[:, near] + 1e-4) - np.log(level + 1e-4)
    lines[label] = np.exp(ratio.mean(axis=0))
  return curves(
    near,
    lines,
    title=f'Is there a seam at the block boundary, transition {j}?',
    labels=('transition', 'frame difference over the median around'),
    marked=j,
  )
