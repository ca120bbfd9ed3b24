import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.diffusion import flow

WARPED = (1000, 937.5, 833.33, 625, 0)


def test_warped_schedule_of_shift_5():
  levels = flow.student_sigmas()
  np.testing.assert_allclose(1000 * levels, WARPED, atol=0.005)
  assert levels.dtype == np.float32


@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_another_shift_gives_another_schedule(shift):
  levels = flow.student_sigmas(shift=shift)
  assert np.abs(1000 * levels - WARPED).max() > 50


def test_levels_fall_from_noise_to_data():
  for levels in (
    flow.student_sigmas((1000, 500), 3.0),
    flow.euler_sigmas(50, 3.0),
  ):
    assert levels[0] == 1
    assert levels[-1] == 0
    assert (np.diff(levels) < 0).all()
  assert len(flow.euler_sigmas(50)) == 51


def gaussian_velocity(x, sigma, mean, std):
  """E[eps - x0 | x] when x0 ~ N(mean, std^2)."""
  variance = (1 - sigma) ** 2 * std**2 + sigma**2
  centred = x - (1 - sigma) * mean
  return (sigma - (1 - sigma) * std**2) / variance * centred - mean


def integrate(steps, shift=5.0, mean=1.5, std=0.4, sign=1.0):
  """Error of the end point against the flow's exact one, per noise."""
  noise = jnp.linspace(-2.0, 2.0, 9).reshape(1, 1, 9)
  x = noise
  levels = flow.euler_sigmas(steps, shift)
  for a, b in itertools.pairwise(levels):
    v = sign * gaussian_velocity(x, a, mean, std)
    x = flow.euler_step(x, v, jnp.full((1, 1), a), jnp.full((1, 1), b))
  return float(jnp.abs(x - (mean + std * noise)).max())


def test_euler_carries_noise_to_the_gaussian():
  # The marginal's transport map is affine: mean + std * noise.
  errors = [integrate(steps) for steps in (25, 50, 100, 200)]
  assert errors[-1] < 0.03
  for coarse, fine in itertools.pairwise(errors):
    assert 1.5 < coarse / fine < 2.6  # An Euler scheme is of first order.


def test_euler_with_the_velocity_reversed_does_not():
  assert integrate(200, sign=-1.0) > 1


def test_renoise_puts_data_at_the_next_level():
  rng = np.random.default_rng(0)
  x0, noise = rng.standard_normal((2, 2, 3, 64, 64), dtype=np.float32)
  sigma = np.float32([[0, 0.625, 1], [0.9375, 0.5, 0.25]])
  x = flow.renoise(x0, noise, sigma)
  np.testing.assert_array_equal(x[0, 0], x0[0, 0])
  np.testing.assert_array_equal(x[0, 2], noise[0, 2])
  # Noise and data of variance 1 each, independent.
  wanted = sigma**2 + (1 - sigma) ** 2
  np.testing.assert_allclose(x.var((2, 3)), wanted, rtol=0.1)
  np.testing.assert_allclose(
    flow.to_x0(x, flow.velocity(x0, noise), sigma), x0, atol=1e-5
  )
  assert np.abs(x.var((2, 3)) - wanted[:, ::-1]).max() > 0.2
