"""From the options of `unitemp plan` to a plan.

Times and lengths are frames, as everywhere on the command line; what counts
latents says so in its name or its help.
"""

import argparse
from collections.abc import Callable
from typing import Any

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.plans import Plan

DEFAULT_FRAMES = 33
ORDERS = {**orders.ORDERS, **orders.WORKFLOWS}

# Options of all orders, and what they are called there.
_SETTINGS = {
  'block': 'block',
  'anchors': 'anchors',
  'start_level': 'start',
  'window': 'window',
  'span': 'span',
  'rows': 'rows',
}
# Options that are arguments of the order as they are.
_SAME = (
  'side',
  'sides',
  'direction',
  'sinks',
  'sink_latents',
  'loop',
)
# Options that an order has beside those and --prompts.
_ENDS = ('frames', 'first', 'last')
_OWN = {
  'forward': _ENDS,
  'backward': _ENDS,
  'inbetween': (*_ENDS, 'side'),
  'inbetween_future': _ENDS,
  'inbetween_outside_in': _ENDS,
  'inbetween_middle_out': _ENDS,
  'loop': ('frames', 'first', 'side'),
  'extend': ('clip', 'before', 'after', 'sides'),
  'keyframes': ('frames', 'given', 'side'),
  'transition': (*_ENDS, 'side'),
  'regenerate': ('frames', 'replace', 'side'),
  'story': ('scenes', 'connections', 'given', 'loop', 'side'),
  'long': (*_ENDS, 'direction', 'sinks', 'sink_latents'),
}


def build(order: str, options: dict[str, Any]) -> Plan:
  """Returns the plan of an order.

  Args:
    order: one of `ORDERS`.
    options: what the user gave, by the names of the options.

  Raises:
    UserError: an option does not belong to the order, or does not fit.
  """
  own = _OWN[order]
  for name in options:
    if name not in (*own, *_SETTINGS, 'prompts'):
      raise UserError(
        f'--{name}: order {order} does not have it; it has '
        f'{", ".join("--" + one for one in own)}'
      )
  settings = {
    _SETTINGS.get(name, name): value
    for name, value in options.items()
    if name in _SETTINGS or name in _SAME
  }
  begin = -_addition(options, 'before') if order == 'extend' else 0
  if 'prompts' in options:
    settings['prompts'] = [
      (begin + -(-frame // 4), index)
      for frame, index in _pairs('prompts', options['prompts'])
    ]
  arguments = _ARGUMENTS.get(order, _ends)(options, settings)
  return ORDERS[order](*arguments, **settings)


def clip_latents(option: str, frames: int) -> int:
  """Returns the latents of a clip of 1 + 4 k frames.

  Raises:
    UserError: it has another number of frames.
  """
  if frames < 1 or (frames - 1) % 4:
    lower = 1 + 4 * max((frames - 1) // 4, 0)
    raise UserError(
      f'--{option}={frames}: a clip has 1 + 4 k frames; use {lower} or '
      f'{lower + 4}'
    )
  return 1 + (frames - 1) // 4


def _ends(options, settings):
  for name in ('first', 'last'):
    if name in options:
      count = options[name]
      count = clip_latents(name, count) if count else 0
      settings[f'given_{name}'] = count
  return [_length(options)]


def _extend(options, settings):
  settings['before'] = _addition(options, 'before')
  settings['after'] = _addition(options, 'after')
  return [clip_latents('clip', options.get('clip', 1))]


def _keyframes(options, settings):
  del settings
  return [_length(options), _given(options)]


def _regenerate(options, settings):
  del settings
  length = _length(options)
  if 'replace' not in options:
    raise UserError(
      '--order=regenerate: say which frames to make anew, as --replace=9:19'
    )
  low, high = _pairs('replace', options['replace'])[0]
  # The last frame of the last latent is the first one that is kept.
  if low % 4 != 1 or high % 4 != 3 or low > high:
    near = 4 * max(round((low - 1) / 4), 0) + 1
    raise UserError(
      f'--replace={low}:{high}: whole latents without their last frame are '
      f'made anew; use {near}:{max(4 * round((high - 3) / 4) + 3, near + 2)}'
    )
  first = (low + 3) // 4
  return [length, first, (high + 1) // 4 - first + 1]


def _story(options, settings):
  lengths = [
    _whole('scenes', number)
    for number in _numbers('scenes', options.get('scenes', '20,20'))
  ]
  scenes = [
    orders.Scene(length + (index == 0), index)
    for index, length in enumerate(lengths)
  ]
  links = [
    _whole('connections', number)
    for number in _numbers('connections', options.get('connections', '12'))
  ]
  settings['given'] = _given(options)
  return [scenes, links[0] if len(links) == 1 else links]


_ARGUMENTS: dict[str, Callable] = {
  'extend': _extend,
  'keyframes': _keyframes,
  'regenerate': _regenerate,
  'story': _story,
}


def _length(options):
  return clip_latents('frames', options.get('frames', DEFAULT_FRAMES))


def _addition(options, name):
  return _whole(name, options.get(name, 0))


def _whole(name, frames):
  """Latents of frames that are added to a video: 4 each."""
  if frames < 0 or frames % 4:
    lower = 4 * max(frames // 4, 0)
    raise UserError(
      f'--{name}={frames}: frames are added in fours; use {lower} or '
      f'{lower + 4}'
    )
  return frames // 4


def _given(options):
  given = []
  for frame, count in _pairs('given', options.get('given', ''), default=1):
    if frame < 0 or frame % 4:
      lower = 4 * max(frame // 4, 0)
      raise UserError(
        f'--given={frame}: what is given begins at a multiple of 4; use '
        f'{lower} or {lower + 4}'
      )
    given.append((frame // 4, clip_latents('given', count)))
  return given


def _numbers(name, text):
  try:
    return [int(part) for part in text.split(',')]
  except ValueError:
    raise UserError(
      f'--{name}={text}: must be whole numbers with commas, as 20,12'
    ) from None


def _pairs(name, text, default=None):
  """Reads 'a:b,c:d'; `:b` may be left out if there is a default."""
  pairs = []
  for part in text.split(',') if text else []:
    first, colon, second = part.partition(':')
    try:
      pairs.append((int(first), int(second) if colon else int(default)))
    except (TypeError, ValueError):
      raise UserError(
        f'--{name}={text}: must be pairs of whole numbers, as 0:1,16:2'
      ) from None
  return pairs


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options of all orders."""
  for name, kind, text in (
    ('frames', int, f'frames of the video ({DEFAULT_FRAMES})'),
    ('block', int, 'latents per block (3)'),
    ('anchors', int, 'anchors per block (3)'),
    (
      'start_level',
      int,
      'level at which blocks start from carried anchors (0 = never)',
    ),
    ('window', int, 'most latents that a row sees (all)'),
    ('prompts', str, 'FRAME:PROMPT,... prompt numbers from frames on'),
    ('rows', int, 'pad to this many rows'),
    ('first', int, 'frames given at the start (inbetween: 1, else 0)'),
    ('last', int, 'frames given at the end (inbetween: 1, else 0)'),
    ('given', str, 'keyframes, story: FRAME[:COUNT],... frames given'),
    (
      'side',
      str,
      f'from which side gaps are filled: {", ".join(orders.SIDES)}',
    ),
    ('clip', int, 'extend: frames of the clip (1, an image)'),
    ('before', int, 'extend: frames to be added before it'),
    ('after', int, 'extend: frames to be added after it'),
    ('sides', str, f'extend: which grows first: {", ".join(orders.GROWTHS)}'),
    ('replace', str, 'regenerate: FROM:TO, first and last frame made anew'),
    ('scenes', str, 'story: frames of each scene, as 24,24,24'),
    ('connections', str, 'story: frames between scenes, one for all or each'),
    ('direction', str, f'long: {" or ".join(orders.DIRECTIONS)}'),
    ('sinks', str, f'long: ends that stay in view: {", ".join(orders.SINKS)}'),
    ('sink_latents', int, 'long: latents per end that stay in view'),
    (
      'span',
      int,
      'latents that the model was trained on: none farther away are seen (any)',
    ),
  ):
    parser.add_argument(f'--{name}', type=kind, help=text)
  parser.add_argument(
    '--loop', action='store_true', default=None, help='story: ends as it began'
  )
