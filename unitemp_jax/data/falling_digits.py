"""Falling digits: procedural clips with an arrow of time and an exact state.

Handwritten digits of scikit-learn (8x8, split into train and test by image)
fall under gravity, bounce with damping, drift sideways until friction stops
them and leave a fading trail of ink. A clip played backwards is recognisable as
such. Two further scenes can be mixed in: hops of 16 frames on the spot, which
go on for ever and so can close a loop, and falls in which the digit turns into
another one of another colour, which a transition needs.

All motion is a closed formula of time, so that positions are exact. Drawing is
exact below the pixel and separable: `rows @ glyph @ columns` draws all frames
of all clips. A caption is a subject (which always names the colour and the
digit), a verb, a place that may be left out, and an ending that speaks of the
bounce only when the clip shows it: 18 words at most, of tables that a
tokenizer's vocabulary can be derived from.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import re
from collections.abc import Sequence

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

# Six hues, 60 degrees apart, on black.
COLOUR_RGB = np.array(
  [
    (255, 48, 40),
    (250, 225, 40),
    (40, 220, 60),
    (45, 225, 235),
    (60, 90, 255),
    (235, 60, 225),
  ],
  np.float32,
)

_CELLS = 10  # the 8x8 image with an empty cell around it
_FINE = 4  # glyph pixels per cell


@functools.cache
def digit_images() -> tuple[np.ndarray, np.ndarray]:
  """Scikit-learn's digits [n, 8, 8] in [0, 1] and their classes."""
  # `sklearn.datasets.load_digits` reads this file too; its import takes longer
  # than all other imports together.
  package = importlib.metadata.distribution('scikit-learn')
  path = package.locate_file('sklearn/datasets/data/digits.csv.gz')
  table = np.loadtxt(str(path), delimiter=',')
  images = table[:, :-1].reshape(-1, 8, 8).astype(np.float32) / 16.0
  return images, table[:, -1].astype(np.int64)


def _cubic(x: np.ndarray) -> np.ndarray:
  """Catmull-Rom kernel."""
  x = np.abs(x)
  near = 1.5 * x**3 - 2.5 * x**2 + 1
  far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.cache
def glyphs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws all digits finely, once.

  Returns:
    glyphs float32 [n, 40, 40] in [0, 1]; centre [n, 2] and extent [n, 2] of the
    ink (y, x) in cells of the 8x8 image, the centre counted from the middle.
  """
  images, _ = digit_images()
  places = (np.arange(_CELLS * _FINE) + 0.5) / _FINE - 1.5
  up = _cubic(places[:, None] - np.arange(8)).astype(np.float32)
  fine = up @ images @ up.T
  # A soft threshold: strokes become solid with a smooth edge.
  ramp = np.clip((fine - 0.2) / 0.5, 0, 1)
  glyphs = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
  bounds = []
  for axis in (2, 1):
    ink = glyphs.max(axis) > 0.5
    first, last = ink.argmax(1), ink.shape[1] - ink[:, ::-1].argmax(1)
    bounds.append((first, last))
  low, high = np.stack(bounds, -1).astype(np.float32) / _FINE
  return glyphs, (low + high - _CELLS) / 2, high - low


def _axis_weights(
  centre: np.ndarray, size: int, glyph_pixel: float
) -> np.ndarray:
  """Tent filter from glyph pixels to frame pixels along one axis.

  Args:
    centre: [n, T] place of the glyph's middle in frame pixels.
    size: frame pixels.
    glyph_pixel: width of a glyph pixel in frame pixels.

  Returns:
    float32 [n, T, size, 40].
  """
  middle = (np.arange(size) + 0.5) - centre[..., None]
  count = _CELLS * _FINE
  places = (np.arange(count) + 0.5 - count / 2) * glyph_pixel
  reach = max(1.0, glyph_pixel)
  distance = np.abs(middle[..., None] - places).astype(np.float32)
  tent = np.clip(1 - distance / reach, 0, None)
  return tent * np.float32(glyph_pixel / reach)


def _ink(
  position: np.ndarray, digit_id: np.ndarray, size: int, box: float
) -> np.ndarray:
  """Coverage [n, T, size, size] of digits, 0 to 1, at ink centres [n, T, 2]."""
  fine, centres, _ = glyphs()
  cell = box / 8
  place = position - centres[digit_id][:, None] * cell
  rows = _axis_weights(place[..., 0], size, cell / _FINE)
  columns = _axis_weights(place[..., 1], size, cell / _FINE)
  ink = rows @ fine[digit_id][:, None] @ columns.swapaxes(-1, -2)
  return np.clip(ink, 0, 1)


def _with_trail(ink, everything, trail, decay) -> np.ndarray:
  """Ink and what it left behind, where no ink of `everything` covers it."""
  shade = np.empty_like(ink)
  left = np.zeros_like(ink[:, 0])
  for t in range(ink.shape[1]):
    shade[:, t] = ink[:, t] + (1 - everything[:, t]) * left
    left = np.maximum(decay * left, trail * ink[:, t])
  return shade


def render(
  state: dict, *, size: int, box: float, trail: float, decay: float
) -> np.ndarray:
  """Draws clips.

  Args:
    state: of `falling_digits.sample_states`; `before` holds the positions of
      earlier frames, whose ink is seen as trail only.
    size: height and width in pixels.
    box: height of a digit's 8x8 box in pixels.
    trail: ink left one frame behind, as a part of the ink.
    decay: factor by which it fades per frame.

  Returns:
    uint8 [n, T, size, size, 3].
  """
  position = np.concatenate([state['before'], state['position']], axis=1)
  lead = state['before'].shape[1]
  ink = _ink(position, state['digit_id'], size, box)
  ink[:, :lead] *= state['moves_before'][:, None, None, None]
  turning = np.flatnonzero(state['turned'].any(1))
  share = state['turned'][turning][..., None, None].astype(np.float32)
  after = np.zeros_like(ink[turning])
  after[:, lead:] = share * _ink(
    state['position'][turning], state['digit_id_after'][turning], size, box
  )
  ink[turning, lead:] *= 1 - share
  everything = ink.copy()
  everything[turning] += after

  def coloured(ink, everything, colour):
    shade = _with_trail(ink, everything, trail, decay)[:, lead:]
    return shade[..., None] * COLOUR_RGB[colour][:, None, None, None]

  video = coloured(ink, everything, state['colour'])
  video[turning] += coloured(
    after, everything[turning], state['colour_after'][turning]
  )
  return np.rint(video).astype(np.uint8)


COLOURS = ('red', 'yellow', 'green', 'cyan', 'blue', 'magenta')
DIGIT_NAMES = (
  *('zero', 'one', 'two', 'three', 'four'),
  *('five', 'six', 'seven', 'eight', 'nine'),
)
SIDES = ('left', 'middle', 'right')

SUBJECTS = (
  'a {colour} {digit}',
  'the {colour} digit {digit}',
  'a {colour} number {digit}',
  'a handwritten {digit} in {colour} ink',
  'the number {digit} in {colour}',
)
VERBS = ('falls', 'drops', 'falls down', 'tumbles down', 'comes down')
HOP_VERBS = ('hops', 'hops up and down', 'bounces up and down')
HOP_PLACES = ('', '{on_side}')
PLACES = ('', 'from the {side}', '{on_side}')
ON_SIDE = ('on the left', 'in the middle', 'on the right')
ENDINGS = {
  # Of clips whose end of the fall lies outside the clip nothing is claimed.
  'unknown': ('', 'with a fading trail'),
  'bounce': ('', 'and bounces', 'and bounces up again'),
  'rest': ('', 'and stays down', 'and lands without bouncing'),
  'hop': ('', 'again and again'),
  'turn': (
    'and turns into a {other_colour} {other_digit}',
    'then turns into the {other_colour} digit {other_digit}',
  ),
}
# Words that a person may type and that no caption above happens to use.
EXTRA_WORDS = (
  *('an', 'at', 'black', 'bouncing', 'bounce', 'centre'),
  *('drop', 'dropping', 'fall', 'falling', 'ground', 'land'),
  *('lands', 'of', 'side', 'to', 'top'),
)
SPLITS = ('train', 'test')

SCENES = ('fall', 'hop', 'turn')
HOP_FRAMES = 16  # of one hop

_BOUNCES = 12  # later bounces are below a hundredth of a pixel
_LEAD = 8  # frames before a clip whose trail is still seen
_TURN_FRAMES = 8  # in which a digit turns into another


@dataclasses.dataclass(frozen=True)
class FallingDigitsSpec:
  """What clips to make."""

  num_frames: int = 33  # frames per clip
  size: int = 32  # height and width in pixels
  split: str = 'train'  # 'train' or 'test'; they share no digit image
  seed: int = 0  # another seed gives other clips
  # height of a digit's 8x8 box as a part of the frame's height
  digit_size: float = 0.6
  # ink left one frame behind the digit, as a part of the digit's ink
  trail: float = 0.42
  trail_decay: float = 0.6  # factor by which the trail fades per frame
  rest_share: float = 0.25  # share of the falls that land without a bounce
  hop_share: float = 0.0  # share of clips that hop on the spot
  # share of clips that fall and turn into another digit
  turn_share: float = 0.0

  def __post_init__(self):
    if self.split not in SPLITS:
      raise UserError(
        f'split {self.split!r} of falling_digits does not exist: use one of '
        f'{", ".join(SPLITS)}.'
      )
    for name, least, most in (
      ('num_frames', 1, timeline.MOST_FRAMES),
      ('size', 16, timeline.MOST_SIDE),
      ('seed', 0, 2**63 - 1),
    ):
      if not least <= getattr(self, name) <= most:
        raise UserError(
          f'{name} of falling_digits is {getattr(self, name)}; use '
          f'{least}..{most}.'
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
  ids = np.arange(len(digit_images()[0]))
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
  extent = glyphs()[2][digit_id] * spec.digit_size * spec.size / 8
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
  classes = digit_images()[1]
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
  video = render(
    state,
    size=spec.size,
    box=spec.digit_size * spec.size,
    trail=spec.trail,
    decay=spec.trail_decay,
  )
  wording = state.pop('wording')
  del state['before'], state['moves_before']
  texts = [
    _caption(choice, spec, {name: values[i] for name, values in state.items()})
    for i, choice in enumerate(wording)
  ]
  return {'video': video, 'caption': texts, **state}


def _caption(choice: np.ndarray, spec: FallingDigitsSpec, state: dict) -> str:
  """Words one caption, lower case, without a full stop.

  Args:
    choice: four numbers in [0, 1) that pick the wording of the four parts.
    spec: of the clip.
    state: of the clip.
  """
  ending = scene = SCENES[state['scene']]
  if scene == 'fall':
    ending = 'bounce' if state['bounces'] else 'rest'
    if state['landing'] + 3 > spec.num_frames - 1:
      ending = 'unknown'
  hops = scene == 'hop'
  tables = (
    SUBJECTS,
    HOP_VERBS if hops else VERBS,
    HOP_PLACES if hops else PLACES,
    ENDINGS[ending],
  )
  parts = [t[int(c * len(t))] for t, c in zip(tables, choice, strict=True)]
  text = ' '.join(part for part in parts if part)
  return text.format(
    colour=COLOURS[state['colour']],
    digit=DIGIT_NAMES[state['digit']],
    side=SIDES[state['side']],
    on_side=ON_SIDE[state['side']],
    other_colour=COLOURS[state['colour_after']],
    other_digit=DIGIT_NAMES[state['digit_after']],
  )


def vocabulary() -> list[str]:
  """Lists every word a caption can hold, sorted, without duplicates."""
  slots = re.compile(r'{\w+}')
  texts = itertools.chain(
    SUBJECTS, VERBS, HOP_VERBS, PLACES, ON_SIDE, *ENDINGS.values(), EXTRA_WORDS
  )
  words = {word for text in texts for word in slots.sub(' ', text).split()}
  return sorted(words | {*COLOURS, *DIGIT_NAMES, *SIDES})
