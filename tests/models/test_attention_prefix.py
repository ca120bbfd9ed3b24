"""The kernel that reads the cache, interpreted, against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.models.attention import (
  attention,
  attention_backend,
  prefix,
  xla,
)
from unitemp_jax.models.attention.tiles import Tiles

LAYERS, KEYS, HEADS = 3, 400, 2
TILES = Tiles(prefix_q=48, prefix_kv=256, prefix_kv_compute=128)


def inputs(queries=80, batch=2):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = [(batch, queries, HEADS, 128)]
  shapes += 2 * [(LAYERS, batch, KEYS, HEADS, 128)]
  return [
    jax.random.normal(key, shape, jnp.bfloat16)
    for key, shape in zip(keys, shapes, strict=True)
  ]


def largest(a, b):
  return float(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max())


@pytest.mark.parametrize('length', [1, 127, 128, 300, 400])
def test_it_reads_the_prefix_of_one_layer(length):
  q, k, v = inputs()
  # Nothing beyond the prefix is read, and no other layer.
  bad = np.ones((LAYERS, 1, KEYS, 1, 1), bool)
  bad[1, :, :length] = False
  k, v = (jnp.where(bad, jnp.nan, x).astype(x.dtype) for x in (k, v))
  y = prefix.attention(q, k, v, jnp.int32(1), length, TILES, interpret=True)
  own = (x[1][:, :length].astype(jnp.float32) for x in (k, v))
  right = xla.attention(q.astype(jnp.float32), *own)
  assert largest(y, right) < 0.02
  if length > 1:  # Control: another length is another result.
    y = prefix.attention(q, k, v, 1, length - 1, TILES, interpret=True)
    assert largest(y, right) > 0.02


def test_a_differentiated_pass_takes_the_slices():
  q, k, v = inputs(queries=272)
  layer, length = jnp.int32(2), jnp.int32(300)

  def run(q, k, v, whole):
    y = attention(q, k[2], v[2], length, whole=(k, v, layer) if whole else None)
    return (y.astype(jnp.float32) ** 2).sum()

  with attention_backend('splash'):
    slope = jax.grad(lambda *a: run(*a, True), (0, 1, 2))(q, k, v)
  right = jax.grad(lambda *a: run(*a, False), (0, 1, 2))(q, k, v)
  for a, b in zip(slope, right, strict=True):
    assert largest(a, b) < 0.05 * float(jnp.abs(b).max()) > 0
