"""Suite `flicker`: are the seams between blocks visible, and what removes them?

`unitemp_jax/evaluation/README.md` (What anchors do) has the arms and controls.
Each boundary is measured by itself: where anchors reach back to the start of
the video, one is easier. The teacher makes all frames at once: what it shows at
a boundary is no seam, but what its students learn to show there.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unitemp_jax import orders, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, flicker
from unitemp_jax.evaluation.metrics.registry import MARGIN
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import (
  HYBRID,
  LAST_GIVEN,
  NO_ANCHORS,
  REAL,
  START_OFF,
  TEACHER,
  VOID,
  Bench,
  Values,
  bare,
  motion,
)
from unitemp_jax.generate.pipeline import Generated
from unitemp_jax.plans import Plan
from unitemp_jax.plans.decoding import MODES, describe_blocks
from unitemp_jax.video.frames import frame_steps

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = (960, 520), 70, 50, 660, 450
# Okabe and Ito's colours, which most colour-blind people can tell apart.
_COLOURS = ('#5a5a5a', '#e69f00', '#0072b2', '#d55e00', '#009e73', '#cc79a7')
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
  """Draws lines over whole numbers, on a logarithmic scale, uint8 `[H, W, 3]`.

  Args:
    x: int `[n]`, rising.
    lines: positive values `[n]` by what the legend calls them.
    title: above the chart.
    labels: of the two axes.
    marked: x at which a vertical line stands.
  """
  image = Image.new('RGB', _SIZE, (255, 255, 255))
  draw = ImageDraw.Draw(image)
  lines = {name: np.maximum(line, _FLOOR) for name, line in lines.items()}
  values = np.concatenate(list(lines.values()))
  ends = np.log([values.min() / 1.15, values.max() * 1.15])

  def across(value):
    return np.interp(value, [x[0], x[-1]], [_LEFT, _RIGHT])

  def down(value):
    return np.interp(np.log(value), ends, [_BOTTOM, _TOP])

  def write(at, text, anchor, size=14):
    font = ImageFont.load_default(size)
    draw.text(at, text, fill=_INK, anchor=anchor, font=font)

  for tick in _TICKS:
    if ends[0] <= np.log(tick) <= ends[1]:
      draw.line([(_LEFT, down(tick)), (_RIGHT, down(tick))], fill=_FAINT)
      write((_LEFT - 8, down(tick)), f'{tick:g}', 'rm')
  for value in x[:: max(len(x) // 13, 1)]:
    write((across(value), _BOTTOM + 8), str(value), 'mt')
  draw.line([(across(marked), _TOP), (across(marked), _BOTTOM)], fill=_FAINT)
  draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK)
  for k, (name, line) in enumerate(lines.items()):
    colour, y = _COLOURS[k % len(_COLOURS)], _TOP + 12 + 22 * k
    points = list(zip(across(x), down(line), strict=True))
    draw.line(points, fill=colour, width=3)
    draw.line([(_RIGHT + 14, y), (_RIGHT + 40, y)], fill=colour, width=3)
    write((_RIGHT + 48, y), name, 'lm')
  write((_LEFT, 24), title, 'lm', 17)
  write((_RIGHT, _BOTTOM + 40), labels[0], 'rm')
  write((_LEFT + 8, _TOP - 8), labels[1], 'lm')
  return np.asarray(image)


def swap_block(
  latents: np.ndarray, index: int, *, block: int = 3
) -> np.ndarray:
  """Replaces one block of every clip by that of the next clip, modulo n.

  Args:
    latents: [n, N, h, w, C], n >= 2.
    index: which block, counted from 0; it holds latents index*block onwards.
    block: latent frames of a block.

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
  swapped, own = np.array(latents), slice(start, start + block)
  swapped[:, own] = np.roll(latents[:, own], -1, axis=0)
  return swapped


SWAPPED = 'swapped block'
TRUE, TRUE_BARE = 'true latents', 'true latents, P = 0'
PICTURE = 'flicker.png'
_CLIPS = 64  # of the longer videos
_KINDS, _TAIL = ('BFR', 'wide4'), 'motion of the last third'
_REACH = 6  # transitions on each side of a boundary in the picture
# What is compared with what.
_PAIRS = (
  ((LAST_GIVEN, 'lag'), (LAST_GIVEN, 'joint')),
  ((LAST_GIVEN, 'stream'), (LAST_GIVEN, 'joint')),
  ((LAST_GIVEN, 'joint'), (NO_ANCHORS, 'joint')),
  ((LAST_GIVEN, 'stream'), (NO_ANCHORS, 'stream')),
  ((LAST_GIVEN, 'lag'), (NO_ANCHORS, 'lag')),
)
_SHORT = {LAST_GIVEN: 'P = 3', NO_ANCHORS: 'P = 0'}
_COMES = f'what it comes to (lag equals joint if it ends below {MARGIN})'


@dataclasses.dataclass(frozen=True)
class Arm:
  """One arm: ratios by metric, and by mode steps and what is read."""

  ratios: Values
  steps: dict[str, np.ndarray]
  read: dict[str, Values]
  tail: Values


def run(bench: Bench) -> list[Section]:
  """Measures all orders, the backward arms, ceilings and controls."""
  at = describe_blocks(bench.plans['forward'])['boundary_frames']
  at = [j for j in at if j < bench.real.shape[1] - 2]
  arms = {REAL: _still(bench, bench.real, bench.latents, at, MODES)}
  swapped = swap_block(bench.latents, 1, block=bench.card.block)
  arms[SWAPPED] = _still(bench, bench.decode(swapped), swapped, at, ['joint'])
  teacher = bench.teacher_latents
  arms[TEACHER] = _still(bench, bench.teacher, teacher, at, ['joint'])
  for name, plan in ((TRUE, LAST_GIVEN), (TRUE_BARE, NO_ANCHORS)):
    made = true_latents(bench, bench.plans[plan])
    arms[name] = _arm(bench, made, bench.real, at)
  # The blocks of a loop begin elsewhere; its seam has a suite of its own.
  names = [name for name in orders.ORDERS if name != 'loop']
  for name in (*names, LAST_GIVEN, START_OFF, NO_ANCHORS, HYBRID, VOID):
    arms[name] = _arm(bench, bench.made(name), bench.real, at)
  bench.pictures[PICTURE] = _picture(arms, at[-1])
  read = {
    group: {
      metric if mode == 'joint' else f'{metric}, {mode}': values
      for mode, own in arm.read.items()
      for metric, values in own.items()
    }
    for group, arm in arms.items()
  }
  return [
    *(section for j in at for section in _tables(bench, arms, j)),
    bench.section(f'Flicker: {_COMES}', _pairs(arms, at)),
    bench.section('Flicker: controls', _controls(bench)),
    bench.section('Flicker: what the classifier reads', read),
    *_longer(bench),
  ]


def true_latents(bench: Bench, plan: Plan) -> Generated:
  """The encoded clips, as if a plan that is given the last frame made them.

  Its anchors are windowed, the encoding of their frames by themselves.
  """
  last = bench.encode(bench.real[:, -1:])
  latents = np.concatenate([bench.latents, last], axis=1)
  number, grid = plan.num_anchors, latents.shape[2:]
  shape = (plan.num_rows, len(latents), number, *grid)
  anchors = np.zeros(shape, latents.dtype)
  for row in np.flatnonzero(plan.anchor):
    first = int(plan.target[row, 0])
    low, high = (timeline.last_frame(k) for k in (first - number, first - 1))
    anchors[row] = bench.encode(bench.real[:, low : high + 1])
  return Generated(latents, anchors, plan)


def _pixels(steps: np.ndarray, at: Sequence[int], mode: str) -> Values:
  found = {}
  for j in at:
    found[f'BFR at {j}, {mode}'] = flicker.boundary_flicker_ratio(steps, [j])
    found[f'wide4 at {j}, {mode}'] = flicker.wide_ratio(steps, [j])
  return found


def _latents(latents: np.ndarray, at: Sequence[int]) -> Values:
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
  return Arm(ratios, dict.fromkeys(modes, steps), read, {})


def _arm(bench, made: Generated, real: np.ndarray, at) -> Arm:
  """A generated arm, decoded in every mode."""
  ratios, steps, read = _latents(made.timeline, at), {}, {}
  for mode in MODES:
    video = made.decoded(bench.decode, mode)
    steps[mode] = frame_steps(video)
    ratios |= _pixels(steps[mode], at, mode)
    if len(video) == len(bench.real):
      read[mode] = bench.read(video)
    if mode == 'joint':
      tail = motion(video, real)
  return Arm(ratios, steps, read, {_TAIL: tail[_TAIL]})


def _tables(bench, arms: Mapping[str, Arm], j: int) -> list[Section]:
  """The ratios at one boundary, their excess over real clips and teacher."""
  names = [f'{kind} at {j}, {mode}' for kind in _KINDS for mode in MODES]
  names.append(f'latent step at {j}')
  ratios = {
    group: {name: arm.ratios[name] for name in names if name in arm.ratios}
    | arm.tail
    for group, arm in arms.items()
  }
  title = f'Flicker at transition {j}'
  sections = [bench.section(title, ratios)]
  for floor, excess in ((REAL, 'excess'), (TEACHER, 'excess over the teacher')):
    beside = arms[floor].ratios
    over = {
      group: {
        f'{excess} {name}': _excess(arm.ratios[name], beside[name])
        for name in names
        if name in arm.ratios and name in beside
      }
      for group, arm in arms.items()
      if group not in (REAL, floor)
    }
    sections.append(bench.section(f'{title}: excess over {floor}', over))
  return sections


def _excess(values: np.ndarray, floor: np.ndarray) -> bootstrap.Interval:
  """Geometric mean of values minus that of floor, same clips, both `[n]`."""
  return bootstrap.interval(
    lambda a, b: np.exp(a.mean(axis=-1)) - np.exp(b.mean(axis=-1)),
    np.log(values),
    np.log(floor),
  )


def _pairs(arms, at, where: str = '') -> dict[str, Values]:
  """Anchors against none, and the ways to decode, at every boundary."""
  return {
    f'{_SHORT[one]}, {mode} / {_SHORT[other]}, {beside}': {
      f'BFR at {j}{where}, ratio': (
        arms[one].ratios[f'BFR at {j}, {mode}'],
        arms[other].ratios[f'BFR at {j}, {beside}'],
      )
      for j in at
    }
    for (one, mode), (other, beside) in _PAIRS
  }


def _controls(bench) -> dict[str, Values]:
  """What is wrong with a run that begins from nothing."""
  block, table = bench.card.block, {}
  opening = bench.made('forward').timeline[:, :block]
  for name in (LAST_GIVEN, NO_ANCHORS, HYBRID, 'backward', VOID):
    made = bench.made(name).timeline[:, -block:]
    change = np.asarray(made, np.float64) - opening
    apart = np.square(change).reshape(len(made), -1).mean(axis=1)
    table[name] = {
      'distance from an opening': np.sqrt(apart),
      'called forward': bench.arrow.read(bench.joint(name)) > 0.5,
    }
  return table


def _longer(bench) -> list[Section]:
  """Hops of two more blocks than the model was trained on."""
  trained = bench.num_latents
  length = trained + 2 * bench.card.block
  clips = bench.scene('hop', timeline.num_frames(length), most=_CLIPS)
  real = clips['video']
  frames = real.shape[1]
  # As for users, nothing is seen that is farther away than in training.
  plan = orders.backward(length, given_last=1, **bench.options(span=trained))
  at = describe_blocks(plan)['boundary_frames']
  steps = frame_steps(real)
  ratios = {k: v for m in MODES for k, v in _pixels(steps, at, m).items()}
  arms = {REAL: Arm(ratios, dict.fromkeys(MODES, steps), {}, {})}
  given = {frames - 1: real[:, -1:]}
  for name, own in ((LAST_GIVEN, plan), (NO_ANCHORS, bare(plan))):
    title = f'longer, {_SHORT[name]}'
    made = bench.make(title, own, clips['caption'], given)
    arms[name] = _arm(bench, made, real, at)
  table = {
    group: {
      f'BFR at {j} of {frames}, {mode}': arm.ratios[f'BFR at {j}, {mode}']
      for j in at
      for mode in MODES
    }
    | {f'{name} of {frames}': values for name, values in arm.tail.items()}
    for group, arm in arms.items()
  }
  title = f'Flicker of {frames} frames'
  return [
    bench.section(title, table),
    bench.section(f'{title}: {_COMES}', _pairs(arms, at, f' of {frames}')),
  ]


def _picture(arms: Mapping[str, Arm], j: int) -> np.ndarray:
  """Frame differences around a boundary, over those of its neighbourhood."""
  near = np.arange(j - _REACH, j + _REACH + 1)
  lines = {}
  for label, group, mode in (
    (REAL, REAL, 'joint'),
    (TEACHER, TEACHER, 'joint'),
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
