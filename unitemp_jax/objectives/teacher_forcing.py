"""Attention masks that train all rows of a plan in one pass.

The sequence of latent frames, F = 2N + 2 + P (blocks - 1) in all:

  clean    N      the timeline's own latents, as the cache will hold them
  images   2      image latents of the first and the last frame
  noisy    N      every block, at its noise level
  anchors  P each of every block but the first

A clean block sees what its row's write pass sees; a noisy block sees the same
context, itself and its anchors. So one masked pass equals the cached rollout
(a test says so), for any plan without eviction.
"""

import dataclasses

import numpy as np

from unitemp_jax.plans import Plan


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where things are in the training sequence."""

  num_latents: int  # N, latents of the timeline
  block: int  # latents per block; N is a multiple of it
  anchors: int  # P

  @property
  def frames(self) -> int:
    """Length of the sequence in latent frames."""
    return self.noisy(self.num_latents) + self.anchors * (self.blocks - 1)

  @property
  def blocks(self) -> int:
    """Blocks of the timeline."""
    return self.num_latents // self.block

  def image(self, last: bool) -> int:
    """Index of the image latent of the first or last frame."""
    return self.num_latents + int(last)

  def noisy(self, position: int) -> int:
    """Index of the noisy latent at a position of the timeline."""
    return self.num_latents + 2 + position

  def anchor(self, block: int) -> slice:
    """Indices of the anchors of a block, 1 or later."""
    first = self.noisy(self.num_latents) + (block - 1) * self.anchors
    return slice(first, first + self.anchors)

  def positions(self) -> np.ndarray:
    """Temporal position of every frame of the sequence, int32."""
    n = self.num_latents
    timeline = np.arange(n)
    parts = [timeline, [0, n - 1], timeline]
    for block in range(1, self.blocks):
      start = block * self.block
      parts.append(np.arange(start - self.anchors, start))
    return np.concatenate(parts).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class PlanMask:
  """What a plan means for the training sequence."""

  mask: np.ndarray  # bool `[F, F]`, who sees whom, anchors in use
  anchored: np.ndarray  # bool `[blocks]`, which blocks have anchors
  # Bool `[blocks]`, which blocks start from carried anchors.
  drafted: np.ndarray
  alone: np.ndarray  # bool `[blocks]`, which blocks see no context


def plan_mask(plan: Plan, layout: Layout) -> PlanMask:
  """Translates a plan over the whole timeline to the training sequence.

  Buffer entries 0..N-1 are the timeline. A given row at position 0 or N-1 is an
  image latent (in a loop: the copy of the first one), in training the image of
  the clip's own first or last frame.
  """
  mask = np.eye(layout.frames, dtype=bool)
  anchored = np.zeros(layout.blocks, bool)
  drafted = np.zeros(layout.blocks, bool)
  alone = np.zeros(layout.blocks, bool)
  slots: dict[int, int] = {}
  for row in range(plan.num_rows):
    entries = plan.entries(row)
    if not entries:
      continue
    context = [slots[slot] for slot in range(int(plan.visible[row]))]
    if plan.conditioning[row]:
      own = [layout.image(last=position > 0) for position, _ in entries]
    else:
      own = [position for position, _ in entries]
      block = own[0] // layout.block
      noisy = [layout.noisy(position) for position in own]
      if plan.anchor[row]:
        anchored[block] = True
        noisy += list(range(*layout.anchor(block).indices(layout.frames)))
      drafted[block] = plan.start[row] > 0
      alone[block] = not context
      mask[np.ix_(noisy, noisy + context)] = True
    mask[np.ix_(own, own + context)] = True
    for k, index in enumerate(own):
      slots[int(plan.write[row, k])] = index
  return PlanMask(mask, anchored, drafted, alone)
