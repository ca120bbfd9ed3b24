import itertools

import numpy as np
import pytest

from unitemp_jax.diffusion import flow


def gaussian_velocity(x, sigma, mean, std):
  """E[eps - x0 | x] when x0 ~ N(mean, std^2)."""
  variance = (1 - sigma) ** 2 * std**2 + sigma**2
  centred = x - (1 - sigma) * mean
  return (sigma - (1 - sigma) * std**2) / variance * centred - mean


def integrate(steps, mean=1.5, std=0.4, correct=True):
  """Error of the end point against the flow's exact one."""
  levels = flow.unipc_sigmas(steps, shift=1.0).astype(np.float64)
  table = flow.unipc_table(levels)
  first = levels[0]
  noise = np.linspace(-2.0, 2.0, 9).reshape(1, 1, 9)
  # The marginal's transport map is affine at every level.
  spread = np.hypot((1 - first) * std, first)
  x = (1 - first) * mean + spread * noise
  state = (x, 0 * x, 0 * x)
  for i, sigma in enumerate(levels[:-1]):
    v = gaussian_velocity(x, sigma, mean, std)
    x0 = flow.to_x0(x, v, np.full((1, 1), sigma))
    first = float(i == 0 or not correct)
    x, state = flow.unipc_step(table[i], first, x, x0, state)
  return float(np.abs(x - (mean + std * noise)).max())


def test_second_order_on_the_way_to_the_gaussian():
  errors = [integrate(steps) for steps in (40, 80, 160)]
  assert errors[0] < 0.005
  for coarse, fine in itertools.pairwise(errors):
    assert coarse / fine > 3


def test_without_the_corrector_it_is_worse():
  assert integrate(40, correct=False) > 2 * integrate(40)


def test_every_step_keeps_a_sample_that_is_already_data():
  """With the x0 estimates all equal, x moves on the line from noise to it."""
  levels = flow.unipc_sigmas(7, shift=3.0)
  table = flow.unipc_table(levels)
  data, noise = 0.7, -1.3
  x = (1 - levels[0]) * data + levels[0] * noise
  state = (x, data, data)
  for i, sigma in enumerate(levels[1:]):
    x, state = flow.unipc_step(table[i], float(i == 0), x, data, state)
    assert x == pytest.approx((1 - sigma) * data + sigma * noise, abs=1e-5)


@pytest.mark.parametrize('steps', [1, 2, 50])
def test_levels_start_below_one_and_end_at_zero(steps):
  levels = flow.unipc_sigmas(steps, 8.0)
  assert len(levels) == steps + 1
  assert 0.999 < levels[0] < 1
  assert levels[-1] == 0
  assert (np.diff(levels) < 0).all()
  table = flow.unipc_table(levels)
  assert np.isfinite(table).all()
  # The last step lands on the newest estimate of the data.
  np.testing.assert_allclose(table[-1, 4:], [0, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
  'steps, shift, wanted',
  [
    (37, 1.0, [27 * k for k in range(37, 0, -1)]),
    (74, 1.0, [27 * k // 2 for k in range(74, 0, -1)]),
    (4, 5.0, [999, 937, 833, 624]),
  ],
)
def test_the_network_is_told_whole_timesteps(steps, shift, wanted):
  """As in Wan: 937.4 becomes 937; 999 / 37 steps make no 26.999...8 of 27."""
  told = flow.unipc_timesteps(steps, shift)
  assert told.dtype == np.float32
  np.testing.assert_allclose(1000 * told, wanted, atol=1e-4)
  levels = flow.unipc_sigmas(steps, shift)[:-1]
  assert (levels >= told).all() and (levels - told < 0.001).all()


def test_levels_in_float32_would_be_cut_off_one_too_low():
  levels = np.float32(np.linspace(0.999, 0, 38))[:-1].astype(np.float64)
  assert (np.floor(1000 * levels) != 27 * np.arange(37, 0, -1)).any()
