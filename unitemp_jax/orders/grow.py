"""Orders that grow from what is given: extension to either side."""

from unitemp_jax.errors import UserError
from unitemp_jax.orders.blocks import alternate
from unitemp_jax.orders.fill import new_script
from unitemp_jax.orders.rows import compile_plan
from unitemp_jax.orders.script import Given, Settings
from unitemp_jax.plans import Plan

GROWTHS = ('alternate', 'past', 'future')


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
  the latent of the timeline at position 0 is generated as well.

  Args:
    given_count: latents given: 1 = an image, more = a clip.
    before: latents to be added before it.
    after: latents to be added after it.
    sides: which side grows first if both do: past, future, or alternate, that
      is block by block in turn, the past first.
    **settings: see `Settings`; prompts may switch at negative positions.

  Raises:
    UserError: the sizes do not fit together.
  """
  if given_count < 1:
    raise UserError('order extend: give at least one latent to begin with')
  if min(before, after) < 0 or before + after < 1:
    raise UserError(
      f'order extend: {before} latents before and {after} after add nothing; '
      'ask for at least 1 on one side'
    )
  if sides not in GROWTHS:
    raise UserError(
      f'order extend: unknown sides {sides!r}; use {", ".join(GROWTHS)}'
    )
  script = new_script(
    -before,
    before + given_count + after,
    Settings(**settings),
    [Given(0, given_count)],
  )
  gaps = script.gaps()
  past, future = [], []
  for low, high in gaps:
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
