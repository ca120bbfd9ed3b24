import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import noise

from unitemp_jax.models import rope

HEIGHT, WIDTH, HEAD = 2, 3, 16


def test_head_dimensions_are_split_over_the_axes():
  assert [2 * pairs for pairs in rope.axis_pairs(128)] == [44, 42, 42]
  for head_dim in (16, 32, 64, 128):
    assert 2 * sum(rope.axis_pairs(head_dim)) == head_dim


def test_frequencies_of_an_axis_start_at_1_and_have_their_own_range():
  np.testing.assert_allclose(
    rope.frequencies(22), 10000.0 ** (-np.arange(22) / 22), rtol=1e-6
  )
  np.testing.assert_allclose(rope.frequencies(4, 100.0)[2], 0.1, rtol=1e-6)


def logits(positions_q, positions_k, seed=0):
  """Attention logits between rotated frames, `[q tokens, k tokens]`."""
  tokens = HEIGHT * WIDTH
  q = noise(seed, 1, len(positions_q) * tokens, 1, HEAD)
  k = noise(seed + 1, 1, len(positions_k) * tokens, 1, HEAD)

  def turned(x, positions):
    angle = rope.angles(jnp.asarray(positions), HEIGHT, WIDTH, HEAD)
    return rope.rotate(x, angle)[0, :, 0]

  return turned(q, positions_q) @ turned(k, positions_k).T


@pytest.mark.parametrize('by', [-7, -1, 5, 40])
def test_attention_depends_on_differences_of_position_only(by):
  q, k = np.array([0, 1]), np.array([-3, 2, 8])
  np.testing.assert_allclose(
    logits(q, k), logits(q + by, k + by), rtol=1e-4, atol=1e-4
  )
  # The control: shifting one side alone is seen.
  assert jnp.abs(logits(q, k) - logits(q + by, k)).max() > 0.1


def test_order_of_keys_does_not_matter():
  angle = rope.angles(jnp.array([4, -2]), HEIGHT, WIDTH, HEAD)
  swapped = rope.angles(jnp.array([-2, 4]), HEIGHT, WIDTH, HEAD)
  n = HEIGHT * WIDTH
  np.testing.assert_array_equal(angle[:n], swapped[n:])
  np.testing.assert_array_equal(angle[n:], swapped[:n])


def test_each_axis_turns_its_own_pairs():
  base = rope.angles(jnp.array([3]), HEIGHT, WIDTH, HEAD)
  grid = base.reshape(HEIGHT, WIDTH, HEAD // 2)
  t, h, w = rope.axis_pairs(HEAD)
  assert (t, h, w) == (4, 2, 2)
  later = rope.angles(jnp.array([4]), HEIGHT, WIDTH, HEAD)
  moved = np.asarray(later != base).any(0)
  np.testing.assert_array_equal(moved, [True] * t + [False] * (h + w))
  rows = np.asarray(grid[0] != grid[1]).any(0)
  np.testing.assert_array_equal(rows, [False] * t + [True] * h + [False] * w)
  columns = np.asarray(grid[:, 0] != grid[:, 1]).any(0)
  np.testing.assert_array_equal(columns, [False] * (t + h) + [True] * w)


def test_pairs_are_interleaved():
  # Pair i is (2 i, 2 i + 1); a quarter turn maps (1, 0) to (0, 1).
  x = jnp.zeros((1, 1, 1, 4)).at[0, 0, 0, 0].set(1.0)
  y = rope.rotate(x, jnp.array([[np.pi / 2, 0.0]]))
  np.testing.assert_allclose(y[0, 0, 0], [0, 1, 0, 0], atol=1e-6)
  z = rope.rotate(
    jnp.zeros((1, 1, 1, 4)).at[0, 0, 0, 3].set(1.0),
    jnp.array([[0.0, np.pi / 2]]),
  )
  np.testing.assert_allclose(z[0, 0, 0], [0, 0, -1, 0], atol=1e-6)


def test_rotation_keeps_lengths_and_dtype():
  x = noise(0, 2, HEIGHT * WIDTH, 2, HEAD).astype(jnp.bfloat16)
  y = rope.rotate(x, rope.angles(jnp.array([9]), HEIGHT, WIDTH, HEAD))
  assert y.dtype == jnp.bfloat16
  norm = lambda a: jnp.linalg.norm(a.astype(jnp.float32), axis=-1)  # noqa: E731
  np.testing.assert_allclose(norm(x), norm(y), rtol=0.02)


def test_angles_of_traced_positions_are_the_same():
  positions = jnp.array([-5, 0, 1000])
  np.testing.assert_allclose(
    jax.jit(lambda p: rope.angles(p, 1, 1, HEAD))(positions),
    rope.angles(positions, 1, 1, HEAD),
    atol=1e-4,
  )


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_lanes_swapped_by_a_product_are_the_same(dtype):
  x = jax.random.normal(jax.random.key(0), (2, 12, 3, 16), dtype)
  angle = rope.angles(jnp.arange(3) - 1, 2, 2, 16)
  made = rope._rotate_by_product(x, angle)
  np.testing.assert_allclose(
    *(np.float32(a) for a in (made, rope.rotate(x, angle))),
    atol=1e-6 if dtype == jnp.float32 else 0.02,
  )
