"""Runs any plan: one program that scans over its rows.

Temporal order is data (`unitemp_jax/README.md`, Plans). Plans of equal shape
share one compilation, whatever their order; the carry is cache, latents,
anchors and the samples' keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.plans import DATA_FIELDS, Plan
from unitemp_jax.sampling.step import (
  DEFAULTS,
  Carry,
  Denoise,
  Row,
  StepOptions,
  step,
)
from unitemp_jax.shapes import Index, Latents, Schedule


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
      `sampling.network.placer`.

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

  carry, anchors = jax.lax.scan(body, carry, plan_rows(plan))
  return carry.latents, anchors


def sample_keys(seeds) -> jax.Array:
  """One key per sample, from the sample's own seed (ints `[B]`)."""
  seeds = np.asarray(seeds, np.uint32)
  return jax.vmap(jax.random.key)(jnp.asarray(seeds))
