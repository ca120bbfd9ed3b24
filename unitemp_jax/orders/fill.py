"""Orders that fill what lies between, before and behind what is given."""

from collections.abc import Sequence

from unitemp_jax.errors import UserError
from unitemp_jax.orders.blocks import SIDES
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import Given, Script, Settings
from unitemp_jax.plans import Plan


def forward(
  num_latents: int,
  *,
  given_first: int = 0,
  given_last: int = 0,
  **settings,
) -> Plan:
  """Returns the plan that generates from the past to the future.

  Args:
    num_latents: N, the length of the timeline in latents.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: latents given at the end: 1 = an image, more = a clip.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  given = given_ends(num_latents, given_first, given_last)
  return keyframes(num_latents, given, side='past', **settings)


def backward(
  num_latents: int,
  *,
  given_first: int = 0,
  given_last: int = 0,
  **settings,
) -> Plan:
  """Returns the plan that generates from the future to the past.

  Args:
    num_latents: N, the length of the timeline in latents.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: latents given at the end: 1 = an image, more = a clip.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  given = given_ends(num_latents, given_first, given_last)
  return keyframes(num_latents, given, side='future', **settings)


def inbetween(
  num_latents: int,
  *,
  side: str = 'past',
  given_first: int = 1,
  given_last: int = 1,
  **settings,
) -> Plan:
  """Returns the plan that fills the time between two given ends.

  Args:
    num_latents: N, the length of the timeline in latents.
    side: from which side: past, future, outside_in (past and future in turn) or
      middle_out (the middle, then its past and its future in turn).
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: latents given at the end: 1 = an image, more = a clip.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  if num_latents < 2 or given_first < 1 or given_last < 1:
    raise UserError(
      'order inbetween: needs at least 2 latents and something given at both '
      f'ends, but has {num_latents} latents, {given_first} given first and '
      f'{given_last} last; use forward or backward with one end'
    )
  given = given_ends(num_latents, given_first, given_last)
  return keyframes(num_latents, given, side=side, **settings)


def transition(
  num_latents: int,
  *,
  side: str = 'outside_in',
  given_first: int = 1,
  given_last: int = 1,
  **settings,
) -> Plan:
  """Returns the plan of one continuous shot between two given scenes.

  The same as `inbetween`, from both scenes in turn; `prompts` says where the
  second scene's prompt takes over.

  Args:
    num_latents: N, both given ends included.
    side: see `inbetween`.
    given_first: latents given of the first scene: 1 = an image, more = a clip.
    given_last: latents given of the second scene.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  return inbetween(
    num_latents,
    side=side,
    given_first=given_first,
    given_last=given_last,
    **settings,
  )


def keyframes(
  num_latents: int,
  given: Sequence[Given | tuple[int, int]] = (),
  *,
  side: str = 'past',
  **settings,
) -> Plan:
  """Returns the plan that fills every gap between given images and clips.

  A gap ends with the latent that a given image belongs to. Gaps are filled one
  after the other: by time, or for the side future the latest first. The ends of
  the video may be open.

  Args:
    num_latents: N, the length of the timeline in latents.
    given: (position, count) of what is given, anywhere and in any order; see
      the module `orders`.
    side: from which side a gap is filled, as for `inbetween`.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  check_side(side)
  script = new_script(0, num_latents, Settings(**settings), given)
  gaps = script.gaps()
  for low, high in gaps[::-1] if side == 'future' else gaps:
    script.blocks += script.cut(low, high, side)
  return compile_plan(script)


def regenerate(
  num_latents: int,
  first: int,
  count: int,
  *,
  side: str = 'past',
  **settings,
) -> Plan:
  """Returns the plan that makes a span of a given video anew.

  All before the span is given as a clip. So is all behind it: that clip's first
  frame is the last one of the span's last latent, so that `4 count - 1` frames
  change, 4 first - 3 .. 4 (first + count) - 5, and all others stay.

  Args:
    num_latents: N, latents of the video.
    first: first latent of the span, at least 1.
    count: latents of the span, at most N - 1 - first.
    side: from which side the span is filled, as for `inbetween`.
    **settings: see `Settings`.

  Raises:
    UserError: the span does not lie inside the video.
  """
  check_side(side)
  if num_latents < 3:
    raise UserError(
      f'order regenerate: a video of {num_latents} latents has no inside; '
      'give one of at least 3'
    )
  if not 1 <= first <= num_latents - 2:
    raise UserError(
      f'order regenerate: a span from latent {first} on does not lie inside a '
      f'video of {num_latents} latents; begin at 1..{num_latents - 2}'
    )
  if not 1 <= count <= num_latents - 1 - first:
    raise UserError(
      f'order regenerate: {count} latents from latent {first} on do not lie '
      f'inside a video of {num_latents} latents; use '
      f'1..{num_latents - 1 - first}'
    )
  behind = Given(first + count - 1, num_latents - first - count + 1)
  script = new_script(
    0,
    num_latents,
    Settings(**settings),
    [Given(0, first), behind],
    held=frozenset({0}),
  )
  script.blocks += script.cut(first, first + count, side)
  return compile_plan(script)


def new_script(
  begin: int,
  num_latents: int,
  settings: Settings,
  given: Sequence[Given | tuple[int, int]] = (),
  *,
  held: frozenset[int] = frozenset(),
) -> Script:
  """Returns an order without blocks.

  Args:
    begin: position of frame 0. If the start is open, that frame belongs to the
      anchors, and the latents of the video begin one position later.
    num_latents: of a video of so many frames, 1 + 4 (N - 1).
    settings: what all orders have in common.
    given: what is given, by position.
    held: see `Script`.

  Raises:
    UserError: a video of no latents, or given ones that do not fit.
  """
  placed = [Given(*one) for one in given]
  is_open = settings.open_start and all(one.position > begin for one in placed)
  if num_latents < 1 + is_open:
    raise UserError(
      f'order: a video of {num_latents} latents; ask for at least {1 + is_open}'
    )
  return Script(
    begin + is_open,
    num_latents - is_open,
    settings,
    is_open=is_open,
    given=placed,
    held=held,
  )


def check_side(side: str) -> None:
  """Refuses a side that does not exist."""
  if side not in SIDES:
    raise UserError(f'order: unknown side {side!r}; use {", ".join(SIDES)}')


def given_ends(num_latents: int, first: int, last: int) -> list[Given]:
  """Returns what is given at both ends.

  Raises:
    UserError: the ends are negative, or leave nothing to generate.
  """
  if min(first, last) < 0:
    raise UserError('order: given_first and given_last must be at least 0')
  kept = (first if first > 1 else 0) + max(last - 1, 0)
  if num_latents >= 1 and (kept >= num_latents or last >= max(num_latents, 2)):
    raise UserError(
      f'order: {first} latents given first and {last} last leave nothing to '
      f'generate of {num_latents}; ask for at least '
      f'{max(kept + 1, last + 1)}'
    )
  given = [Given(0, first)] if first else []
  return given + ([Given(num_latents - last, last)] if last else [])
