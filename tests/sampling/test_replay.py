"""A rollout taken up again block by block has the same result and gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import CHANNELS, GRID, TOKENS, make_dit, noise
from tiny_networks import DIT as TWO_LAYERS

from unitemp_jax import orders, plans
from unitemp_jax.diffusion import flow
from unitemp_jax.sampling import replay, sampler
from unitemp_jax.sampling.step import StepOptions

DIT = dataclasses.replace(TWO_LAYERS, num_layers=1)
LEVELS = flow.student_sigmas()
BATCH = 2
PLANS = plans.align(
  orders.forward(6, anchors=3),
  orders.backward(9, anchors=3, start=2, given_last=1),
  orders.inbetween(9, anchors=3, start=2),
)
TEXT = noise(1, 1, BATCH, 5, DIT.text_dim)


@functools.cache
def pieces():
  dit, params = make_dit(DIT)
  return dit, sampler.cached_denoise(dit), params


def roll(run, params, plan, exit_level, **options):
  dit, denoise, _ = pieces()
  buffer = noise(2, BATCH, PLANS[0].num_latents, *GRID, CHANNELS)
  return run(
    denoise,
    sampler.committer(TOKENS),
    sampler.make_net(dit, params, TEXT),
    plan,
    DIT.new_cache(BATCH, plan.num_slots, *GRID),
    buffer,
    sampler.sample_keys(range(BATCH)),
    LEVELS,
    exit_level,
    StepOptions(draft_from=1, draft_sigma=0.05, **options),
  )


def made(run):
  """(params, plan, exit level) -> loss, gradient, latents, anchors."""

  @jax.jit
  def whole(params, plan, exit_level):
    def loss(params):
      latents, anchors = roll(run, params, plan, exit_level)
      # Every latent and every anchor pulls in a direction of its own.
      weights = jnp.cos(jnp.arange(latents.size)).reshape(latents.shape)
      other = jnp.sin(jnp.arange(anchors.size)).reshape(anchors.shape)
      total = (latents * weights).mean() + (anchors**2 * other).mean()
      return total, (latents, anchors)

    (value, results), grad = jax.value_and_grad(loss, has_aux=True)(params)
    return value, grad, *results

  return whole


@pytest.fixture(scope='module')
def runs():
  return made(sampler.run_plan), made(replay.run_plan)


@pytest.mark.parametrize('number', range(len(PLANS)))
def test_result_and_gradient_are_those_of_the_sampler(runs, number):
  params = pieces()[2]
  plan = PLANS[number]
  assert replay.append_only(plan)
  for exit_level in (0, len(LEVELS) - 2):
    plain, again = (run(params, plan, exit_level) for run in runs)
    for one, two in zip(plain[2:], again[2:], strict=True):
      np.testing.assert_allclose(one, two, atol=1e-5)
    for one, two in zip(
      *map(jax.tree.leaves, (plain[1], again[1])), strict=True
    ):
      np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-6)
  # Control: at another level it is another gradient.
  other = runs[1](params, plan, 0)[1]
  off = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), other, again[1])
  assert max(jax.tree.leaves(off)) > 1e-3


def test_what_is_overwritten_cannot_be_read_again():
  long = orders.long(30, anchors=3, window=9)
  assert not replay.append_only(long)
  with pytest.raises(ValueError, match='without gradient through the cache'):
    roll(replay.run_plan, pieces()[2], PLANS[0], 0, through_cache=True)


def scratch(run, plan):
  """Bytes that the gradient of a rollout needs beside what it is given."""
  params = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), pieces()[2]
  )
  loss = lambda params: (roll(run, params, plan, 0)[0] ** 2).sum()  # noqa: E731
  compiled = jax.jit(jax.grad(loss)).lower(params).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_memory_hardly_grows_with_the_number_of_blocks():
  """One copy of the cache and of activations, not one for every block."""
  few, many = (orders.forward(n, anchors=0) for n in (6, 24))
  grown, plain = (
    scratch(run, many) - scratch(run, few)
    for run in (replay.run_plan, sampler.run_plan)
  )
  assert plain > 4 * grown, (plain, grown)
