"""Rematerialised rollout: a backward pass in the memory of one block.

The gradient of a rollout is that of the last pass of every block, and it stops
at the cache (`sampling.step`). So the rollout itself runs without any gradient,
as in sampling, and keeps of every block what its last pass took in and put out,
a few latents. The backward pass takes those passes up again, one by one. Keys
and values are read from the cache as it is at the end: where nothing is ever
overwritten, every block finds there, in front, what it saw (`append_only`).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from unitemp_jax.plans import Plan
from unitemp_jax.sampling import step as steps
from unitemp_jax.sampling.sampler import plan_rows
from unitemp_jax.sampling.step import Carry, Denoise, Row, StepOptions, Trace
from unitemp_jax.shapes import Index, Latents, Schedule


def append_only(plan: Plan) -> bool:
  """Whether no row writes to a slot that an earlier row has seen."""
  seen = 0
  for row in range(plan.num_rows):
    slots = np.asarray(plan.write[row])
    if (slots[slots >= 0] < seen).any():
      return False
    if plan.count[row]:
      seen = max(seen, int(plan.visible[row]))
  return plan.num_sinks == 0


def run_plan(
  denoise: Denoise,
  commit,
  net: Any,
  plan: Plan,
  cache: Any,
  latents: Latents,
  keys: jax.Array,
  sigmas: Schedule,
  exit_level: Index,
  options: StepOptions,
) -> tuple[jax.Array, jax.Array]:
  """As `sampler.run_plan`, with the same gradient in the memory of one block.

  `denoise` must also take `keep=False`, and then only read the cache; the plan
  must be `append_only`, and the options not let gradient cross blocks
  (ValueError).
  """
  if options.through_cache:
    raise ValueError('a rollout is replayed without gradient through the cache')
  batch, _, *grid = latents.shape
  levels = jnp.asarray(sigmas)
  frames = plan.num_anchors + plan.block
  blank = jnp.zeros((batch, frames, *grid), latents.dtype)
  anchors = blank[:, : plan.num_anchors]
  carry = Carry(cache, latents, anchors, keys, Trace(blank, blank))
  rows = plan_rows(plan)
  fixed = lax.stop_gradient(net)
  once = dataclasses.replace(
    options, loop_branches=steps.prefer_loop_branches()
  )

  def body(carry, row):
    carry, _ = steps.step(
      denoise, commit, fixed, carry, row, levels, exit_level, once
    )
    return carry, carry.trace

  carry, traces = lax.scan(body, carry, rows)
  traces, cache = lax.stop_gradient((traces, carry.cache))
  again = _replayed(functools.partial(denoise, keep=False), sigmas, options)
  clean = again(net, traces, cache, rows, jnp.asarray(exit_level))
  return _compose(latents, anchors, rows, clean)


def _replayed(denoise: Denoise, sigmas: Schedule, options: StepOptions):
  """Predictions that are known, with the gradient of the passes behind them."""

  def add_row(grads, inputs, *, net, cache, exit_level):
    row, noisy, cotangent = inputs
    block = row.target.shape[0]
    most = noisy.shape[1] - block

    def plain(grads):
      return grads

    def replay(anchors):
      def one(net):
        # Not of the trace that called: a closure would carry it out of there.
        levels = jnp.asarray(sigmas)
        table = steps.sigma_table(levels, row.start, anchors, block, options)
        x = noisy[:, most - anchors :]
        return steps.exit_pass(denoise, net, x, cache, row, table[exit_level])[
          0
        ]

      def add(grads):
        _, pull = jax.vjp(one, net)
        (own,) = pull(cotangent[:, most - anchors :])
        return jax.tree.map(jnp.add, grads, own)

      return add

    branches = [plain, plain, replay(0), *([replay(most)] if most else [])]
    return lax.switch(steps.kind_of(row, most), branches, grads), None

  @jax.custom_vjp
  def again(net, traces, cache, rows, exit_level):
    return traces.clean

  def forward(net, traces, cache, rows, exit_level):
    return traces.clean, (net, traces.noisy, cache, rows, exit_level)

  def backward(kept, cotangents):
    net, noisy, cache, rows, exit_level = kept
    body = functools.partial(
      add_row, net=net, cache=cache, exit_level=exit_level
    )
    zeros = jax.tree.map(jnp.zeros_like, net)
    # The last block first, as a scan's own backward pass would.
    grads, _ = lax.scan(body, zeros, (rows, noisy, cotangents), reverse=True)
    return grads, None, None, None, None

  again.defvjp(forward, backward)
  return again


def _compose(
  latents: jax.Array, anchors: jax.Array, rows: Row, clean: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Puts predictions in their places, and lists the latest anchors."""
  num_anchors = anchors.shape[1]

  def body(carry, inputs):
    latents, anchors = carry
    row, x0 = inputs
    kind = steps.kind_of(row, num_anchors)
    made = (kind >= steps.PLAIN) & (row.latent >= 0)
    entry = jnp.where(made, row.latent, latents.shape[1])
    latents = latents.at[:, entry].set(x0[:, num_anchors:], mode='drop')
    anchored = kind == steps.ANCHORED
    anchors = jnp.where(anchored, x0[:, :num_anchors], anchors)
    return (latents, anchors), anchors

  (latents, _), every = lax.scan(body, (latents, anchors), (rows, clean))
  return latents, every
