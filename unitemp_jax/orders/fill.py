"""Forward, backward, inbetween, keyframes, regenerate and extend.

They fill what lies between, before and behind the conditioning frames.

Lengths are in latents. `given_first` and `given_last` are latents given at the
start and at the end: 1 = an image, more = a clip. `side` is where a gap is
filled from: past, future, outside_in (past and future in turn) or middle_out
(the middle, then its past and its future in turn). All of them raise UserError
where the sizes do not fit together.
"""

from collections.abc import Sequence

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import (
  Conditioning,
  Settings,
  alternate,
  check_word,
  given_ends,
  new_script,
)
from unitemp_jax.plans import Plan

GROWTHS = ('alternate', 'past', 'future')


def forward(
  num_latents: int,
  *,
  side: str = 'past',
  given_first: int = 0,
  given_last: int = 0,
  **settings,
) -> Plan:
  """Returns the plan that generates from the past to the future."""
  given = given_ends(num_latents, given_first, given_last)
  return keyframes(num_latents, given, side=side, **settings)


def backward(num_latents: int, **settings) -> Plan:
  """Returns the plan that generates from the future to the past."""
  return forward(num_latents, side='future', **settings)


def inbetween(
  num_latents: int,
  *,
  side: str = 'past',
  given_first: int = 1,
  given_last: int = 1,
  **settings,
) -> Plan:
  """Returns the plan that fills the time between two given ends."""
  if num_latents < 2 or given_first < 1 or given_last < 1:
    raise UserError(
      'inbetween fills the time between two ends that are given; use '
      f'{timeline.num_frames(2)} frames or more and give both (--first and '
      '--last; for a set --suite=inbetween), or use forward or backward.'
    )
  ends = {'given_first': given_first, 'given_last': given_last}
  return forward(num_latents, side=side, **ends, **settings)


def transition(
  num_latents: int, *, side: str = 'outside_in', **settings
) -> Plan:
  """Returns the plan of one continuous shot between two given scenes.

  That is `inbetween`, from both scenes in turn; `prompts` says where the second
  scene's prompt takes over.
  """
  return inbetween(num_latents, side=side, **settings)


def keyframes(
  num_latents: int,
  given: Sequence[Conditioning | tuple[int, int]] = (),
  *,
  side: str = 'past',
  **settings,
) -> Plan:
  """Returns the plan that fills every gap between given images and clips.

  A gap ends with the latent that a given image belongs to. Gaps are filled one
  after the other: by time, or for the side future the latest first. The ends of
  the video may be open.
  """
  check_word('side', side)
  script = new_script(0, num_latents, Settings(**settings), given)
  gaps = script.gaps()
  for low, high in gaps[::-1] if side == 'future' else gaps:
    script.blocks += script.cut(low, high, side)
  return compile_plan(script)


def regenerate(
  num_latents: int, first: int, count: int, *, side: str = 'past', **settings
) -> Plan:
  """Returns the plan that makes a span of a given video anew.

  All before the span is given as a clip. So is all behind it: that clip's first
  frame is the last one of the span's last latent, so that `4 count - 1` frames
  change, 4 first - 3 .. 4 (first + count) - 5, and all others stay.
  """
  check_word('side', side)
  if num_latents < 3:
    raise UserError(
      f'a video of {timeline.num_frames(num_latents)} frames has no inside '
      f'to be made anew; use {timeline.num_frames(3)} or more.'
    )
  if not 1 <= first <= num_latents - 2:
    raise UserError(
      f'what is made anew begins at frame {timeline.first_frame(first)}, not '
      f'inside a video of {timeline.num_frames(num_latents)} frames; begin at '
      f'1..{timeline.first_frame(num_latents - 2)}.'
    )
  if not 1 <= count <= num_latents - 1 - first:
    last = timeline.last_frame(first + count - 1) - 1
    raise UserError(
      f'what is made anew ends at frame {last}, not inside a video of '
      f'{timeline.num_frames(num_latents)} frames; end at '
      f'{timeline.last_frame(first) - 1}..'
      f'{timeline.last_frame(num_latents - 2) - 1}.'
    )
  behind = Conditioning(first + count - 1, num_latents - first - count + 1)
  script = new_script(
    0,
    num_latents,
    Settings(**settings),
    [Conditioning(0, first), behind],
    held=frozenset({0}),
  )
  script.blocks += script.cut(first, first + count, side)
  return compile_plan(script)


def extend(
  given_count: int,
  *,
  before: int = 0,
  after: int = 0,
  sides: str = 'alternate',
  **settings,
) -> Plan:
  """Returns the plan that makes a given image or clip longer.

  What is given begins at position 0, so that the video begins at `-before`.
  Extended into the past, the clip's first latent is an image latent no longer:
  the latent of the timeline at position 0 is generated as well. `sides` says
  which side grows first if both do: past, future, or alternate, in turn.
  """
  if given_count < 1:
    raise UserError('give at least one frame that is made longer.')
  if min(before, after) < 0 or before + after < 1:
    raise UserError('extend needs --before or --after, such as --after=24.')
  check_word('sides', sides, GROWTHS)
  given = [Conditioning(0, given_count)]
  length = before + given_count + after
  script = new_script(-before, length, Settings(**settings), given)
  past, future = [], []
  for low, high in script.gaps():
    if low < 0:
      past += script.cut(low, high, 'future')
    else:
      future += script.cut(low, high, 'past')
  script.blocks = {
    'alternate': alternate(past, future),
    'past': past + future,
    'future': future + past,
  }[sides]
  return compile_plan(script)
