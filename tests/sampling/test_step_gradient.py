"""Where gradient flows in a rollout: the last pass of a block, no further."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.diffusion import flow, solvers
from unitemp_jax.sampling import sampler, step
from unitemp_jax.sampling.step import row_noise

LEVELS = solvers.student_levels()
LAST = len(LEVELS) - 2
BATCH = 1
KEYS = sampler.sample_keys([1])


def linear(net, x, sigma, positions, prompt, cache, slot, visible):
  """v = w x, so that the last pass can be differentiated by hand."""
  return net * x, cache


def run_linear(weight, plan, exit_level, denoise=linear):
  buffer = jnp.zeros((BATCH, plan.num_latents, 1, 1, 1))
  return sampler.run_plan(
    denoise,
    lambda cache, start, write: cache,
    weight,
    plan,
    jnp.zeros(()),
    buffer,
    KEYS,
    LEVELS,
    exit_level,
  )


@pytest.mark.parametrize('anchors, exit_level', [(0, 2), (3, 0), (3, LAST)])
def test_gradient_is_that_of_the_last_pass(anchors, exit_level):
  plan = orders.backward(6, anchors=anchors)
  weight = jnp.asarray(0.3)

  @jax.jit
  def made(weight):
    latents, every = run_linear(weight, plan, exit_level)
    return latents[0, :, 0, 0, 0], every[-1, 0, :, 0, 0, 0]

  grads = jax.jacfwd(made)(weight)

  def last_input(row, frames):
    x = row_noise(KEYS, row, 0, (frames, 1, 1, 1))
    for level in range(exit_level):
      x0 = x - LEVELS[level] * weight * x
      eps = row_noise(KEYS, row, level + 1, (frames, 1, 1, 1))
      x = flow.interpolate(x0, eps, jnp.full((1, frames), LEVELS[level + 1]))
    return x[0, :, 0, 0, 0]

  # x0 = x - sigma w x, and x is held constant: d x0 / d w = -sigma x.
  sigma = LEVELS[exit_level]
  early, late = last_input(1, 3), last_input(0, 3)
  if anchors:
    both = last_input(0, 6) if plan.anchor[0] else None
    late = both[3:] if both is not None else late
  wanted = -sigma * jnp.concatenate([early, late])
  np.testing.assert_allclose(grads[0], wanted, rtol=1e-4, atol=1e-5)
  if anchors:
    np.testing.assert_allclose(
      grads[1], -sigma * both[:3], rtol=1e-4, atol=1e-5
    )
  if exit_level:  # The control: the whole chain has another derivative.
    step_size = 1e-3
    slope = (made(weight + step_size)[0] - made(weight - step_size)[0]) / (
      2 * step_size
    )
    assert jnp.abs(slope - wanted).max() > 1e-2


def test_no_gradient_flows_beside_the_last_pass():
  plan = orders.backward(6, anchors=3)

  def stopped(net, *rest):
    v, cache = linear(net, *rest)
    return jax.lax.stop_gradient(v), cache

  def size(denoise):
    def loss(weight):
      return (run_linear(weight, plan, LAST, denoise)[0] ** 2).sum()

    return float(jnp.abs(jax.grad(loss)(jnp.asarray(0.3))))

  assert size(stopped) == 0
  assert size(linear) > 0.1


def with_memory(net, x, sigma, positions, prompt, cache, slot, visible):
  """v = w x + what was cached; a pass caches w x."""
  cache = jax.lax.dynamic_update_slice_in_dim(cache, net * x, slot, axis=1)
  seen = (jnp.arange(cache.shape[1]) < slot).reshape(1, -1, 1, 1, 1)
  return net * x + (cache * seen).sum(1, keepdims=True), cache


def test_gradient_stops_at_the_cache(monkeypatch):
  """The second block sees the first as a constant."""
  plan = orders.forward(6, anchors=0)
  weight = jnp.asarray(0.3)

  def made(weight, plan, buffer, options=step.DEFAULTS):
    return sampler.run_plan(
      with_memory,
      lambda cache, start, write: cache,
      weight,
      plan,
      jnp.zeros((BATCH, plan.num_slots, 1, 1, 1)),
      buffer,
      KEYS,
      LEVELS,
      1,
      options,
    )[0]

  def slope(plan, buffer, weight=weight, options=step.DEFAULTS):
    """Second block and its derivative by the weight, in forward mode."""
    one = jnp.ones(())
    run = lambda w: made(w, plan, buffer, options)[0, 3:, 0, 0, 0]  # noqa: E731
    return jax.jit(lambda w: jax.jvp(run, (w,), (one,)))(weight)

  zeros = jnp.zeros((BATCH, 6, 1, 1, 1))
  value, whole = slope(plan, zeros)
  # The same with the first row given: its latents are constants then. Its keys
  # are w x still, so the weight must be a constant for them too.
  given = plan.pad()
  given.given[0] = True
  held_value, held = slope(given, made(weight, plan, zeros))
  np.testing.assert_allclose(held_value, value, rtol=1e-5)
  np.testing.assert_allclose(held, whole, rtol=1e-4)
  assert jnp.abs(whole).max() > 0.1

  # The control: without the stops, the past contributes.
  no_stops = {**vars(jax.lax), 'stop_gradient': lambda x: x}
  monkeypatch.setattr(step, 'lax', types.SimpleNamespace(**no_stops))
  same_value, leaking = slope(plan, zeros)
  np.testing.assert_allclose(same_value, value, rtol=1e-5)
  assert jnp.abs(leaking - whole).max() > 0.1
  monkeypatch.undo()

  # The option lets it through: by the cache, and by nothing else.
  options = step.StepOptions(through_cache=True)
  option_value, crossing = slope(plan, zeros, options=options)
  np.testing.assert_allclose(option_value, value, rtol=1e-5)
  assert jnp.abs(crossing - whole).max() > 0.1
  back = jax.grad(lambda w: made(w, plan, zeros, options).sum())(weight)
  assert jnp.isfinite(back)
