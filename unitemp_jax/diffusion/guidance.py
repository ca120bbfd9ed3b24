"""Classifier-free guidance in the two conventions that are in use.

  guidance         u + w (c - u)    sampling in Wan; 1 is no guidance
  extra_guidance   c + w (c - u)    distillation; 0 is no guidance

The second, which CausVid and Self-Forcing use in their losses, is the first
with w + 1, so that a number alone says nothing: the name of the field decides.
"""

from collections.abc import Mapping
from typing import Any

from unitemp_jax.errors import UserError

NAMES = ('guidance', 'extra_guidance')


def standard_scale(fields: Mapping[str, Any], where: str = 'config') -> float:
  """Reads the standard scale from the one field that is given.

  Args:
    fields: holds `guidance` or `extra_guidance`; None is as good as absent.
    where: for errors.

  Raises:
    UserError: both fields are given, or none.
  """
  given = [name for name in NAMES if fields.get(name) is not None]
  if len(given) != 1:
    raise UserError(
      f'{where} must give one of guidance (u + w (c - u)) and extra_guidance '
      f'(c + w (c - u)), not {" and ".join(given) or "neither"}.'
    )
  return float(fields[given[0]]) + NAMES.index(given[0])


def guide(conditional, unconditional, scale):
  """Guided velocity u + scale (c - u); 1 is no guidance."""
  return unconditional + scale * (conditional - unconditional)
