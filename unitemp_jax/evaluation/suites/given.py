"""Suites `inbetween`, `transitions`, `keyframes` and `extend`.

Pictures or a clip are taken from held-out clips and given back; the rest is
generated. Is what is given met, does nothing jump where it begins, and is what
lies between more than a blend? The real clips themselves are the reference;
cross-fade and cut are the null: they meet the given frames, and nothing moves
in them but the blend.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from unitemp_jax import orders, timeline
from unitemp_jax.evaluation.metrics import seams, temporal
from unitemp_jax.evaluation.metrics.registry import FLOOR
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import (
  FIRST_GIVEN,
  REAL,
  RECONSTRUCTION,
  Bench,
  Values,
  aligned,
  differences,
  motion,
  paste,
  thirds,
)

INBETWEEN = tuple(name for name in orders.ORDERS if name.startswith('inbe'))
FADE, NEAREST, CUT = 'cross-fade', 'nearest frame', 'cut'
SIDES = ('outside_in', 'past')


def _bytes(video: np.ndarray) -> np.ndarray:
  return np.rint(255 * video).astype(np.uint8)


def _joins(video: np.ndarray) -> Values:
  """Jumps where the ends of a clip are given."""
  jumps = temporal.join_jump(video, [0, video.shape[1] - 2])
  return {'join jump, first': jumps[:, 0], 'join jump, last': jumps[:, 1]}


def _ends_met(video: np.ndarray, first, last) -> Values:
  """PSNR at the two ends; given frames `[n, H, W, 3]`."""
  return {
    'PSNR at the first frame': temporal.psnr(video[:, :1], first[:, None]),
    'PSNR at the last frame': temporal.psnr(video[:, -1:], last[:, None]),
  }


def run_inbetween(bench: Bench) -> list[Section]:
  """Measures given frames, joins and the interior, beside plain blends."""
  real = bench.real
  ends = real[:, 0], real[:, -1]
  fade, nearest = (
    _bytes(temporal.cross_fade(*ends, real.shape[1], cut=cut))
    for cut in (False, True)
  )
  shown = {
    RECONSTRUCTION: bench.reconstruction,
    FADE: fade,
    NEAREST: nearest,
    FIRST_GIVEN: bench.joint(FIRST_GIVEN),
    **{name: bench.joint(name) for name in INBETWEEN},
  }
  table: dict[str, dict] = {
    group: {
      'interior PSNR': temporal.psnr(video[:, 1:-1], real[:, 1:-1]),
      **motion(video, real),
    }
    for group, video in shown.items()
  }
  table[REAL] = _joins(real)
  for name in INBETWEEN:
    table[name] |= _ends_met(shown[name], *ends)
    table[name] |= _joins(paste(shown[name], bench.given(name)))
  inside = {
    group: {'interior PSNR': own.get('interior PSNR')}
    for group, own in table.items()
  }
  pairs = itertools.product(INBETWEEN, (FADE, NEAREST, FIRST_GIVEN))
  paired = differences(inside, pairs)
  return [
    bench.section('Inbetween', table),
    bench.section('Inbetween: interior against blends', paired),
  ]


# Digit and colour, each [n], of the first and of the last frame.
Shown = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def run_transitions(bench: Bench) -> list[Section]:
  """Measures transitions of both kinds, beside blends and real clips.

  The ends are given: those of held-out clips in which a digit becomes another
  one, and, further from what the model has seen, the first frame of one falling
  digit and the last of another.
  """
  turn = bench.scene('turn', bench.card.frames)
  video = turn['video']
  before = turn['digit'], turn['colour']
  after = turn['digit_after'], turn['colour_after']
  clips, captions = bench.clips, bench.clips['caption']
  other = np.roll(np.arange(len(captions)), -1)
  # Each scene has its own prompt, the first one for one block.
  prompts = [[captions[i], captions[k]] for i, k in enumerate(other)]
  switch = ((bench.card.block, 1),)
  own = clips['digit'], clips['colour']
  beside = clips['digit'][other], clips['colour'][other]
  kinds = {
    'Transitions: a digit becomes another': (
      *('transition', video, video[:, -1], turn['caption'], ()),
      *((before, after), (before, after)),
    ),
    'Transitions between two unrelated clips': (
      *('foreign transition', bench.real, bench.real[other, -1], prompts),
      *(switch, (own, beside), (own, own)),
    ),
  }
  return [
    bench.section(title, _transitions(bench, *kind), kind[0])
    for title, kind in kinds.items()
  ]


def _transitions(
  bench: Bench, prefix, real, last, prompts, switch, shown, real_shown
) -> dict[str, Values]:
  """Transitions of one kind.

  Args:
    bench: with the student.
    prefix: of the metrics.
    real: clips that their motion is compared with, which begin as they do.
    last: last frames, `[n, H, W, 3]`.
    prompts: a text for each, or one for each end.
    switch: (position, prompt index) at which the second one takes over, if any.
    shown: digit and colour of the first and of the last frame.
    real_shown: the same of the real clips.
  """
  first, length = real[:, 0], real.shape[1]
  fade, cut = (
    _bytes(temporal.cross_fade(first, last, length, cut=cut))
    for cut in (False, True)
  )
  decoded = bench.decode(bench.encode(real))
  table = {
    name: _transition(bench, real, *clips)
    for name, clips in {
      REAL: (real, real_shown),
      RECONSTRUCTION: (decoded, real_shown),
      FADE: (fade, shown),
      CUT: (cut, shown),
    }.items()
  }
  options = bench.options(prompts=switch)
  made = {
    f'transition, {side}': orders.transition(
      bench.num_latents, side=side, **options
    )
    for side in SIDES
  }
  given = {0: first[:, None], length - 1: last[:, None]}
  for name, video in bench.videos(made, prompts, given):
    table[name] = {
      **_transition(bench, real, paste(video, given), shown),
      **_ends_met(video, first, last),
    }
  return table


def _transition(bench: Bench, real, video, shown: Shown) -> Values:
  moved = motion(video, real)
  found = {
    **_joins(video),
    'largest jump': seams.largest_jump(video),
    'no blend': seams.blend_residual(video),
    'dimmest frame': seams.dimmest_frame(video),
    **moved,
    'moves': moved['motion to real'] >= FLOOR,
  }
  begin, _, end = thirds(video.shape[1])
  for name, part, (digit, colour) in (
    ('first third', begin, shown[0]),
    ('last third', end, shown[1]),
  ):
    own = {'digit': digit, 'colour': colour}
    for metric, values in bench.read(video[:, part], own).items():
      found[f'{metric.split()[0]} of the {name}'] = values
  return found


def run_keyframes(bench: Bench) -> list[Section]:
  """Pictures at both ends and between, and a span made anew."""
  real = bench.real
  latents = bench.num_latents
  middle = (latents - 1) // 2
  at = [timeline.last_frame(k) for k in (0, middle, latents - 1)]
  table = {
    REAL: _keyframes(bench, real, at),
    RECONSTRUCTION: _keyframes(bench, bench.reconstruction, at),
    FADE: _keyframes(bench, _fades(real, at), at),
  }
  del table[REAL]['interior PSNR']
  places = [orders.Conditioning(k, 1) for k in (0, middle, latents - 1)]
  made = {
    f'keyframes, {side}': orders.keyframes(
      latents, places, side=side, **bench.options()
    )
    for side in ('past', 'outside_in')
  }
  pictures = {frame: real[:, frame : frame + 1] for frame in at}
  for name, video in bench.videos(made, bench.clips['caption'], pictures):
    table[name] = {
      **_keyframes(bench, paste(video, pictures), at),
      'PSNR at given frames': temporal.psnr(video[:, at], real[:, at]),
    }
  title = 'Keyframes at the ends and in the middle'
  return [bench.section(title, table, 'keyframes'), _regenerated(bench)]


def _fades(real: np.ndarray, at: Sequence[int]) -> np.ndarray:
  video = real.copy()
  for low, high in itertools.pairwise(at):
    fade = temporal.cross_fade(real[:, low], real[:, high], high - low + 1)
    video[:, low : high + 1] = _bytes(fade)
  return video


def _keyframes(bench: Bench, video: np.ndarray, at: Sequence[int]) -> dict:
  last = video.shape[1] - 1
  joins = sorted({j for f in at for j in (f - 1, f) if 0 <= j < last})
  inside = np.setdiff1d(np.arange(last + 1), at)
  gaps = [
    seams.blend_residual(video[:, low : high + 1])
    for low, high in itertools.pairwise(at)
  ]
  return {
    'join jump': _jump(video, joins),
    'no blend': np.mean(gaps, axis=0),
    **motion(video, bench.real),
    'interior PSNR': temporal.psnr(video[:, inside], bench.real[:, inside]),
  }


def _jump(video: np.ndarray, joins: Sequence[int]) -> np.ndarray:
  """Of each clip, the geometric mean over joins."""
  return np.exp(np.log(temporal.join_jump(video, joins)).mean(axis=1))


def _regenerated(bench: Bench) -> Section:
  """The middle block of real clips made anew, both sides kept."""
  real, block = bench.real, bench.card.block
  start = (bench.num_latents - block) // 2
  # The last frame of the span stays as it is: the clip after it begins there.
  low = timeline.first_frame(start)
  end = timeline.last_frame(start + block - 1)
  joins, span = [low - 1, end - 1], slice(low, end)
  plan = orders.regenerate(bench.num_latents, start, block, **bench.options())
  name = f'frames {low} to {end - 1} made anew'
  kept = {0: real[:, :low], end: real[:, end:]}
  made = bench.video(name, plan, bench.clips['caption'], kept)
  table = {}
  for group, video in (
    (REAL, real),
    (RECONSTRUCTION, bench.reconstruction),
    (FADE, _fades(real, [low - 1, end])),
    (name, paste(made, kept)),
  ):
    table[group] = {
      'join jump': _jump(video, joins),
      'motion to real': temporal.motion_ratio(video[:, span], real),
    }
    if group != REAL:
      psnr = temporal.psnr(video[:, span], real[:, span])
      table[group]['interior PSNR'] = psnr
  return bench.section('A span made anew', table, 'regenerate')


def run_extend(bench: Bench) -> list[Section]:
  """The middle of real clips, extended to either side and to both."""
  real, latents, stride = bench.real, bench.num_latents, timeline.STRIDE
  # A third is given: its first frame stands where a latent ends.
  before = after = latents // 3
  low, high = stride * before, stride * (latents - after - 1)
  clip = real[:, low : high + 1]
  count = latents - before - after
  table = {}
  for group, video in ((REAL, real), (RECONSTRUCTION, bench.reconstruction)):
    table[group] = _extended(bench, video, low, high, real)
  lengths = {'alternate': (before, after), 'past': (before, 0)}
  lengths['future'] = (0, after)
  made = {
    sides: orders.extend(
      count,
      before=past,
      after=future,
      sides=sides,
      # As for users: a video shorter than the model's has an open start.
      **bench.options(open_start=past + count + future < latents),
    )
    for sides, (past, future) in lengths.items()
  }
  for sides, plan in aligned(made).items():
    (past, future), name = lengths[sides], f'extended, {sides}'
    first = stride * past
    given = {first: clip}
    shown = paste(bench.video(name, plan, bench.clips['caption'], given), given)
    same = real[:, low - first : high + 1 + stride * future]
    table[name] = _extended(bench, shown, first, first + high - low, same)
  title = f'Frames {low} to {high} of real clips, extended'
  return [bench.section(title, table, 'extend')]


def _extended(bench: Bench, video, low, high, same) -> Values:
  """Of clips whose frames low .. high are given; `same` are the real ones."""
  parts, last = {}, video.shape[1] - 1
  if low > 0:
    parts['before'] = (video[:, :low], low - 1)
  if high < last:
    parts['after'] = (video[:, high + 1 :], high)
  found = {}
  for name, (part, join) in parts.items():
    read = bench.read(part)
    found |= {
      f'join jump, {name}': _jump(video, [join]),
      f'digit {name}': read['digit read'],
      f'colour {name}': read['colour read'],
      f'motion to real, {name}': temporal.motion_ratio(part, bench.real),
    }
  tail = 'motion of the last third'
  return {**found, tail: motion(video, same)[tail]}
