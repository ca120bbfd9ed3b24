"""Attention on whatever there is, split over the mesh around it."""

import jax

from unitemp_jax.models.attention import ambient, xla


def attention(
  q_BQNK: jax.Array,
  k_BSNK: jax.Array,
  v_BSNK: jax.Array,
  kv_len: jax.Array | None = None,
  mask_BQS: jax.Array | None = None,
) -> jax.Array:
  """Softmax attention, scale 1 / sqrt(K), logits in float32.

  Args:
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar; keys at and beyond it are not attended to. At least 1.
    mask_BQS: bool; True where a query may attend to a key; B may be 1. It may
      be coarser than tokens, `[B, F, Fk]`: then every entry stands for Q / F
      queries and S / Fk keys, as for the frames of a video.

  Returns:
    `BQNK`, in the dtype of the queries.
  """
  return ambient.over_mesh(
    xla.attention, q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS
  )
