"""Frames, latents and seconds: arithmetic of time, and times as users write it.

A latent codes `STRIDE` frames, the first one of a video a single frame. So n
latents are 1 + 4 (n - 1) frames, and latent k > 0 codes the frames
4 (k - 1) + 1 .. 4 k. Lengths of videos are 1 + 4 k frames; what is added to
one, and the frames at which something given begins, are multiples of 4. A
number of frames must fit; seconds are rounded to what does.
"""

import dataclasses
import fractions
import re

from unitemp_jax.errors import UserError

STRIDE = 4  # frames per latent; a model with another VAE is refused
MOST_FRAMES = 100_001  # longer videos would take minutes to lay out
MOST_FPS = 1000
MOST_SIDE = 16_384  # pixels
_MOST_DIGITS = 20
# A rate in decimals: nobody writes 28 frames at 12 per second as more than
# 2.333s.
_ROUNDING = fractions.Fraction(1, 20)  # frames
_NUMBER = re.compile(r'-?\d+')
_SECONDS = re.compile(r'(-?(?:\d+(?:\.\d*)?|\.\d+))\s*s')

Length = int | str  # Frames (24), or seconds ('2s').


def num_latents(frames: int, stride: int = STRIDE) -> int:
  """Latents of a video of 1 + stride k frames; ValueError for other numbers."""
  if frames < 1 or (frames - 1) % stride:
    raise ValueError(
      f'a video must have 1 + {stride}k frames, this one has {frames}'
    )
  return 1 + (frames - 1) // stride


def num_frames(latents: int) -> int:
  """Frames of a video of so many latents."""
  return 1 + STRIDE * (latents - 1)


def latent_of(frame: int) -> int:
  """The latent that codes a frame."""
  return -(-frame // STRIDE)


def first_frame(latent: int) -> int:
  """The first frame that a latent codes."""
  return max(STRIDE * (latent - 1) + 1, 0)


def last_frame(latent: int) -> int:
  """The last frame that a latent codes."""
  return STRIDE * latent


@dataclasses.dataclass(frozen=True)
class Time:
  """A length or a moment as it was written."""

  amount: fractions.Fraction  # of frames or of seconds
  seconds: bool  # which of the two

  def __str__(self) -> str:
    amount = f'{float(self.amount):g}'
    return amount + ('s' if self.seconds else '')


def parse(value: Length, what: str) -> Time:
  """Reads frames (24, '24') or seconds ('2s', '1.5 s'), negative ones too."""
  is_number = isinstance(value, int) and not isinstance(value, bool)
  if is_number and abs(int(value)) > 10 * MOST_FRAMES:
    _too_large(what)
  text = str(value).strip()
  if re.match(r'-?[\d.]', text) and len(text) > _MOST_DIGITS:
    _too_large(what)
  seconds = _SECONDS.fullmatch(text)
  if not seconds and not _NUMBER.fullmatch(text):
    raise UserError(
      f'{what} is {text[:60]!r}; give frames such as 24, or seconds such as 2s.'
    )
  time = Time(
    fractions.Fraction(seconds[1] if seconds else text), bool(seconds)
  )
  if abs(time.amount) > 10 * MOST_FRAMES:
    _too_large(what)
  return time


def _too_large(what: str):
  raise UserError(f'{what} is too large; use at most {MOST_FRAMES} frames.')


def fit(
  value: Length | Time,
  what: str,
  fps: float | None = None,
  *,
  offset: int = 0,
  least: int = 0,
  rounded: bool = True,
) -> int:
  """Returns frames that are `offset` more than a multiple of 4.

  Args:
    value: as it was written.
    what: its name in a complaint, such as '--length'.
    fps: frames per second; None where no seconds can be given.
    offset: 1 for videos, 0 for additions and moments.
    least: frames that it must have.
    rounded: whether seconds are rounded to what fits.

  Raises:
    UserError: it is no time, too large, or does not fit; the complaint names
      the nearest frames that would, and their seconds.
  """
  time = value if isinstance(value, Time) else parse(value, what)
  frames = time.amount
  if time.seconds:
    if fps is None:
      raise UserError(f'{what} is {time}; give frames here, such as 24.')
    rate = fractions.Fraction(fps).limit_denominator(1001)
    frames = time.amount * rate
    nearest = STRIDE * round((frames - offset) / STRIDE) + offset
    if (rounded and frames >= 0) or abs(frames - nearest) < _ROUNDING:
      frames = fractions.Fraction(max(nearest, least))
  if frames > MOST_FRAMES:
    _too_large(what)
  if frames < least or (frames - offset) % STRIDE:
    low = (frames - offset) // STRIDE * STRIDE + offset
    low = max(int(low), least)
    high = max(low + STRIDE, least)
    near = [f'{n}' + (f' ({n / fps:.2f}s)' if fps else '') for n in (low, high)]
    rule = f'not 1 + {STRIDE}k' if offset else f'not a multiple of {STRIDE}'
    if frames < least or not (frames - offset) % STRIDE:
      rule = 'too few'
    shown = f'{time}' if time.seconds else f'{time} frames'
    raise UserError(
      f'{what} is {shown}, which is {rule} frames; use {near[0]} or {near[1]}.'
    )
  return int(frames)


def length(value: Length, fps: float | None, what: str = 'length') -> int:
  """Frames of a video, 1 + 4 k and more than one; see `fit`."""
  return fit(value, what, fps, offset=1, least=1 + STRIDE)


def moment(value: Length, fps: float | None, frames: int, what: str) -> int:
  """Index of a frame that ends a latent, a multiple of 4.

  Args:
    value: frame or seconds; negative ones count from the end, so that -1 is
      the last frame.
    fps: frames per second.
    frames: of the video.
    what: its name in a complaint.
  """
  index, exact = _index(value, fps, frames, what)
  if not exact:
    index = min(STRIDE * round(index / STRIDE), frames - 1)
  elif str(value).strip().startswith('-'):
    what = f'{what}, counted from the end,'
  return fit(int(index), what, fps)


def frame(value: Length, fps: float | None, frames: int, what: str) -> int:
  """Index of any frame of a video; arguments and errors as for `moment`."""
  return round(_index(value, fps, frames, what)[0])


def _index(value, fps, frames, what) -> tuple[fractions.Fraction, bool]:
  """A frame of a video, and whether it was written as one."""
  time = parse(value, what)
  index = time.amount
  if time.seconds:
    if fps is None:
      raise UserError(f'{what} is {time}; give frames here, such as 24.')
    index *= fractions.Fraction(fps).limit_denominator(1001)
  if index < 0:
    index += frames - time.seconds
  if index < 0 or round(index) >= frames:
    raise UserError(
      f'{what} is {time}, outside the video, whose frames are 0..{frames - 1}.'
    )
  return index, not time.seconds
