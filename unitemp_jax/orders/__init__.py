"""The temporal orders: functions that return plans.

An order says in which sequence the blocks of a timeline are made, and what each
may see. A block has anchors when the latent before it is not there yet, unless
it starts the video; if that has an open start, as loops do, even then. Without
a window, whatever is generated or given is seen by all later rows; with one, a
row sees at most so many latents, the nearest.

Every function takes the settings of `Settings` (block, anchors, start, window,
prompts, rows) beside its own. Positions and lengths are in latents.

What is given (`Conditioning(position, count)`: so many latents from there on):

* 1, a single image: context at its position, in a buffer entry of its own
  behind the timeline's. The latent of the timeline there is generated as well.
* more, a clip at the start: its latents are the timeline's.
* more, a clip elsewhere, encoded by itself: its latents but the first are the
  timeline's. Its first, an image latent, is context in an entry of its own; the
  latent of the timeline there codes the 4 frames that end with the clip's
  first, and is generated.
"""

import functools
from collections.abc import Callable

from unitemp_jax.errors import UserError
from unitemp_jax.orders.fill import (
  GROWTHS,
  backward,
  extend,
  forward,
  inbetween,
  keyframes,
  regenerate,
  transition,
)
from unitemp_jax.orders.long import DIRECTIONS, SINKS, long
from unitemp_jax.orders.loop import loop
from unitemp_jax.orders.script import SIDES, Conditioning, Settings
from unitemp_jax.orders.story import Connection, Scene, story
from unitemp_jax.plans import Plan

# Orders of one length alone, which training and evaluation choose by name.
ORDERS: dict[str, Callable[..., Plan]] = {
  'forward': forward,
  'backward': backward,
  'inbetween': inbetween,
  'inbetween_future': functools.partial(inbetween, side='future'),
  'inbetween_outside_in': functools.partial(inbetween, side='outside_in'),
  'inbetween_middle_out': functools.partial(inbetween, side='middle_out'),
  'loop': loop,
}

# Orders with arguments of their own.
WORKFLOWS: dict[str, Callable[..., Plan]] = {
  'extend': extend,
  'keyframes': keyframes,
  'transition': transition,
  'regenerate': regenerate,
  'story': story,
  'long': long,
}


def named(text: str) -> list[str]:
  """The orders of names with commas, or of 'all'."""
  names = [name.strip() for name in text.split(',')]
  if names == ['all']:
    return list(ORDERS)
  for name in names:
    if name not in ORDERS:
      raise UserError(
        f'--orders names {name!r}; use "all" alone, or some of '
        f'{", ".join(ORDERS)}.'
      )
  return list(dict.fromkeys(names))


def local_window(local_attn_size: int, block: int) -> int | None:
  """The window of Self-Forcing's `local_attn_size`, which counts the block.

  Its -1 is no window, None.
  """
  if local_attn_size == -1:
    return None
  if local_attn_size <= block:
    raise UserError(
      f'--local_attn_size={local_attn_size} counts the block of {block} '
      f'itself; use {block + 1} or more, or -1 to see everything.'
    )
  return local_attn_size - block
