"""A finished model's sampler as one program, whatever holds the weights."""

import dataclasses

import jax

from unitemp_jax.diffusion import solvers
from unitemp_jax.models.dit import DiT
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import network, sampler
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.sampling.step import prefer_loop_branches


def sample(
  card: ModelCard,
  net: network.Net,
  plan: Plan,
  latents: jax.Array,
  seeds: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Generates what a plan describes; see `sampler.run_plan`.

  Args:
    card: sizes and noise levels of the model.
    net: weights and text keys and values of the prompts that rows choose from.
    plan: arrays may be traced.
    latents: buffer `[B, plan.num_latents, h, w, C]`, given entries filled.
    seeds: one per sample, `[B]`.
  """
  batch, _, height, width, _ = latents.shape
  return sampler.run_plan(
    network.cached_denoise(DiT(card.dit)),
    network.committer(card.dit.tokens_per_frame(height, width)),
    net,
    plan,
    network.cache_for(card.dit, plan, batch, height, width),
    latents,
    jax.vmap(jax.random.key)(seeds),
    solvers.student_levels(card.timesteps, card.shift),
    options=dataclasses.replace(
      card.step_options, loop_branches=prefer_loop_branches()
    ),
    place=network.placer(card.dit, height, width),
  )
