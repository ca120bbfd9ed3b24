"""A control with a known fault: one block taken from another clip.

A flicker measure that does not rise on these latents cannot be trusted to see
blocks that do not belong together.
"""

from __future__ import annotations

import numpy as np

from unitemp_jax.errors import UserError


def swap_block(
  latents: np.ndarray, index: int, *, block: int = 3, mix: float = 1.0
) -> np.ndarray:
  """Replaces one block of every clip by the next clip's block.

  Args:
    latents: [n, N, h, w, C], n >= 2.
    index: which block, counted from 0; it holds latents index*block onwards.
    block: latent frames of a block.
    mix: share of the other clip, 1 = replaced wholly.

  Returns:
    New latents, [n, N, h, w, C]; clip i got its block from clip i+1 modulo n.

  Raises:
    UserError: a single clip, or no such block.
  """
  start = index * block
  if len(latents) < 2:
    raise UserError(
      'swapping a block needs at least two clips, but got '
      f'{len(latents)}; pass more.'
    )
  if not 0 <= start < latents.shape[1]:
    raise UserError(
      f'there is no block {index} of {block} latents in {latents.shape[1]} '
      'latents; choose an earlier one.'
    )
  swapped = np.array(latents)
  chosen = swapped[:, start : start + block]
  other = np.roll(chosen, -1, axis=0)
  swapped[:, start : start + block] = (1 - mix) * chosen + mix * other
  return swapped
