"""Looping videos: the last frame is the first."""

import dataclasses
from collections.abc import Sequence

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import (
  Conditioning,
  Item,
  Script,
  Settings,
  check_word,
  given_ends,
)
from unitemp_jax.plans import Plan


def loop(
  num_latents: int,
  *,
  side: str = 'future',
  given_first: int = 0,
  given_last: int = 0,
  closed: bool = False,
  overlap: int | None = None,
  **settings,
) -> Plan:
  """Returns the plan of a video whose last frame is its first frame.

  Its first block is generated (or what is given continued), and is then seen
  behind the end as well as at the beginning; see `loop_script`, which `closed`
  and `overlap` are for. What is left is filled from `side`, see `fill`.
  """
  check_word('side', side)
  setting = Settings(**settings)
  if given_last != 0:
    raise UserError(
      'a loop ends where it starts, so that nothing is given at its end; use '
      'inbetween to give the last frame.'
    )
  script = loop_script(
    num_latents,
    setting,
    given_ends(num_latents, given_first, 0),
    closed=closed,
    overlap=overlap,
  )
  least = max(given_first, 1) + 1 + script.is_open
  if num_latents < least:
    raise UserError(
      f'a loop of {timeline.num_frames(num_latents)} frames leaves nothing '
      f'that closes it; use {timeline.num_frames(least)} or more.'
    )
  head = given_first
  if given_first < 2:  # a given clip is a beginning already
    head = min(setting.block, script.length - 1)
    script.blocks += script.cut(0, head, 'past')
  script.blocks += script.cut(head, script.length, side)
  return compile_plan(script)


def loop_script(
  num_latents: int,
  settings: Settings,
  given: Sequence[Conditioning],
  *,
  closed: bool = False,
  overlap: int | None = None,
) -> Script:
  """Returns an order without blocks whose end sees its beginning.

  Positions 0 and N - 1 are the same moment. Unless the beginning is given, no
  latent of a loop is an image latent: what lies before its first latent is its
  last one. Then the start is open, and position N - 1 has no latent of its own.
  The first latents are seen behind the end, too, and with them what is given at
  position 0.

  Args:
    num_latents: N.
    settings: without a span, nothing is seen that is farther away than N.
    given: what is given, by position.
    closed: begin with an image latent even if nothing is given, and see
      everything: so loops are trained, by teachers that know no other start.
    overlap: how many of the first latents are seen behind the end; None = as
      many as begin within a block after the end.
  """
  if settings.span is None and not closed:
    least = settings.block + settings.anchors + 1
    settings = dataclasses.replace(settings, span=max(num_latents, least))
  begun = closed or any(one.position == 0 for one in given)
  # Without anchors nothing stands for the end before there is one.
  is_open = not begun and settings.anchors > 0
  if num_latents < 1 + is_open:
    raise UserError(
      f'a loop of {timeline.num_frames(num_latents)} frames is too short; use '
      f'{timeline.num_frames(1 + is_open)} or more.'
    )
  if is_open:  # a switch there is one at position 0
    prompts = [one for one in settings.prompts if one[0] != num_latents - 1]
    settings = dataclasses.replace(settings, prompts=prompts)
  script = Script(
    0, num_latents - is_open, settings, is_open=is_open, conditioning=given
  )
  period = num_latents - 1
  if overlap is None:
    overlap = settings.block + (not is_open)
  homes = [
    Item(position, script.entry(position))
    for position in range(min(overlap, period))
  ]
  # Of what is given at position 0 an image latent is seen, not what it makes.
  homes[:1] = [one for one in script.items if one.position == 0] or homes[:1]
  script.copies = {
    home._replace(position=period + home.position): home for home in homes
  }
  return script
