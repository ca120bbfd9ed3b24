"""Masks of frames, and what they mean for tokens.

A row of a mask stands for one or more queries in a row, a column for as many
keys: all tokens of a latent frame see the same. So a mask need not be as large
as the logits, which at full size no device could hold.
"""

import jax
import jax.numpy as jnp


def check(mask_BQS: jax.Array, queries: int, keys: int) -> None:
  """Raises ValueError if rows or columns do not divide the tokens."""
  _, rows, columns = mask_BQS.shape
  if queries % rows or keys % columns:
    raise ValueError(
      f'a mask {mask_BQS.shape} does not divide {queries} queries and {keys} '
      'keys'
    )


def to_tokens(mask_BQS: jax.Array, queries: int, keys: int) -> jax.Array:
  """Expands a mask to `[B, queries, keys]`."""
  _, rows, columns = mask_BQS.shape
  if queries != rows:
    mask_BQS = jnp.repeat(mask_BQS, queries // rows, axis=1)
  if keys != columns:
    mask_BQS = jnp.repeat(mask_BQS, keys // columns, axis=2)
  return mask_BQS
