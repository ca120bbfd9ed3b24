"""DMD on Gaussians, whose data estimates are known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import noise

from unitemp_jax.diffusion import flow
from unitemp_jax.objectives import dmd

SHAPE = (64, 2, 1, 2, 2)  # BFHWC
STD = 0.5


def gaussian_x0(mean, std=STD):
  """E[x0 | x] for x0 ~ N(mean, std^2)."""

  def estimate(x, sigma):
    s = flow.per_frame(sigma, x)
    gain = (1 - s) * std**2 / ((1 - s) ** 2 * std**2 + s**2)
    return mean + gain * (x - (1 - s) * mean)

  return estimate


@functools.partial(jax.jit, static_argnames='swapped')
def gradient(latents, key, teacher, critic, swapped=False):
  if swapped:
    teacher, critic = critic, teacher
  return dmd.gradient(
    latents,
    key,
    real_x0=gaussian_x0(teacher),
    fake_x0=gaussian_x0(critic),
    shift=5.0,
    sigma_range=(0.02, 0.98),
  )


def test_gradient_points_away_from_the_teacher():
  teacher, critic = 1.0, -1.0
  latents = critic + STD * noise(0, *SHAPE)
  grad = gradient(latents, jax.random.key(1), teacher, critic)
  # A descent moves samples by -gradient: from the critic's to the teacher's.
  assert (grad < 0).all()
  assert (gradient(latents, jax.random.key(1), critic, teacher) > 0).all()


def test_gradient_vanishes_when_critic_and_teacher_agree():
  latents = 3.0 + noise(0, *SHAPE)
  grad = gradient(latents, jax.random.key(1), 0.7, 0.7)
  np.testing.assert_array_equal(grad, 0)
  other = gradient(latents, jax.random.key(1), 0.7, 0.8)
  assert (jnp.abs(other) > 0).all()


def test_gradient_is_the_normalised_difference():
  latents, key = noise(0, *SHAPE), jax.random.key(4)
  seen = []

  def spy(offset):
    def estimate(x, sigma):
      seen.append((x, sigma))
      return jnp.full_like(x, offset)

    return estimate

  grad = dmd.gradient(
    latents,
    key,
    real_x0=spy(2.0),
    fake_x0=spy(5.0),
    shift=5.0,
    sigma_range=(0.3, 0.9),
  )
  distance = jnp.abs(latents - 2.0).mean((1, 2, 3, 4))
  wanted = jnp.broadcast_to((3.0 / distance).reshape(-1, 1, 1, 1, 1), SHAPE)
  np.testing.assert_allclose(grad, wanted, rtol=1e-5)
  # Both networks see the same noisy clip, at one level for all its frames.
  (x_1, sigma_1), (x_2, sigma_2) = seen
  np.testing.assert_array_equal(x_1, x_2)
  np.testing.assert_array_equal(sigma_1, sigma_2)
  np.testing.assert_array_equal(sigma_1[:, 0], sigma_1[:, 1])
  assert float(sigma_1.min()) >= 0.3
  assert float(sigma_1.max()) <= np.float32(0.9)
  assert len(np.unique(sigma_1[:, 0])) > 10


def test_no_gradient_flows_into_the_gradient():
  def total(latents, mean):
    return gradient(latents, jax.random.key(1), mean, -1.0).sum()

  grads = jax.grad(total, argnums=(0, 1))(noise(0, *SHAPE), 1.0)
  for grad in grads:
    np.testing.assert_array_equal(grad, jnp.zeros_like(grad))


def test_gradient_of_the_surrogate_is_the_given_one_over_the_size():
  latents, grad = noise(0, *SHAPE), noise(1, *SHAPE)
  found = jax.grad(dmd.surrogate)(latents, grad)
  np.testing.assert_allclose(
    found, grad / grad.size, rtol=1e-4, atol=1e-6 / grad.size
  )
  assert jnp.abs(found + grad / grad.size).max() > 1 / grad.size


@pytest.mark.parametrize('swapped', [False, True])
def test_descent_carries_a_generator_to_the_teacher(swapped):
  """A student N(m, std^2) with a perfect critic; the control swaps roles."""
  target = 1.5

  @jax.jit
  def descend(mean, key):
    keys = jax.random.split(key)

    def loss(mean):
      latents = mean + STD * jax.random.normal(keys[0], SHAPE)
      grad = gradient(latents, keys[1], target, mean, swapped=swapped)
      return dmd.surrogate(latents, jax.lax.stop_gradient(grad))

    return mean - 0.3 * jax.grad(loss)(mean)

  mean = jnp.asarray(-0.5)
  for i in range(5 if swapped else 60):
    mean = descend(mean, jax.random.key(i))
  if swapped:
    assert mean < -0.6  # It flees, faster and faster.
  else:
    assert abs(float(mean) - target) < 0.05


def test_guidance_is_the_standard_one():
  with_text, without = noise(0, *SHAPE), noise(1, *SHAPE)

  def standard(scale):
    return without + scale * (with_text - without)

  ours = dmd.guided(with_text, without, 4.0)
  np.testing.assert_allclose(ours, standard(4.0), atol=1e-5)
  assert jnp.abs(ours - standard(3.0)).max() > 0.1
  np.testing.assert_array_equal(dmd.guided(with_text, without, 1.0), with_text)


def test_given_frames_are_left_out_of_the_mean():
  """As a clip without them, times what is kept; no gradient into them."""
  latents, grad = noise(0, *SHAPE), noise(1, *SHAPE)
  mask = jnp.asarray([False, True])
  found = jax.grad(dmd.surrogate)(latents, grad, mask)
  np.testing.assert_array_equal(found[:, 0], 0)
  alone = jax.grad(dmd.surrogate)(latents[:, 1:], grad[:, 1:])
  np.testing.assert_allclose(found[:, 1:], alone, rtol=1e-5, atol=1e-9)
  whole = jax.grad(dmd.surrogate)(latents, grad)
  everything = jax.grad(dmd.surrogate)(latents, grad, jnp.ones(2, bool))
  np.testing.assert_allclose(everything, whole, rtol=1e-4, atol=1e-9)
  assert jnp.abs(found[:, 1:] - whole[:, 1:]).max() > 1e-4  # Control.
