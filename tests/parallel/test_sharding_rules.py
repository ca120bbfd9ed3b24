"""Every parameter of both full sizes meets exactly one rule, and it divides."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import wan
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  make_mesh,
  matching_rules,
  path_name,
  rank_in_layer,
  shardings_for,
)
from unitemp_jax.training.optim import make_optimizer
from unitemp_jax.training.program import TrainState

pytestmark = pytest.mark.devices(8)

ADAM = make_optimizer(learning_rate=1e-3)
TEXT = jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32)
SIZES = {'1.3B': DiTConfig(**wan.DIT_1P3B), '14B': DiTConfig(**wan.DIT_14B)}


def all_shapes(dit):
  """Wan's own sizes where the defaults are those; no memory is used."""
  return {
    'student': sizes.param_shapes(dit),
    'text': sizes.param_shapes(TextConfig()),
    'vae': sizes.param_shapes(VAEConfig()),
    'negative': {'text': TEXT},
  }


@pytest.fixture(scope='module', params=SIZES)
def shapes(request):
  return all_shapes(SIZES[request.param])


def abstract_mesh(data, fsdp, context):
  """As many devices as nobody has."""
  axes = ('data', 'fsdp', 'context')
  return jax.sharding.AbstractMesh((data, fsdp, context), axes)


def bytes_per_device(tree, shardings):
  held = jax.tree.map(
    lambda leaf, sharding: (
      np.prod(sharding.shard_shape(leaf.shape), dtype=np.int64)
      * leaf.dtype.itemsize
    ),
    tree,
    shardings,
  )
  return int(sum(jax.tree.leaves(held)))


def leaves(tree):
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    yield path_name(path), leaf


def test_every_parameter_meets_exactly_one_rule(shapes):
  used = set()
  for path, leaf in leaves(shapes):
    found = matching_rules(path, MODEL_RULES)
    expected = 1 if rank_in_layer(path, leaf) > 1 else 0
    assert len(found) == expected, (path, leaf.shape, found)
    used.update(found)
  assert used == set(range(len(MODEL_RULES))), 'a rule that nothing meets'


def test_a_renamed_parameter_is_noticed(shapes):
  renamed = {'blocks': {'mlp': shapes['student']['blocks']['ffn_up']}}
  with pytest.raises(ValueError, match='blocks/mlp/kernel'):
    shardings_for(renamed, make_mesh({'fsdp': 8}), MODEL_RULES)


def test_large_parameters_are_split_over_fsdp(shapes):
  mesh = make_mesh({'fsdp': 4, 'context': 2})
  shardings = dict(leaves(shardings_for(shapes, mesh, MODEL_RULES)))
  for path, leaf in leaves(shapes):
    here = math.prod(shardings[path].shard_shape(leaf.shape))
    whole = math.prod(leaf.shape)
    if path.startswith(('student', 'text')) and whole > 2_000_000:
      assert 8 * here == whole, (path, leaf.shape, here)


@pytest.mark.parametrize('size', SIZES)
def test_state_per_device_falls_as_one_over_their_number(size):
  """To within what is not split: vectors, a thousandth of everything."""
  params = sizes.param_shapes(SIZES[size])
  state = jax.eval_shape(
    lambda params: TrainState.create(
      jax.random.key(0), {'student': params}, {'student': ADAM}, ('student',)
    ),
    params,
  )
  state = state.replace(key=jnp.zeros(2, jnp.uint32))  # Of a key.
  whole = bytes_per_device(
    state, shardings_for(state, abstract_mesh(1, 1, 1), MODEL_RULES)
  )
  assert whole >= 16 * sizes.count(params)  # Adam and a mean, in float32.
  for mesh in ((1, 8, 1), (1, 16, 4), (1, 64, 8), (2, 64, 4)):
    parts = mesh[1] * mesh[2]
    there = abstract_mesh(*mesh)
    shardings = shardings_for(state, there, MODEL_RULES)
    held = bytes_per_device(state, shardings)
    assert whole / parts <= held <= whole / parts + 1e-3 * whole
    # Control: what is only data parallel does not get smaller.
    nothing = shardings_for(state, abstract_mesh(parts, 1, 1), MODEL_RULES)
    assert bytes_per_device(state, nothing) == whole


@pytest.mark.parametrize('size', SIZES)
def test_a_width_that_does_not_divide_is_refused(size):
  params = sizes.param_shapes(SIZES[size])
  with pytest.raises(UserError, match=r'does not divide by 28; change config'):
    shardings_for(params, abstract_mesh(1, 7, 4), MODEL_RULES)


def test_optimizer_and_mean_are_split_like_their_parameter(shapes):
  params = {'student': shapes['student']}
  state = jax.eval_shape(
    lambda key, params: TrainState.create(
      key, params, {'student': ADAM}, ema=('student',)
    ),
    jax.random.key(0),
    params,
  )
  mesh = make_mesh({'data': 2, 'fsdp': 4})
  specs = {
    path: sharding.spec
    for path, sharding in leaves(shardings_for(state, mesh, MODEL_RULES))
  }
  kernel = 'blocks/self_attn/q/kernel'
  followers = [path for path in specs if path.endswith(kernel)]
  assert len(followers) == 4  # params, mu, nu, ema
  assert {specs[path] for path in followers} == {
    jax.sharding.PartitionSpec(None, ('fsdp', 'context'))
  }
