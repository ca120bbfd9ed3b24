import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import random_params

from unitemp_jax.models.umt5 import TextConfig, TextEncoder, relative_bucket

SIZE = TextConfig(
  vocab=20, dim=16, num_heads=2, head_dim=8, ffn_dim=32, num_layers=2, length=8
)


# 32 buckets: 16 for each direction, of which 0..7 are exact and 8..15 are
# 8 + floor(8 log(d / 8) / log(16)), worked out by hand.
@pytest.mark.parametrize(
  'distance, bucket',
  [(0, 0), (1, 1), (7, 7), (8, 8), (11, 8), (12, 9), (15, 9), (17, 10)]
  + [(23, 11), (40, 12), (50, 13), (70, 14), (100, 15), (127, 15), (5000, 15)],
)
def test_relative_buckets(distance, bucket):
  def of(relative):
    return int(relative_bucket(jnp.asarray(relative), 32, 128))

  assert of(-distance) == bucket
  if distance:
    assert of(distance) == bucket + 16  # Keys behind the query.


def test_buckets_depend_on_the_largest_distance():
  assert int(relative_bucket(jnp.asarray(-40), 32, 64)) != 12


@pytest.fixture(scope='module')
def encode():
  encoder = TextEncoder(SIZE)
  ids = jnp.zeros((1, SIZE.length), jnp.int32)
  params = random_params(encoder.init, ids, ids == 0)
  return jax.jit(lambda ids, mask: encoder.apply({'params': params}, ids, mask))


@pytest.fixture
def text():
  ids = jnp.array([[3, 7, 1, 0, 0, 0, 0, 0], [3, 7, 9, 4, 1, 0, 0, 0]])
  return ids, ids > 0


def test_padding_does_not_change_the_text(encode, text):
  ids, mask = text
  rows = encode(ids, mask)
  other = encode(jnp.where(mask, ids, 13), mask)
  np.testing.assert_allclose(other, rows, atol=1e-5)
  # The control: without the mask padding is text like any other.
  assert jnp.abs(encode(jnp.where(mask, ids, 13), ids >= 0) - rows).max() > 0.1


def test_rows_after_the_end_are_zero(encode, text):
  ids, mask = text
  rows = encode(ids, mask)
  assert (rows[0, 3:] == 0).all()
  assert (rows[1, 5:] == 0).all()
  assert (jnp.abs(rows[0, :3]).max(-1) > 0.1).all()


def test_every_word_sees_the_whole_text(encode, text):
  ids, mask = text
  rows = encode(ids, mask)
  other = encode(ids.at[1, 3].set(5), mask)
  assert (jnp.abs(other - rows)[1, :5].max(-1) > 1e-4).all()
  np.testing.assert_array_equal(other[0], rows[0])


def test_order_of_words_matters(encode):
  mask = jnp.ones((2, SIZE.length), bool)
  ids = jnp.array([[2, 3, 4, 5, 6, 7, 8, 1], [2, 4, 3, 5, 6, 7, 8, 1]])
  rows = encode(ids, mask)
  assert jnp.abs(rows[0, 1] - rows[1, 2]).max() > 1e-2  # The same word.
