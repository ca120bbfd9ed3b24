import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.training.optim import (
  accumulate_gradients,
  decay_mask,
  ema_update,
  make_optimizer,
  make_schedule,
)


def mean_loss(params, batch, key):
  del key
  return jnp.mean(jnp.square(batch @ params)), {'mean': jnp.mean(batch)}


def sum_loss(params, batch, key):
  del key
  return jnp.sum(jnp.square(batch @ params)), {}


def grads_of(loss, steps):
  batch = jax.random.normal(jax.random.key(0), (12, 5))
  params = jnp.linspace(-1.0, 1.0, 5)
  return accumulate_gradients(loss, params, batch, jax.random.key(1), steps)


@pytest.mark.parametrize('steps', [2, 3, 12])
def test_accumulation_equals_one_big_batch(steps):
  grads, metrics = grads_of(mean_loss, steps)
  whole, expected = grads_of(mean_loss, 1)
  np.testing.assert_allclose(grads, whole, rtol=1e-5, atol=1e-6)
  assert set(metrics) == {'loss', 'mean'}
  for name in expected:
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_accumulation_of_a_sum_differs():
  """Control: the equality is of mean losses, and the comparison can fail."""
  with pytest.raises(AssertionError):
    np.testing.assert_allclose(
      grads_of(sum_loss, 3)[0], grads_of(sum_loss, 1)[0], rtol=1e-5
    )


def test_micro_batches_draw_different_numbers():
  def loss(params, batch, key):
    draw = jax.random.normal(key)
    return draw * params + jnp.mean(batch), {'square': jnp.square(draw)}

  batch, key = jnp.zeros((4, 1)), jax.random.key(0)
  grads, metrics = accumulate_gradients(loss, jnp.ones(()), batch, key, 2)
  # Equal draws would have mean square = squared mean.
  assert abs(metrics['square'] - jnp.square(grads)) > 1e-3


def test_indivisible_batch_is_bad_input():
  with pytest.raises(UserError, match=r'batch of 12 .* accumulate = 5'):
    grads_of(mean_loss, 5)


def test_schedules():
  flat = make_schedule(learning_rate=1.0, warmup_steps=4)
  np.testing.assert_allclose(
    [flat(i) for i in (0, 1, 3, 4, 99)], [0.25, 0.5, 1, 1, 1], rtol=1e-6
  )
  cosine = make_schedule(
    learning_rate=1.0,
    schedule='cosine',
    warmup_steps=10,
    decay_steps=110,
    final_fraction=0.1,
  )
  np.testing.assert_allclose(
    [cosine(i) for i in (10, 60, 110, 500)], [1, 0.55, 0.1, 0.1], rtol=1e-5
  )


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'schedule': 'linear'}, 'constant'),
    ({'schedule': 'cosine', 'warmup_steps': 5, 'decay_steps': 5}, 'decay_st'),
  ],
)
def test_bad_schedules_are_bad_input(arguments, message):
  with pytest.raises(UserError, match=message):
    make_schedule(learning_rate=1.0, **arguments)


PARAMS = {
  'blocks': {'q': {'kernel': jnp.ones((3, 4, 4)), 'bias': jnp.ones((3, 4))}},
  'head': {'kernel': jnp.ones((4, 2)), 'bias': jnp.ones((2,))},
}


def test_only_matrices_decay_and_a_stack_of_biases_is_no_matrix():
  mask = decay_mask(PARAMS)
  assert mask['blocks']['q'] == {'kernel': True, 'bias': False}
  assert mask['head'] == {'kernel': True, 'bias': False}
  optimizer = make_optimizer(learning_rate=0.1, weight_decay=0.5)
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
  np.testing.assert_allclose(updates['head']['kernel'], -0.05, rtol=1e-6)
  assert not np.any(updates['blocks']['q']['bias'])


def test_clip_bounds_the_global_norm():
  params = {'w': jnp.zeros((2, 2))}
  huge = {'w': jnp.full((2, 2), 1e6)}

  def first_moment(clip_norm):
    optimizer = make_optimizer(learning_rate=0.1, clip_norm=clip_norm, b1=0.0)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    moments = [
      leaf
      for leaf in jax.tree.leaves(state)
      if leaf.shape == (2, 2) and leaf.max() > 0
    ]
    return float(jnp.linalg.norm(moments[0]))

  np.testing.assert_allclose(first_moment(2.0), 2.0, rtol=1e-5)
  assert first_moment(0.0) > 1e6  # Control: without it nothing is bounded.


def test_ema_is_the_weighted_mean():
  ema = ema_update({'w': jnp.zeros(2)}, {'w': jnp.ones(2)}, 0.9)
  np.testing.assert_allclose(ema['w'], 0.1, rtol=1e-6)
