"""Latents to pixels: jointly when all exist, or block by block as made.

A causal decoder needs the past of a block. Jointly it has all of it. Streaming,
a block is decoded in the context that exists at that moment: the contiguous
latents before it if they have been made, else the anchors it was denoised with,
else nothing (method.md section 4; P + B latents decode to 1 + 4 (P + B - 1)
frames, of which the last 4 B are kept).
"""

from collections.abc import Callable

import numpy as np

from unitemp_jax.plans import Plan

# Latents [B, F, h, w, C] to frames [B, 1 + 4 (F - 1), H, W, 3].
Decode = Callable[[np.ndarray], np.ndarray]


def window(decode: Decode, past: np.ndarray, block: np.ndarray) -> np.ndarray:
  """Decodes a block after its past and keeps the block's own frames.

  Args:
    decode: of the VAE, starting from nothing.
    past: latents `[B, P, h, w, C]`, P may be 0.
    block: latents `[B, n, h, w, C]`.

  Returns:
    `4 n` frames. Without past the decoder takes the block's first latent for an
    image latent of one frame; that frame is repeated 4 times.
  """
  frames = decode(np.concatenate([past, block], axis=1))
  wanted = 4 * block.shape[1]
  if past.shape[1]:
    return frames[:, -wanted:]
  return np.concatenate([np.repeat(frames[:, :1], 3, axis=1), frames], axis=1)


def stream(
  decode: Decode, plan: Plan, latents: np.ndarray, anchors: np.ndarray
) -> list[tuple[int, np.ndarray]]:
  """Decodes every generated row as soon as it exists.

  Args:
    decode: of the VAE.
    plan: what was run.
    latents: its buffer `[B, entries, h, w, C]`.
    anchors: of every row, `[J, B, P, h, w, C]`.

  Returns:
    In the order of generation: (first frame on the timeline, frames). Given
    clips on the timeline come first.
  """
  positions, entries = plan.timeline()
  where = dict(zip(positions.tolist(), entries.tolist(), strict=True))
  start = int(positions[0])
  made: set[int] = set()
  pieces = []
  for row in range(plan.num_rows):
    own = [p for p, entry in plan.entries(row) if where.get(p) == entry]
    if not own or (plan.given[row] and set(own) <= made):
      continue
    block = latents[:, [where[p] for p in own]]
    if own[0] == start:
      pieces.append((0, decode(block)))
    else:
      past = own[0]
      while past - 1 in made:
        past -= 1
      before = latents[:, [where[p] for p in range(past, own[0])]]
      if not before.shape[1] and plan.anchor[row]:
        before = anchors[row]
      first_frame = 4 * (own[0] - start) - 3
      pieces.append((first_frame, window(decode, before, block)))
    made.update(own)
  return pieces


def compose(pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
  """Puts streamed pieces in temporal order, `[B, T, H, W, 3]`."""
  ordered = sorted(pieces, key=lambda piece: piece[0])
  return np.concatenate([frames for _, frames in ordered], axis=1)


def delayed(
  decode: Decode, latents: np.ndarray, past: int, block: int
) -> np.ndarray:
  """Decodes every block in a window of `past` final latents before it.

  The baseline that waits for the block before (`past` = block) instead of
  using anchors; `latents` is the timeline `[B, N, h, w, C]`.
  """
  pieces = [(0, decode(latents[:, :block]))]
  for first in range(block, latents.shape[1], block):
    before = latents[:, max(first - past, 0) : first]
    own = latents[:, first : first + block]
    pieces.append((4 * first - 3, window(decode, before, own)))
  return compose(pieces)
