"""Runs any plan: one program that scans over its rows.

Temporal order is data (`unitemp_jax/README.md`, Plans). Plans of equal shape
share one compilation, whatever their order; the carry is cache, latents,
anchors and the samples' keys. What it asks of a network comes from adapters
to the transformer.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.models import cache as kv_cache
from unitemp_jax.models import rope
from unitemp_jax.models.dit import DiT, DiTConfig, TextContext
from unitemp_jax.plans import DATA_FIELDS, Plan
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.sampling.step import (
  DEFAULTS,
  Carry,
  Denoise,
  Row,
  StepOptions,
  prefer_loop_branches,
  step,
)
from unitemp_jax.shapes import Index, Latents, Schedule

_DRAWS = {  # Settings of JAX that decide what a key draws.
  'jax_threefry_partitionable': True,
  'jax_random_seed_offset': 0,
  'jax_enable_x64': False,
}


@flax.struct.dataclass
class Net:
  """Weights and the prompts' text keys and values, with prompts leading.

  `context` leaves are `[R, L, B, E, N, K]`: R prompts that rows choose from.
  """

  params: Any
  context: TextContext


def make_net(dit: DiT, params: Any, texts: jax.Array) -> Net:
  """Computes the text keys and values of prompts `[R, B, E, Dt]` once."""

  def one(text):
    return dit.apply({'params': params}, text, method='text_context')

  return Net(params, jax.lax.map(one, texts))


def cached_denoise(dit: DiT):
  """The callable that `sampling.step` wants, with an explicit cache."""

  def denoise(
    net, x, sigma, positions, prompt, cache, slot, visible, keep=True
  ):
    context = jax.tree.map(lambda leaf: leaf[prompt], net.context)
    return dit.apply(
      {'params': net.params},
      x,
      sigma,
      positions,
      context,
      cache=cache,
      slot=slot,
      visible=visible,
      keep=keep,
    )

  return denoise


def committer(tokens_per_frame: int):
  """The `commit` that `sampling.step` wants, for frames of so many tokens."""
  return functools.partial(kv_cache.commit, tokens_per_frame=tokens_per_frame)


def cache_for(
  config: DiTConfig, plan: Plan, batch: int, height: int, width: int
) -> kv_cache.KVCache:
  """An empty cache for a plan, with room for its sinks."""
  return config.new_cache(
    batch, plan.num_slots, height, width, plan.num_sinks, plan.block
  )


def placer(config: DiTConfig, height: int, width: int):
  """The `place` that `sampling.step` wants, for height x width latents."""
  rows, columns = height // config.patch, width // config.patch

  def place(cache, positions):
    angle = rope.angles(
      positions, rows, columns, config.head_dim, config.rope_theta
    )
    return kv_cache.place(cache, angle)

  return place


def bucket(size: int) -> int:
  """Returns the size that a size is padded to: 1..8, 10, 12, 14, 16, 20, 24...

  Four sizes per doubling: padding stays below a quarter.
  """
  step = 1
  while size > 8 * step:
    step *= 2
  return -(-size // step) * step


def bucketed(plan: Plan) -> Plan:
  """Returns the plan padded, so that lengths do not each need a program.

  Rows, buffer entries and the part of the cache that can be visible at once are
  padded to `bucket`. Windows of the sizes that it returns are not padded.
  """
  room = plan.block + plan.num_anchors
  return plan.pad(
    rows=bucket(plan.num_rows),
    num_latents=bucket(plan.num_latents),
    num_slots=bucket(max(plan.num_slots - room, 1)) + room,
  )


def plan_rows(plan: Plan) -> Row:
  """The plan's table as scan input: every field with a leading J."""
  fields = {name: jnp.asarray(getattr(plan, name)) for name in DATA_FIELDS}
  if not plan.num_sinks:
    fields['sinks'] = None
  return Row(index=jnp.arange(plan.count.shape[0]), **fields)


def run_plan(
  denoise: Denoise,
  commit,
  net: Any,
  plan: Plan,
  cache: Any,
  latents: Latents,
  keys: jax.Array,
  sigmas: Schedule,
  exit_level: Index | None = None,
  options: StepOptions = DEFAULTS,
  place=None,
) -> tuple[Latents, jax.Array]:
  """Generates what a plan describes.

  Args:
    denoise: the network, see `sampling.step`.
    commit: (cache, start, write) -> cache, moves staged slots.
    net: the network's pytree: weights, text keys and values.
    plan: rows and sizes; arrays may be traced.
    cache: empty, with at least `plan.num_slots` slots.
    latents: buffer `[B, plan.num_latents, h, w, C]`, given entries filled.
    keys: one key per sample, `[B]`.
    sigmas: of the passes, `[n + 1]`, decreasing, the last one 0.
    exit_level: pass whose prediction is taken, the same for all rows; the
      last one (n - 1) by default.
    options: of the model, see `sampling.step`.
    place: (cache, positions) -> cache, needed if the plan has sinks; see
      `placer`.

  Returns:
    The filled buffer, and for every row the anchors of the latest anchored row
    so far, `[J, B, P, h, w, C]`.
  """
  batch, _, *grid = latents.shape
  sigmas = jnp.asarray(sigmas)
  if exit_level is None:
    exit_level = sigmas.shape[0] - 2
  anchors = jnp.zeros((batch, plan.num_anchors, *grid), latents.dtype)
  carry = Carry(cache, latents, anchors, keys)

  def body(carry, row):
    return step(
      denoise, commit, net, carry, row, sigmas, exit_level, options, place
    )

  rows = plan_rows(plan)
  if options.skip_writes:  # Nobody would read what the last row writes.
    later = jnp.cumsum((rows.count > 0)[::-1])[::-1] > 1
    write = jnp.where(later[:, None], rows.write, -1)
    rows = dataclasses.replace(rows, write=write)
  carry, anchors = jax.lax.scan(body, carry, rows)
  return carry.latents, anchors


def sample_keys(seeds) -> jax.Array:
  """One key per sample, from the sample's own seed (uint32 `[B]`).

  UserError where a setting of JAX would make other noise of the same seed.
  """
  for name, usual in _DRAWS.items():
    if getattr(jax.config, name) != usual:
      raise UserError(
        f'with {name}={getattr(jax.config, name)} every seed makes another '
        f'video; set it to {usual}.'
      )
  if not isinstance(seeds, jax.Array):
    seeds = np.asarray(seeds, np.uint32)
  make = functools.partial(jax.random.key, impl='threefry2x32')
  return jax.vmap(make)(jnp.asarray(seeds))


def sample_plan(
  card: ModelCard, net: Net, plan: Plan, latents: jax.Array, seeds: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Generates what a plan describes; see `sampler.run_plan`.

  `latents` is the buffer `[B, plan.num_latents, h, w, C]`, given entries
  filled.
  """
  batch, _, height, width, _ = latents.shape
  return run_plan(
    # Jitted by itself, so that its passes are traced once.
    jax.jit(cached_denoise(DiT(card.dit)), static_argnames='keep'),
    committer(card.dit.tokens_per_frame(height, width)),
    net,
    plan,
    cache_for(card.dit, plan, batch, height, width),
    latents,
    sample_keys(seeds),
    flow.student_sigmas(card.timesteps, card.shift),
    options=dataclasses.replace(
      card.step_options, loop_branches=prefer_loop_branches(), skip_writes=True
    ),
    place=placer(card.dit, height, width),
  )
