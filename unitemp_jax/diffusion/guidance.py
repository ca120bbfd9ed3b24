"""Classifier-free guidance, u + w (c - u) (arXiv 2207.12598).

The one name of w is `guidance_scale`; 1 is no guidance. CausVid and
Self-Forcing write c + w' (c - u) in their losses, whose w' is w - 1. So did
earlier versions of this package: `guidance` of a `config.loss` and
`extra_guidance` were w', any other `guidance` was w. They are still read.
"""

from typing import Any

from unitemp_jax.errors import UserError

# Former name of w -> what is added to its value.
FORMER = {'guidance': 0.0, 'extra_guidance': 1.0}
# Sections of configs with a former `guidance` -> the same.
FORMER_CONFIG = {'sampling': 0.0, 'loss': 1.0}


def guide(conditional, unconditional, guidance_scale):
  """Returns the guided velocity u + w (c - u)."""
  return unconditional + guidance_scale * (conditional - unconditional)


def read_scale(fields: Any, where: str) -> float:
  """Returns w from the one field that is given.

  Args:
    fields: holds `guidance_scale` or a former name; None is as good as absent.
    where: for errors.

  Raises:
    UserError: several fields are given, or none.
  """
  added = {'guidance_scale': 0.0, **FORMER}
  given = [name for name in added if fields.get(name) is not None]
  if len(given) != 1:
    raise UserError(
      f'{where} must give one guidance_scale, w in u + w (c - u), not '
      f'{" and ".join(given) or "none"}.'
    )
  return float(fields[given[0]]) + added[given[0]]


def config_scale(config: Any, section: str) -> float:
  """Returns w of `config.sampling` or `config.loss`; see `read_scale`."""
  values = dict(config[section])
  if 'guidance' in values:
    values['guidance'] += FORMER_CONFIG[section]
  return read_scale(values, f'config.{section}')
