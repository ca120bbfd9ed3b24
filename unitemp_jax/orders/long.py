"""Long videos through a sliding window, with attention sinks at the ends."""

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import (
  Item,
  Script,
  Settings,
  check_word,
  given_ends,
  new_script,
)
from unitemp_jax.plans import Plan

DIRECTIONS = ('forward', 'backward')
SINKS = ('none', 'past', 'future', 'both')


def long(
  num_latents: int,
  *,
  direction: str = 'forward',
  sinks: str = 'none',
  window: int | None = None,
  span: int | None = None,
  sink_latents: int | None = None,
  given_first: int = 0,
  given_last: int = 0,
  **settings,
) -> Plan:
  """Returns the plan of a video of any length at constant memory and cost.

  A window of the nearest latents slides along. Sinks stay in view: latents at
  the start of the video (past), at its end (future) or both, *both-end guided*.
  The far end's are made before the video gets there, or given. They are seen at
  their own positions where those lie within the trained span, else as far away
  as it allows.

  Args:
    num_latents: N, the length of the timeline in latents.
    direction: forward or backward.
    sinks: none, past, future or both.
    window: most latents seen beside sinks; None = as many as the span allows,
      two thirds of that if there are sinks at the end that the video is on its
      way to, so that they can keep their distance; without a span everything.
    span: latents that the model was trained on; positions that meet in a row
      differ by less. None = as few as window and sinks need.
    sink_latents: latents per end that serve as sinks, of a generated block or a
      given clip; a given image counts as one. None = a block, or fewer where
      the span leaves no room for a block in the window.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: latents given at the end: 1 = an image, more = a clip.
    **settings: see `Settings`.
  """
  check_word('direction', direction, DIRECTIONS)
  check_word('sinks', sinks, SINKS)
  given = given_ends(num_latents, given_first, given_last)
  ends = ('past', 'future') if sinks == 'both' else (sinks,)
  ends = () if sinks == 'none' else ends
  counts = {'past': given_first, 'future': given_last}
  if sink_latents is not None and not ends:
    raise UserError(
      '--sinks=none goes with no number of them; leave that out, or use '
      '--sinks=past, future or both.'
    )
  sizes, window, span = _fit(
    Settings(**settings),
    {end: counts[end] for end in ends},
    direction,
    window,
    span,
    sink_latents,
  )
  setting = Settings(**settings, window=window)
  script = new_script(0, num_latents, setting, given)
  order = ends if direction == 'forward' else ends[::-1]
  order = sorted(order, key=lambda end: not counts[end])  # given ones are there
  script.blocks = _blocks(
    script, direction, [end for end in order if not counts[end]]
  )
  script.span, script.forward = span, direction == 'forward'
  script.sinks = [
    (item, end == 'past')
    for end in order
    for item in _sink(script, end, counts[end], sizes[end])
  ]
  return compile_plan(script)


def _fit(settings, ends, direction, window, span, sink_latents):
  """Sizes of the sinks, and the window and span where they are not given."""
  block, anchors = settings.block, settings.anchors
  # A row and its anchors; only backward, or where the far end is made early,
  # has a row anchors.
  row = block + (anchors if direction == 'backward' else 0)
  most = block
  if sink_latents is None and span is not None and ends:
    most = max(1, min(block, (span - row - block) // len(ends)))
  wanted = most if sink_latents is None else sink_latents
  if wanted < 1:
    raise UserError(f'--sink_latents={wanted}: use 1 or more, or --sinks=none.')
  sizes = {}
  for end, count in ends.items():
    # A clip's first latent is context only, unless it begins the video.
    clip = count - (end == 'future' and count > 1)
    sizes[end] = min(wanted, clip or block)
  number = sum(sizes.values())
  if span is None:
    if ends and window is None:
      raise UserError(
        'sinks need to know what the model was trained on; give --span, or at '
        'least --window.'
      )
    far = block + anchors
    span = max(row + number + (window or 0), far + number) if ends else None
    return sizes, window, span
  largest = span - row - number
  if largest < 1:
    raise UserError(
      f'a block of {block}, its anchors and {number} of sinks leave no window '
      f'in a trained span of {span}; use a span of {row + number + 1} or more, '
      'or fewer --sink_latents or --anchors.'
    )
  if window is not None and window > largest:
    raise UserError(
      f'a window of {window} does not fit a trained span of {span} beside a '
      f'block and {number} of sinks; use at most {largest} (--window).'
    )
  ahead = 'future' if direction == 'forward' else 'past'
  if window is None:
    window = largest
    if ahead in ends:
      blocks = max(2 * largest // 3 // block, 1)
      window = min(largest, blocks * block)
  return sizes, window, span


def _blocks(script: Script, direction, early):
  """The blocks that are to be sinks at ends `early`, then all others."""
  begin = script.begin
  ((low, high),) = script.free(begin, begin + script.length)
  block = script.settings.block
  if high - low < block * len(early) + 1:
    length = script.length + script.is_open
    least = length - (high - low) + block * len(early) + 1
    raise UserError(
      f'a video of {timeline.num_frames(length)} frames is too short '
      f'for its sinks; use {timeline.num_frames(least)} or more.'
    )
  blocks = []
  for end in early:
    if end == 'past':
      blocks += script.cut(low, low + block, 'past')
      low += block
    else:
      blocks += script.cut(high - block, high, 'future')
      high -= block
  side = 'past' if direction == 'forward' else 'future'
  return blocks + script.cut(low, high, side)


def _sink(script: Script, end: str, given: int, size: int) -> list[Item]:
  """The latents that serve as sinks at one end, by time."""
  last = script.begin + script.length - 1
  if given == 1:
    position = script.begin if end == 'past' else last
    return [
      item
      for item in script.items
      if item.position == position and not script.is_home(item)
    ]
  first = script.begin if end == 'past' else last - size + 1
  return [
    Item(position, script.entry(position))
    for position in range(first, first + size)
  ]
