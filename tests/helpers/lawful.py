"""Plans for property tests, of settings that may not have one."""

from hypothesis import assume

from unitemp_jax.errors import UserError


def made(order, *args, **settings):
  """The plan; hypothesis passes over what would be made from nothing."""
  try:
    return order(*args, **settings)
  except UserError as error:
    assume('from nothing' not in str(error) or settings['anchors'])
    raise
