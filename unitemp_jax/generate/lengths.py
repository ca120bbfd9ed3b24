"""Times and lengths as users write them, in whole latents.

A video has 1 + 4k frames: frame 0, and 4 for every later latent. So lengths of
videos are 1 + 4k, and what is added, and the times of given frames, are
multiples of 4. A number of frames must fit; seconds are rounded to what does.
"""

import re

from unitemp_jax.errors import UserError

Length = int | str
_STRIDE = 4  # frames per latent
_SECONDS = re.compile(r'(-?\d+(?:\.\d*)?|-?\.\d+)\s*s')
_FRAMES = re.compile(r'-?\d+')


def _read(value: Length, fps: float, what: str) -> tuple[float, bool]:
  """Returns frames, and whether they were written as frames."""
  if isinstance(value, int) and not isinstance(value, bool):
    return value, True
  text = str(value).strip()
  if _FRAMES.fullmatch(text):
    return int(text), True
  match = _SECONDS.fullmatch(text)
  if match is None:
    raise UserError(
      f'{what} is {text!r}; give frames such as 24, or seconds such as 2s.'
    )
  return float(match[1]) * fps, False


def _nearest(frames: float, offset: int, least: int) -> int:
  return max(_STRIDE * round((frames - offset) / _STRIDE) + offset, least)


def _fit(value: Length, fps: float, what: str, offset: int, least: int) -> int:
  frames, exact = _read(value, fps, what)
  if not exact:
    return _nearest(frames, offset, least)
  if frames < least or (frames - offset) % _STRIDE:
    low = int((frames - offset) // _STRIDE) * _STRIDE + offset
    near = sorted({max(low, least), max(low + _STRIDE, least)})
    rule = '1 + 4k' if offset else 'a multiple of 4'
    raise UserError(
      f'{what} is {frames} frames, which is not {rule} (a latent codes 4 '
      f'frames, the first one 1); use '
      + ' or '.join(f'{n} ({n / fps:.2f}s)' for n in near)
      + '.'
    )
  return int(frames)


def video(value: Length, fps: float, what: str = 'length') -> int:
  """Frames of a video, 1 + 4k.

  Args:
    value: frames, or seconds as text, such as '2.5s'.
    fps: frames per second.
    what: name of the value in a complaint.

  Raises:
    UserError: no length, or frames that are not 1 + 4k; the nearest that are
      are named.
  """
  return _fit(value, fps, what, 1, 1 + _STRIDE)


def addition(value: Length, fps: float, what: str) -> int:
  """Frames to be added, a multiple of 4; errors as for `video`."""
  return _fit(value, fps, what, 0, 0)


def moment(value: Length, fps: float, frames: int, what: str) -> int:
  """Index of a frame that begins a latent, a multiple of 4.

  Args:
    value: frame or seconds; negative ones count from the end, so that -1 is
      the last frame.
    fps: frames per second.
    frames: of the video.
    what: name of the value in a complaint.

  Raises:
    UserError: outside the video, or a frame that is not a multiple of 4.
  """
  index, exact = _read(value, fps, what)
  index += (frames if exact else frames - 1) if index < 0 else 0
  if not exact:
    index = min(_nearest(index, 0, 0), frames - 1) if index >= 0 else index
  if not 0 <= index < frames:
    raise UserError(
      f'{what} is {value}, outside the video, whose frames are 0..{frames - 1}.'
    )
  return _fit(int(index), fps, what, 0, 0)


def frame(value: Length, fps: float, frames: int, what: str) -> int:
  """Index of any frame; errors as for `moment`."""
  index, _ = _read(value, fps, what)
  index = round(index) + (frames if index < 0 else 0)
  if not 0 <= index < frames:
    raise UserError(
      f'{what} is {value}, outside the video, whose frames are 0..{frames - 1}.'
    )
  return index
