"""Where gradient flows in a rollout: the last pass of a block, no further."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.diffusion import flow
from unitemp_jax.models import cache as kv_cache
from unitemp_jax.sampling import sampler, step
from unitemp_jax.sampling.step import row_noise

LEVELS = flow.student_sigmas()
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
  # Without anchors the row that is made first is the head.
  order = orders.backward if anchors else orders.forward
  plan = order(6, anchors=anchors)
  weight = jnp.asarray(0.3)

  @jax.jit
  def made(weight):
    latents, every = run_linear(weight, plan, exit_level)
    return latents[0, :, 0, 0, 0], every[-1, 0, :, 0, 0, 0]

  grads = jax.jacfwd(made)(weight)

  # x0 = x - sigma w x, and x is held constant: d x0 / d w = -sigma x.
  sigma = LEVELS[exit_level]
  early, late = (exit_input(weight, row, exit_level) for row in (0, 1))
  if anchors:
    both = exit_input(weight, 0, exit_level, 6)
    early, late = exit_input(weight, 1, exit_level), both[3:]
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


def commit(cache, start, write, exit_cache=None, exit_start=None):
  """What is staged is there already; gradient as `models.cache.commit` does."""
  if exit_cache is None:
    return cache
  stop = jax.lax.stop_gradient
  return stop(cache) + (exit_cache - stop(exit_cache))


def exit_input(weight, row, exit_level, frames=3):
  """Input of the last pass of a row that sees nothing, `[frames]`."""
  x = row_noise(KEYS, row, 0, (frames, 1, 1, 1))
  for level in range(exit_level):
    x0 = x - LEVELS[level] * weight * x
    eps = row_noise(KEYS, row, level + 1, (frames, 1, 1, 1))
    x = flow.interpolate(x0, eps, jnp.full((1, frames), LEVELS[level + 1]))
  return x[0, :, 0, 0, 0]


def test_gradient_stops_at_the_cache(monkeypatch):
  """The second block sees the first as a constant."""
  plan = orders.forward(6, anchors=0)
  weight = jnp.asarray(0.3)

  def made(weight, plan, buffer, options=step.DEFAULTS):
    return sampler.run_plan(
      with_memory,
      commit,
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
  given.conditioning[0] = True
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

  # The option lets it through as Self-Forcing's code does. The second block
  # sees the sum of what the first one cached: w x0 of the clean pass, with the
  # derivative of the exit pass's w x, that is x.
  options = step.StepOptions(through_cache=True)
  option_value, crossing = slope(plan, zeros, options=options)
  np.testing.assert_allclose(option_value, value, rtol=1e-5)
  seen = exit_input(weight, 0, 1).sum()
  assert jnp.abs(seen) > 0.1
  np.testing.assert_allclose(crossing, whole - LEVELS[1] * seen, rtol=1e-4)
  back = jax.grad(lambda w: made(w, plan, zeros, options).sum())(weight)
  assert jnp.isfinite(back)


def test_a_written_cache_passes_gradient_to_the_exit_pass():
  """Values of the clean pass, gradient into what the exit pass staged."""
  slots, anchors = 6, 2

  def cache_of(key):
    return kv_cache.KVCache(
      *jax.random.normal(jax.random.key(key), (2, 1, 1, slots, 1, 1))
    )

  clean, write = cache_of(0), jnp.asarray([1, 2])
  plain = kv_cache.commit(clean, jnp.asarray(1), write, 1)
  weights = jnp.arange(1.0, slots + 1)

  def seen(exit_cache, staged):
    made = kv_cache.commit(clean, jnp.asarray(1), write, 1, exit_cache, staged)
    total = (made.k_LBSNK[0, 0, :, 0, 0] * weights).sum()
    return total + 0.0 * made.v_LBSNK.sum(), made

  for staged, wanted in (
    (jnp.asarray(1 + anchors), [1, 0, 0, 2 + 4, 3 + 5, 6]),
    (None, [1, 0, 0, 4, 5, 6]),  # A given row: no gradient into it.
  ):
    grads, made = jax.grad(seen, has_aux=True)(cache_of(1), staged)
    jax.tree.map(np.testing.assert_array_equal, made, plain)
    np.testing.assert_array_equal(grads.k_LBSNK[0, 0, :, 0, 0], wanted)


def test_context_gets_noise_in_training_only_if_asked():
  """The clean pass sees the block with sigma of fresh noise, and is told 0."""
  plan, seen = orders.forward(6, anchors=0), []

  def spy(net, x, sigma, *rest):
    jax.debug.callback(lambda *pair: seen.append(pair), x, sigma, ordered=True)
    return linear(net, x, sigma, *rest)

  def contexts(**options):
    seen.clear()
    made, _ = sampler.run_plan(
      spy,
      lambda cache, start, write: cache,
      jnp.asarray(0.3),
      plan,
      jnp.zeros(()),
      jnp.zeros((BATCH, plan.num_latents, 1, 1, 1)),
      KEYS,
      LEVELS,
      0,
      step.StepOptions(**options),
    )
    jax.effects_barrier()
    return made, [np.asarray(x) for x, sigma in seen if not sigma.any()]

  made, plain = contexts()
  np.testing.assert_array_equal(plain[0], made[:, :3])
  noisy, context = contexts(context_sigma=0.1)
  np.testing.assert_array_equal(noisy[:, :3], made[:, :3])
  apart = context[0] - 0.9 * plain[0]
  assert 0.01 < np.abs(apart).max() < 0.1 * 4
