"""Student initialisation: any-order teacher-forced flow matching.

Every clip draws a plan, and all its blocks are denoised in one masked pass,
each with the clean context that its row would find in the cache
(`unitemp_jax/README.md`, Initialisation). Blocks that the plan anchors learn
their anchors too, unless these are dropped, so that the same weights also run
without. A block that sees nothing else keeps them: without, it would be the
opening of a video.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from unitemp_jax.diffusion import flow
from unitemp_jax.objectives.teacher_forcing import Layout, PlanMask
from unitemp_jax.shapes import AnyArray


@flax.struct.dataclass
class PlanTable:
  """Masks of several plans, stacked; one is drawn per clip."""

  mask: Bool[AnyArray, 'D F F']  # bool `[D, F, F]`
  anchored: Bool[AnyArray, 'D blocks']  # bool `[D, blocks]`
  drafted: Bool[AnyArray, 'D blocks']  # bool `[D, blocks]`
  # Bool `[D, blocks]`, which blocks see no context.
  alone: Bool[AnyArray, 'D blocks']
  logits: Float[AnyArray, ' D']  # float `[D]`, log of the sampling weights


def plan_table(masks: list[PlanMask], weights: list[float]) -> PlanTable:
  """Stacks the masks of plans with their sampling weights."""
  return PlanTable(
    mask=np.stack([m.mask for m in masks]),
    anchored=np.stack([m.anchored for m in masks]),
    drafted=np.stack([m.drafted for m in masks]),
    alone=np.stack([m.alone for m in masks]),
    logits=np.log(np.asarray(weights, np.float32)),
  )


def draw_sigmas(
  rng: jax.Array,
  batch: int,
  layout: Layout,
  shift: float,
  draft: jax.Array,
  draft_sigma: float,
) -> tuple[jax.Array, jax.Array]:
  """Noise levels of drafts and of what starts from noise, `[B, blocks]` each.

  A block that starts from a draft is never noisier than `draft_sigma`, and
  meets its own anchors at any level, as it will in sampling.
  """
  u = jax.random.uniform(rng, (batch, layout.blocks))
  anchors = flow.shift_sigma(u, shift)  # of the whole schedule
  return jnp.where(draft, jnp.minimum(anchors, draft_sigma), anchors), anchors


@flax.struct.dataclass
class Drawn:
  """What every clip of a batch drew."""

  draft: jax.Array  # bool `[B, blocks]`, which blocks start low
  # Bool `[B, F]`; anchors that are off are seen by nobody but themselves.
  seen: jax.Array
  mask: jax.Array  # bool `[B, F, F]`, who sees whom


def draw_plans(
  keys: jax.Array,
  batch: int,
  layout: Layout,
  table: PlanTable,
  anchor_drop: float,
  draft_share: float,
) -> Drawn:
  """Draws a plan for every clip, from three keys; see `loss`."""
  plan = jax.random.categorical(
    keys[0], jnp.asarray(table.logits), shape=(batch,)
  )
  use = jax.random.uniform(keys[1], (batch, 1)) >= anchor_drop
  kept = use | jnp.asarray(table.alone)[plan]
  anchored = jnp.asarray(table.anchored)[plan] & kept
  low = jax.random.uniform(keys[2], anchored.shape) < draft_share
  draft = jnp.asarray(table.drafted)[plan] & use & low
  seen = jnp.ones((batch, layout.frames), bool)
  for k in range(1, layout.blocks):
    seen = seen.at[:, layout.anchor(k)].set(anchored[:, k : k + 1])
  eye = jnp.eye(layout.frames, dtype=bool)[None]
  mask = (jnp.asarray(table.mask)[plan] & seen[:, None, :]) | eye
  return Drawn(draft, seen, mask)


def training_sequence(batch: dict[str, jax.Array]) -> jax.Array:
  """The clean frames `[B, F, h, w, C]` in the order of `Layout`."""
  latents = batch['latents']
  anchors = jnp.moveaxis(batch['anchors'], 1, 0)
  images = [latents[:, :1], batch['last_image']]
  return jnp.concatenate([latents, *images, latents, *anchors], axis=1)


def loss(
  params,
  batch: dict[str, jax.Array],
  rng: jax.Array,
  *,
  denoise,
  layout: Layout,
  table: PlanTable,
  shift: float,
  anchor_drop: float,
  draft_share: float,
  draft_sigma: float,
  draft_from: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Squared velocity error over blocks and the anchors in use.

  Args:
    params: whatever `denoise` wants.
    batch: `latents` `[B, N, h, w, C]`; `last_image` `[B, 1, h, w, C]`, the
      image latent of the last frame; `anchors` `[B, blocks - 1, P, h, w, C]`,
      of every block but the first.
    rng: key.
    denoise: (params, x, sigma `BF`, positions `F`, mask `BFF`) -> velocity.
    layout: of the training sequence.
    table: plans to draw from.
    shift: of the noise levels towards noise.
    anchor_drop: share of clips whose blocks with context have no anchors.
    draft_share: share of the drafted blocks that start low.
    draft_sigma: highest level of such a block.
    draft_from: the latent of such a block from which on it is drafted; see
      `generate.step.denoise_block`.

  Returns:
    The mean squared error and metrics; `block` and `anchor` are its parts.
  """
  keys = jax.random.split(rng, 5)
  latents = batch['latents']
  b, n = latents.shape[:2]
  drawn = draw_plans(keys[:3], b, layout, table, anchor_drop, draft_share)
  sigma_low, sigma_full = draw_sigmas(
    keys[3], b, layout, shift, drawn.draft, draft_sigma
  )

  clean = training_sequence(batch)
  drafted = jnp.arange(layout.block) >= draft_from
  sigma_block = jnp.where(
    drafted, sigma_low[..., None], sigma_full[..., None]
  ).reshape(b, n)
  sigma = jnp.concatenate(
    [
      jnp.zeros((b, n + 2)),
      sigma_block,
      jnp.repeat(sigma_full[:, 1:], layout.anchors, axis=1),
    ],
    axis=1,
  )
  noise = jax.random.normal(keys[4], clean.shape, clean.dtype)
  x = flow.interpolate(clean, noise, sigma)
  v = denoise(params, x, sigma, jnp.asarray(layout.positions()), drawn.mask)
  error = (v - flow.velocity(clean, noise)) ** 2
  return weighted(error, drawn.seen, layout)


def weighted(
  error: jax.Array, seen: jax.Array, layout: Layout
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The mean of errors `BFHWC` over blocks and the anchors in use."""
  error = error.mean(axis=(2, 3, 4))
  first, end = layout.noisy(0), layout.noisy(layout.num_latents)
  weight = seen.astype(error.dtype).at[:, :first].set(0.0)
  total = (error * weight).sum() / weight.sum()
  blocks = error[:, first:end].mean()
  anchor_weight = weight.at[:, :end].set(0.0)
  anchors = (error * anchor_weight).sum() / jnp.maximum(anchor_weight.sum(), 1)
  return total, {'loss': total, 'block': blocks, 'anchor': anchors}
