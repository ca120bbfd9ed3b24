"""Running plans: step, sampler, stream, decoding, teacher."""

import jax

from unitemp_jax import plans

# Here, so that plans can be made and printed without waiting for jax.
jax.tree_util.register_dataclass(
  plans.Plan, data_fields=plans.DATA_FIELDS, meta_fields=plans.META_FIELDS
)
