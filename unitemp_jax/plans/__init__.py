"""Plans: the table, its laws, and the shapes that plans share."""

from unitemp_jax.errors import UserError
from unitemp_jax.plans.plan import (
  DATA_FIELDS,
  FLAGS,
  META_FIELDS,
  PER_LATENT,
  Plan,
  check,
)

__all__ = [
  'DATA_FIELDS',
  'FLAGS',
  'META_FIELDS',
  'PER_LATENT',
  'Plan',
  'align',
  'bucket',
  'bucketed',
  'check',
]


def bucket(size: int) -> int:
  """Returns the size that a size is padded to: 1..8, 10, 12, 14, 16, 20, 24...

  Four sizes per doubling: padding stays below a quarter, and there are 36 sizes
  up to 1024.
  """
  step = 1
  while size > 8 * step:
    step *= 2
  return -(-size // step) * step


def bucketed(plan: Plan) -> Plan:
  """Returns the plan padded, so that lengths do not each need a program.

  Plans of equal bucketed rows, buffer, window, block, anchors and sinks have
  the same shape, whatever their workflow. Rows and buffer entries are padded to
  `bucket`; so is the part of the cache that can be visible at once. Windows of
  the sizes that `bucket` returns are therefore not padded.
  """
  room = plan.block + plan.num_anchors
  return plan.pad(
    rows=bucket(plan.num_rows),
    num_latents=bucket(plan.num_latents),
    num_slots=bucket(max(plan.num_slots - room, 1)) + room,
  )


def align(*plans: Plan) -> list[Plan]:
  """Returns the plans padded to one shape, so that they share a program.

  Raises:
    UserError: the plans differ in block, number of anchors or of sinks.
  """
  kinds = {(plan.block, plan.num_anchors, plan.num_sinks) for plan in plans}
  if len(kinds) > 1:
    raise UserError(
      'plans: they differ in block, number of anchors or of sinks, so that '
      'they cannot share a shape; build them with equal ones'
    )
  sizes = {
    'rows': max(plan.num_rows for plan in plans),
    'num_latents': max(plan.num_latents for plan in plans),
    'num_slots': max(plan.num_slots for plan in plans),
  }
  return [plan.pad(**sizes) for plan in plans]
