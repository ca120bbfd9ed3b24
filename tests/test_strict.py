"""What tests/conftest.py is strict about is refused."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from unitemp_jax.diffusion import flow
from unitemp_jax.models.attention import attention


def test_arrays_of_different_shapes_are_refused():
  x = jnp.ones((2, 3, 4, 4, 1))
  flow.to_x0(x, x, jnp.ones((2, 3)))  # Control.
  with pytest.raises(TypeCheckError, match='to_x0'):
    flow.to_x0(x, x[:1], jnp.ones((2, 3)))
  with pytest.raises(TypeCheckError, match='interpolate'):
    flow.interpolate(x, jnp.ones((2, 3), int), jnp.ones((2, 3)))


def test_keys_without_a_value_each_are_refused():
  q = jnp.ones((1, 3, 2, 4))
  attention(q, q, q)  # Control.
  with pytest.raises(TypeCheckError, match='v_BSNK'):
    attention(q, q, q[:, :2])


def test_silent_broadcasting_is_refused():
  x = jnp.ones((2, 3))
  assert (x + jnp.ones((1, 3))).shape == (2, 3)  # Control.
  with pytest.raises(ValueError, match='rank'):
    x + jnp.ones(3)


def test_a_trace_that_is_kept_is_found():
  kept = []
  with jax.checking_leaks(), pytest.raises(Exception, match='Leaked'):
    jax.eval_shape(lambda x: kept.append(x) or x, jnp.ones(3))


def test_there_is_one_device_where_none_are_asked_for():
  assert jax.device_count() == 1


@pytest.mark.devices(8)
def test_there_are_as_many_as_are_asked_for():
  assert jax.device_count() == 8
