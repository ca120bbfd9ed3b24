"""Falling digits: procedural clips with an arrow of time and an exact state.

Handwritten digits of scikit-learn (8x8, split into train and test by image)
fall under gravity, bounce with damping, drift sideways until friction stops
them and leave a fading trail of ink. A clip played backwards is recognisable
as such, which a bouncing digit at constant speed is not.

Two further scenes can be mixed in: hops of 16 frames on the spot, which go on
for ever and so can close a loop, and falls in which the digit turns into
another one of another colour, which a transition between two scenes needs.

All motion is a closed formula of time, so that positions are exact.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unitemp_jax.data import falling_digits_captions as captions
from unitemp_jax.data import falling_digits_drawing as drawing
from unitemp_jax.errors import UserError

COLOURS = captions.COLOURS
DIGIT_NAMES = captions.DIGIT_NAMES
SIDES = captions.SIDES
COLOUR_RGB = drawing.COLOUR_RGB
SPLITS = ('train', 'test')

SCENES = ('fall', 'hop', 'turn')
HOP_FRAMES = 16  # of one hop

_BOUNCES = 12  # later bounces are below a hundredth of a pixel
_LEAD = 8  # frames before a clip whose trail is still seen
_TURN_FRAMES = 8  # in which a digit turns into another


@dataclasses.dataclass(frozen=True)
class FallingDigitsSpec:
  """What clips to make.

  Attributes:
    num_frames: frames per clip.
    size: height and width in pixels.
    split: 'train' or 'test'; they share no digit image.
    seed: another seed gives other clips.
    digit_size: height of a digit's 8x8 box as a part of the frame's height.
    trail: ink left one frame behind the digit, as a part of the digit's ink.
    trail_decay: factor by which the trail fades per frame.
    rest_share: share of the falls that land without a bounce.
    hop_share: share of clips that hop on the spot.
    turn_share: share of clips that fall and turn into another digit.
  """

  num_frames: int = 33
  size: int = 32
  split: str = 'train'
  seed: int = 0
  digit_size: float = 0.6
  trail: float = 0.42
  trail_decay: float = 0.6
  rest_share: float = 0.25
  hop_share: float = 0.0
  turn_share: float = 0.0

  def __post_init__(self):
    if self.split not in SPLITS:
      raise UserError(
        f'split {self.split!r} of falling_digits does not exist: use one of '
        f'{", ".join(SPLITS)}.'
      )
    if self.num_frames < 1 or self.size < 16 or not 0 <= self.seed < 2**63:
      raise UserError(
        'falling_digits needs num_frames >= 1, size >= 16 and a seed >= 0, '
        f'got {self.num_frames}, {self.size} and {self.seed}.'
      )
    if not 0.2 <= self.digit_size <= 0.65:
      raise UserError(
        'digit_size of falling_digits must lie in 0.2 .. 0.65 so that a fall '
        f'stays visible, got {self.digit_size}.'
      )
    if min(self.hop_share, self.turn_share) < 0 or (
      self.hop_share + self.turn_share > 1
    ):
      raise UserError(
        'hop_share and turn_share of falling_digits must be shares of one '
        f'whole, got {self.hop_share} and {self.turn_share}.'
      )


def split_ids(split: str) -> np.ndarray:
  """Ids of the digit images that belong to a split: id % 10 == 0 is test."""
  ids = np.arange(len(drawing.digit_images()[0]))
  return ids[(ids % 10 == 0) == (split == 'test')]


def _draw_numbers(spec: FallingDigitsSpec, indices: np.ndarray) -> np.ndarray:
  """Uniform numbers [n, 17] in [0, 1), a function of seed, split and index."""
  split = SPLITS.index(spec.split)
  return np.stack(
    [
      np.random.default_rng((spec.seed, split, int(i))).random(17)
      for i in indices
    ]
  )


def sample_states(
  spec: FallingDigitsSpec, indices: Sequence[int]
) -> dict[str, np.ndarray]:
  """The exact state of clips, without drawing them.

  Args:
    spec: what clips to make.
    indices: clip numbers >= 0; clip i depends on (seed, split, i) only.

  Returns:
    digit, colour, side, digit_id, scene (index into SCENES) int64 [n]; the same
    with `_after` of what a digit turns into, equal to the former elsewhere;
    bounces bool [n]; gravity float [n] in pixels per frame squared; extent
    float [n, 2], height and width of the ink in pixels; position float
    [n, T, 2], centre (y, x) of the ink in pixels, where pixel k covers k to
    k + 1; landing float [n], the time of the first contact in frames; turned
    float [n, T], how far it has become the other digit, 0 to 1. For drawing
    and wording: before [n, 8, 2], the positions of earlier frames;
    moves_before bool [n], whether they leave a trail; wording float [n, 4].
  """
  u = _draw_numbers(spec, np.asarray(indices, np.int64).reshape(-1))
  ids = split_ids(spec.split)
  digit_id = ids[(u[:, 0] * len(ids)).astype(int)]
  colour = (u[:, 1] * len(COLOURS)).astype(int)
  scene = np.where(u[:, 13] < spec.hop_share, 1, 0)
  scene = np.where(u[:, 13] >= 1 - spec.turn_share, 2, scene)
  extent = drawing.glyphs()[2][digit_id] * spec.digit_size * spec.size / 8
  side = (u[:, 2] * len(SIDES)).astype(int)

  time = np.arange(-_LEAD, spec.num_frames, dtype=np.float64)[None]
  ground = 0.97 * spec.size - extent[:, 0] / 2
  drop = ground - (0.12 + 0.18 * u[:, 3]) * spec.size
  fall = _falls(spec, u, drop, time)
  hop = _hops(u, drop, time)
  hops = scene == SCENES.index('hop')
  motion = {
    name: np.where(hops.reshape(-1, *[1] * (fall[name].ndim - 1)), hop[name], v)
    for name, v in fall.items()
  }
  # Sideways: from the named side towards a final place, slowed by friction.
  room = spec.size - extent[:, 1]
  begin = extent[:, 1] / 2 + room * (0.44 * side + 0.12 * u[:, 7])
  goal = begin + (u[:, 8] - 0.5) * 0.6 * spec.size
  goal = np.clip(goal, extent[:, 1] / 2, spec.size - extent[:, 1] / 2)
  goal = np.where(hops, begin, goal)
  slowed = 1 - np.exp(-time / 16.0)
  x = begin[:, None] + (goal - begin)[:, None] * slowed
  position = np.stack([ground[:, None] - motion.pop('height'), x], -1)
  turns = scene == SCENES.index('turn')
  digit_id_after = ids[(u[:, 14] * len(ids)).astype(int)]
  colour_after = (
    colour + 1 + (u[:, 15] * (len(COLOURS) - 1)).astype(int)
  ) % len(COLOURS)
  digit_id_after = np.where(turns, digit_id_after, digit_id)
  middle = 8 + 16 * u[:, 16:17]  # frames
  turned = (time[:, _LEAD:] - middle) / _TURN_FRAMES + 0.5
  classes = drawing.digit_images()[1]
  return {
    'digit': classes[digit_id],
    'colour': colour,
    'side': side,
    'digit_id': digit_id,
    'scene': scene,
    'digit_after': classes[digit_id_after],
    'colour_after': np.where(turns, colour_after, colour),
    'digit_id_after': digit_id_after,
    'extent': extent,
    'position': position[:, _LEAD:],
    'turned': np.clip(turned, 0, 1) * turns[:, None],
    **motion,
    'before': position[:, :_LEAD],
    'moves_before': hops,
    'wording': u[:, 9:13],
  }


def _falls(spec, u, drop, time):
  """Heights above the ground: parabolas, each slower by the restitution."""
  gravity = (0.25 + 0.2 * u[:, 4]) * spec.size / 32
  bounces = u[:, 5] >= spec.rest_share
  restitution = np.where(bounces, 0.6 + 0.2 * u[:, 6], 0.0)
  landing = np.sqrt(2 * drop / gravity)
  fall = drop[:, None] - 0.5 * gravity[:, None] * time**2
  height = np.where(time < landing[:, None], fall, 0.0)
  speed, start = gravity * landing, landing.copy()
  for _ in range(_BOUNCES):
    speed = speed * restitution
    since = np.clip(time - start[:, None], 0.0, None)
    arc = speed[:, None] * since - 0.5 * gravity[:, None] * since**2
    height += np.clip(arc, 0.0, None)
    start += 2 * speed / gravity
  return {
    'height': height,
    'gravity': gravity,
    'bounces': bounces,
    'landing': landing,
  }


def _hops(u, drop, time):
  """Heights of hops that repeat every HOP_FRAMES, from any moment of one."""
  top = (0.55 + 0.35 * u[:, 4]) * drop
  phase = u[:, 5] * HOP_FRAMES
  moment = ((time + phase[:, None]) / HOP_FRAMES) % 1.0
  return {
    'height': 4 * top[:, None] * moment * (1 - moment),
    'gravity': 8 * top / HOP_FRAMES**2,
    'bounces': np.ones(len(u), bool),
    'landing': HOP_FRAMES - phase,
  }


def sample_clips(spec: FallingDigitsSpec, indices: Sequence[int]) -> dict:
  """Makes clips, with captions and the exact state.

  Args:
    spec: what clips to make.
    indices: clip numbers >= 0; clip i depends on (seed, split, i) only. Any
      clip is the beginning of the same clip with more frames; its caption may
      then say more, since a bounce is mentioned only where it is seen.

  Returns:
    video uint8 [n, T, S, S, 3], caption list of n str, and all of
    `sample_states` but what is for drawing and wording alone.

  Raises:
    UserError: an index is negative.
  """
  if any(int(i) < 0 for i in indices):
    raise UserError('Clip numbers of falling_digits start at 0.')
  state = sample_states(spec, indices)
  video = drawing.render(
    state,
    size=spec.size,
    box=spec.digit_size * spec.size,
    trail=spec.trail,
    decay=spec.trail_decay,
  )
  wording = state.pop('wording')
  del state['before'], state['moves_before']
  texts = []
  for i, choice in enumerate(wording):
    ending = 'bounce' if state['bounces'][i] else 'rest'
    if state['landing'][i] + 3 > spec.num_frames - 1:
      ending = 'unknown'
    scene = SCENES[state['scene'][i]]
    texts.append(
      captions.write_caption(
        choice,
        captions.Subject(int(state['colour'][i]), int(state['digit'][i])),
        int(state['side'][i]),
        ending if scene == 'fall' else scene,
        captions.Subject(
          int(state['colour_after'][i]), int(state['digit_after'][i])
        ),
      )
    )
  return {'video': video, 'caption': texts, **state}
