"""Student initialisation: regression on the teacher's ODE trajectories.

As `student_init`, but what is noisy was not made by adding noise: it is the
teacher's own state on its way from noise to the clip, at the sigmas that the
student will meet, and the target is the clip (CausVid, arXiv 2412.07772;
Self-Forcing, arXiv 2506.08009). Any order, by the same masks.
"""

import jax
import jax.numpy as jnp

from unitemp_jax.diffusion import flow
from unitemp_jax.objectives import student_init
from unitemp_jax.objectives.student_init import PlanTable
from unitemp_jax.objectives.teacher_forcing import Layout
from unitemp_jax.shapes import Schedule


def at_sigmas(trajectory: jax.Array, index: jax.Array) -> jax.Array:
  """Latents `[B, N, ...]` of `[B, sigmas, N, ...]`, by index `[B, N]`."""
  index = index.reshape(index.shape[0], 1, index.shape[1], 1, 1, 1)
  return jnp.take_along_axis(trajectory, index, axis=1)[:, 0]


def loss(
  params,
  batch: dict[str, jax.Array],
  rng: jax.Array,
  *,
  denoise,
  layout: Layout,
  table: PlanTable,
  sigmas: Schedule,
  start: int,
  anchor_drop: float,
  draft_share: float,
  draft_from: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Squared error of the data estimate over blocks and the anchors in use.

  Arguments as for `student_init.loss`, but `batch` has `trajectory` `[B,
  sigmas, N, h, w, C]` too, the teacher's states that end in `latents`; `sigmas`
  are the student's, the last one 0, and `start` is the index of the one at
  which a block starts from carried anchors. With `draft_from` 1 anchors are of
  the windowed kind, which no trajectory passes: noise is added to them.

  Every block draws one of the student's sigmas, at which its anchors are too.
  """
  keys = jax.random.split(rng, 5)
  latents, trajectory = batch['latents'], batch['trajectory']
  b, n = latents.shape[:2]
  drawn = student_init.draw_plans(
    keys[:3], b, layout, table, anchor_drop, draft_share
  )
  sigmas = jnp.asarray(sigmas)
  index = jax.random.randint(keys[3], drawn.draft.shape, 0, len(sigmas) - 1)
  low = jnp.where(drawn.draft, jnp.maximum(index, start), index)
  drafted = jnp.arange(layout.block) >= draft_from
  of_block = jnp.where(drafted, low[..., None], index[..., None]).reshape(b, n)
  of_anchor = jnp.repeat(index[:, 1:], layout.anchors, axis=1)
  sigma = jnp.concatenate(
    [jnp.zeros((b, n + 2)), sigmas[of_block], sigmas[of_anchor]], axis=1
  )
  clean = student_init.training_sequence(batch)
  noise = jax.random.normal(keys[4], clean.shape, clean.dtype)
  x = flow.interpolate(clean, noise, sigma)
  x = x.at[:, n + 2 : 2 * n + 2].set(at_sigmas(trajectory, of_block))
  if not draft_from and layout.blocks > 1:
    places = layout.positions()[layout.noisy(n) :]
    states = at_sigmas(trajectory[:, :, places], of_anchor)
    x = x.at[:, layout.noisy(n) :].set(states)
  v = denoise(params, x, sigma, jnp.asarray(layout.positions()), drawn.mask)
  error = (flow.to_x0(x, v, sigma) - clean) ** 2
  return student_init.weighted(error, drawn.seen, layout)
