"""Plans: temporal orders as tables, their laws, and the shapes they share."""

from unitemp_jax.plans.plan import (
  DATA_FIELDS,
  FLAGS,
  META_FIELDS,
  PER_LATENT,
  Plan,
  align,
  check,
)
