import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.diffusion import flow

SHAPE = (2, 3, 2, 2, 1)  # BFHWC
VALUES = st.floats(-8, 8, width=32)
LATENTS = hnp.arrays(np.float32, SHAPE, elements=VALUES)
# Conversions to the velocity divide by sigma.
LEVELS = hnp.arrays(
  np.float32, SHAPE[:2], elements=st.floats(0.0625, 1, width=32)
)


def close(a, b):
  return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(x0=LATENTS, eps=LATENTS, sigma=LEVELS)
def test_conversions_round_trip(x0, eps, sigma):
  x = flow.interpolate(x0, eps, sigma)
  v = flow.velocity(x0, eps)
  close(flow.to_x0(x, v, sigma), x0)
  close(flow.to_eps(x, v, sigma), eps)
  close(flow.to_velocity(x, x0, sigma), v)
  back = flow.interpolate(
    flow.to_x0(x, v, sigma), flow.to_eps(x, v, sigma), sigma
  )
  close(back, x)


def test_a_wrong_sign_or_level_does_not_round_trip():
  rng = np.random.default_rng(0)
  x0, eps = rng.standard_normal((2, *SHAPE), dtype=np.float32)
  sigma = np.full(SHAPE[:2], 0.5, np.float32)
  x, v = flow.interpolate(x0, eps, sigma), flow.velocity(x0, eps)
  for bad in (
    flow.to_x0(x, -v, sigma),
    flow.to_x0(x, v, 0.9 * sigma),
    flow.to_x0(x, v, 1 - sigma) + v,
  ):
    with pytest.raises(AssertionError):
      close(bad, x0)


def test_ends_of_the_flow_are_data_and_noise():
  rng = np.random.default_rng(1)
  x0, eps = rng.standard_normal((2, *SHAPE), dtype=np.float32)
  zero, one = np.zeros(SHAPE[:2]), np.ones(SHAPE[:2])
  np.testing.assert_array_equal(flow.interpolate(x0, eps, zero), x0)
  np.testing.assert_array_equal(flow.interpolate(x0, eps, one), eps)


def test_every_frame_has_its_own_level():
  x0, eps = jnp.zeros(SHAPE), jnp.ones(SHAPE)
  sigma = jnp.arange(6.0).reshape(2, 3) / 6
  x = flow.interpolate(x0, eps, sigma)
  np.testing.assert_allclose(x[:, :, 0, 0, 0], sigma)
  np.testing.assert_allclose(x.min((2, 3, 4)), x.max((2, 3, 4)))


@hypothesis.given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 20))
def test_shift_keeps_ends_and_order_and_moves_towards_noise(a, b, shift):
  assert flow.shift_sigma(0.0, shift) == 0
  assert flow.shift_sigma(1.0, shift) == pytest.approx(1)
  low, high = sorted((a, b))
  assert flow.shift_sigma(low, shift) <= flow.shift_sigma(high, shift) + 1e-12
  assert flow.shift_sigma(a, shift) >= a - 1e-12
  assert flow.shift_sigma(a, 1.0) == pytest.approx(a)


def test_the_network_is_told_thousandths_in_float32():
  t = flow.timestep(jnp.asarray([[0.0, 0.5, 1.0]], jnp.bfloat16))
  assert t.dtype == jnp.float32
  np.testing.assert_array_equal(t, [[0, 500, 1000]])
