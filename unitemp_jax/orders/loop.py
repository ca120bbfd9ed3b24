"""Videos that end where they begin."""

from unitemp_jax.errors import UserError
from unitemp_jax.orders.fill import check_side, given_ends, new_script
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import Settings
from unitemp_jax.orders.window import Item
from unitemp_jax.plans import Plan


def loop(
  num_latents: int,
  *,
  side: str = 'past',
  given_first: int = 0,
  given_last: int = 0,
  overlap: int = 1,
  **settings,
) -> Plan:
  """Returns the plan of a video whose last frame is its first frame.

  The first block is generated (or a clip given in its place); then its image
  latent, copied to position N-1, is context for everything in between. With an
  overlap of more than 1, so are the latents after it, behind the end of the
  video: then the end knows how the beginning moves.

  Args:
    num_latents: N, the length of the timeline in latents.
    side: from which side the rest is filled, as for `inbetween`.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: must be 0, since the loop gives its own last frame.
    overlap: how many of the first latents are seen at the end, at least 1.
    **settings: see `Settings`.

  Raises:
    UserError: the sizes do not fit together.
  """
  check_side(side)
  setting = Settings(**settings)
  if given_last != 0:
    raise UserError(
      'order loop: its last frame is its first, so that given_last must be 0; '
      'use inbetween to give the last frame'
    )
  head = given_first if given_first > 1 else setting.block
  if num_latents <= head:
    raise UserError(
      f'order loop: {num_latents} latents leave nothing to close the loop '
      f'after the first {head}; ask for at least {head + 1}'
    )
  if not 1 <= overlap <= head:
    raise UserError(
      f'order loop: an overlap of {overlap} latents does not fit the first '
      f'{head}, which close the loop; use 1..{head}'
    )
  given = given_ends(num_latents, given_first, 0)
  script = new_script(0, num_latents, setting, given)
  script.copies = [Item(num_latents - 1 + k, k) for k in range(overlap)]
  if given_first < 2:
    script.blocks += script.cut(0, head, 'past')
  script.blocks += script.cut(head, num_latents, side)
  return compile_plan(script)
