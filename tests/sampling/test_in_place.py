"""What a row does, chosen by loops: the same, in place, without gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.diffusion import flow
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import CHOSEN, StepOptions

PLANS = {
  'forward': orders.forward(6, anchors=3),
  'given': orders.backward(6, anchors=3, given_last=1, given_first=1),
}
LEVELS = flow.student_sigmas()
SHAPE = (2, 1, 1, 1)


def denoise(net, x, sigma, positions, prompt, cache, slot, visible):
  """Sees all that is in the cache, and adds to it."""
  seen = cache[: cache.shape[0]].sum() * 1e-2
  velocity = net * x + seen + positions.reshape(1, -1, 1, 1, 1) * 1e-2
  return velocity, cache.at[slot].add(velocity.mean())


def commit(cache, start, write):
  return cache.at[write[0]].add(cache[start] * 0.5)


def generated(plan, net, in_place, commit=commit):
  entries = plan.num_latents
  buffer = jnp.ones((2, entries, *SHAPE[1:]))
  return sampler.run_plan(
    *(denoise, commit, net, plan, jnp.zeros(plan.num_slots), buffer),
    sampler.sample_keys([3, 4]),
    LEVELS,
    options=StepOptions(loop_branches=in_place, skip_writes=in_place),
  )


@pytest.mark.parametrize('name', PLANS)
def test_loops_choose_what_a_choice_chooses(name):
  run = jax.jit(generated, static_argnums=2)
  plan = jax.tree.map(jnp.asarray, PLANS[name])
  expected, found = (run(plan, 0.5, in_place) for in_place in (False, True))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
  )
  # Control: another network makes something else.
  assert np.abs(run(plan, 0.4, True)[0] - found[0]).max() > 1e-3
  text = run.lower(plan, 0.5, True).compile().as_text()
  assert f'/{CHOSEN}/while"' in text


def test_no_gradient_passes():
  plan = jax.tree.map(jnp.asarray, PLANS['forward'])
  slope = jax.grad(lambda net: generated(plan, net, False)[0].sum())(0.5)
  assert slope != 0
  with pytest.raises(ValueError, match='Reverse-mode'):
    jax.grad(lambda net: generated(plan, net, True)[0].sum())(0.5)


def test_what_nobody_reads_is_not_written():
  written = []

  def counted(cache, start, write):
    jax.debug.callback(lambda slots: written.append(slots.tolist()), write)
    return commit(cache, start, write)

  plan = jax.tree.map(jnp.asarray, PLANS['forward'])
  for in_place, rows in ((False, [[0, 1, 2], [3, 4, 5]]), (True, [[0, 1, 2]])):
    written.clear()
    generated(plan, 0.5, in_place, counted)
    jax.effects_barrier()
    assert written == rows
