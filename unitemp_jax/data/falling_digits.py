"""Falling digits: procedural clips with an arrow of time and an exact state.

Handwritten digits of scikit-learn (8x8, split into train and test by image)
fall under gravity, bounce with damping, drift sideways until friction stops
them and leave a fading trail of ink. A clip played backwards is recognisable
as such, which a bouncing digit at constant speed is not.

All motion is a closed formula of time and the rendering is separable
(`rows @ glyph @ columns` for all frames of all clips), so positions are exact
below the pixel and a core makes hundreds of clips per second.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from unitemp_jax.data import falling_digits_captions as captions
from unitemp_jax.errors import UserError

COLOURS = captions.COLOURS
DIGIT_NAMES = captions.DIGIT_NAMES
SIDES = captions.SIDES
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
SPLITS = ('train', 'test')

_CELLS = 10  # the 8x8 image with an empty cell around it
_FINE = 4  # glyph pixels per cell
_BOUNCES = 12  # later bounces are below a hundredth of a pixel


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
    rest_share: share of clips that land without a bounce.
  """

  num_frames: int = 33
  size: int = 32
  split: str = 'train'
  seed: int = 0
  digit_size: float = 0.6
  trail: float = 0.42
  trail_decay: float = 0.6
  rest_share: float = 0.25

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


@functools.cache
def _digit_images() -> tuple[np.ndarray, np.ndarray]:
  """Returns scikit-learn's digits [n, 8, 8] in [0, 1] and their classes."""
  from sklearn.datasets import load_digits

  data = load_digits()
  return data.images.astype(np.float32) / 16.0, data.target.astype(np.int64)


def split_ids(split: str) -> np.ndarray:
  """Ids of the digit images that belong to a split: id % 10 == 0 is test."""
  ids = np.arange(len(_digit_images()[0]))
  return ids[(ids % 10 == 0) == (split == 'test')]


def _cubic(x: np.ndarray) -> np.ndarray:
  """Catmull-Rom kernel."""
  x = np.abs(x)
  near = 1.5 * x**3 - 2.5 * x**2 + 1
  far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.cache
def _glyphs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws all digits finely, once.

  Returns:
    glyphs float32 [n, 40, 40] in [0, 1]; centre [n, 2] and extent [n, 2] of the
    ink (y, x) in cells of the 8x8 image, the centre counted from the middle.
  """
  images, _ = _digit_images()
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


def _draw_numbers(spec: FallingDigitsSpec, indices: np.ndarray) -> np.ndarray:
  """Uniform numbers [n, 16] in [0, 1), a function of seed, split and index."""
  split = SPLITS.index(spec.split)
  return np.stack(
    [
      np.random.default_rng((spec.seed, split, int(i))).random(16)
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
    digit, colour, side, digit_id int64 [n]; bounces bool [n]; gravity float [n]
    in pixels per frame squared; extent float [n, 2], height and width of the
    ink in pixels; position float [n, T, 2], centre (y, x) of the ink in pixels,
    where pixel k covers k to k + 1; landing float [n], the time of the first
    contact in frames; wording float [n, 4] that words the caption.
  """
  u = _draw_numbers(spec, np.asarray(indices, np.int64).reshape(-1))
  ids = split_ids(spec.split)
  digit_id = ids[(u[:, 0] * len(ids)).astype(int)]
  size, cell = spec.size, spec.digit_size * spec.size / 8
  extent = _glyphs()[2][digit_id] * cell
  half = extent / 2
  side = (u[:, 2] * len(SIDES)).astype(int)

  # Height above the ground: parabolas, each slower by the restitution.
  ground = 0.97 * size - half[:, 0]
  drop = ground - (0.12 + 0.18 * u[:, 3]) * size
  gravity = (0.25 + 0.2 * u[:, 4]) * size / 32
  bounces = u[:, 5] >= spec.rest_share
  restitution = np.where(bounces, 0.6 + 0.2 * u[:, 6], 0.0)
  landing = np.sqrt(2 * drop / gravity)
  time = np.arange(spec.num_frames, dtype=np.float64)[None]
  fall = drop[:, None] - 0.5 * gravity[:, None] * time**2
  height = np.where(time < landing[:, None], fall, 0.0)
  speed, start = gravity * landing, landing.copy()
  for _ in range(_BOUNCES):
    speed = speed * restitution
    since = np.clip(time - start[:, None], 0.0, None)
    arc = speed[:, None] * since - 0.5 * gravity[:, None] * since**2
    height += np.clip(arc, 0.0, None)
    start += 2 * speed / gravity

  # Sideways: from the named side towards a final place, slowed by friction.
  room = size - extent[:, 1]
  begin = half[:, 1] + room * (0.44 * side + 0.12 * u[:, 7])
  goal = begin + (u[:, 8] - 0.5) * 0.6 * size
  goal = np.clip(goal, half[:, 1], size - half[:, 1])
  slowed = 1 - np.exp(-time / 16.0)
  x = begin[:, None] + (goal - begin)[:, None] * slowed
  return {
    'digit': _digit_images()[1][digit_id],
    'colour': (u[:, 1] * len(COLOURS)).astype(int),
    'side': side,
    'digit_id': digit_id,
    'bounces': bounces,
    'gravity': gravity,
    'extent': extent,
    'position': np.stack([ground[:, None] - height, x], -1),
    'landing': landing,
    'wording': u[:, 9:13],
  }


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


def _render(spec: FallingDigitsSpec, state: dict) -> np.ndarray:
  """Draws the clips of a state, uint8 [n, T, size, size, 3]."""
  glyphs, centres, _ = _glyphs()
  cell = spec.digit_size * spec.size / 8
  place = state['position'] - centres[state['digit_id']][:, None] * cell
  rows = _axis_weights(place[..., 0], spec.size, cell / _FINE)
  columns = _axis_weights(place[..., 1], spec.size, cell / _FINE)
  glyph = glyphs[state['digit_id']][:, None]
  ink = np.clip(rows @ glyph @ columns.swapaxes(-1, -2), 0, 1)
  shade = np.empty_like(ink)
  trail = np.zeros_like(ink[:, 0])
  for t in range(spec.num_frames):
    shade[:, t] = ink[:, t] + (1 - ink[:, t]) * trail
    trail = np.maximum(spec.trail_decay * trail, spec.trail * ink[:, t])
  colour = COLOUR_RGB[state['colour']][:, None, None, None]
  return np.rint(shade[..., None] * colour).astype(np.uint8)


def sample_clips(spec: FallingDigitsSpec, indices: Sequence[int]) -> dict:
  """Makes clips, with captions and the exact state.

  Args:
    spec: what clips to make.
    indices: clip numbers >= 0; clip i depends on (seed, split, i) only. Any
      clip is the beginning of the same clip with more frames; its caption may
      then say more, since a bounce is mentioned only where it is seen.

  Returns:
    video uint8 [n, T, S, S, 3], caption list of n str, and all of
    `sample_states` but the wording.

  Raises:
    UserError: an index is negative.
  """
  if any(int(i) < 0 for i in indices):
    raise UserError('Clip numbers of falling_digits start at 0.')
  state = sample_states(spec, indices)
  wording = state.pop('wording')
  video = _render(spec, state)
  texts = []
  for i, choice in enumerate(wording):
    ending = 'bounce' if state['bounces'][i] else 'rest'
    if state['landing'][i] + 3 > spec.num_frames - 1:
      ending = 'unknown'
    texts.append(
      captions.write_caption(
        choice,
        int(state['colour'][i]),
        int(state['digit'][i]),
        int(state['side'][i]),
        ending,
      )
    )
  return {'video': video, 'caption': texts, **state}
