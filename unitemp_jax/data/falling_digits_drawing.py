"""Draws the falling digits: separable, exact below the pixel.

`rows @ glyph @ columns` draws all frames of all clips, so that a core makes
hundreds of clips per second.
"""

import functools

import numpy as np

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
  from sklearn.datasets import load_digits

  data = load_digits()
  return data.images.astype(np.float32) / 16.0, data.target.astype(np.int64)


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
