"""Every parameter of our models meets exactly one rule, and it divides."""

import jax
import jax.numpy as jnp
import pytest

from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.models.vae3d import VAE, VAEConfig
from unitemp_jax.training.mesh import make_mesh, matching_rules, shardings_for
from unitemp_jax.training.optim import make_optimizer
from unitemp_jax.training.sharding_rules import MODEL_RULES
from unitemp_jax.training.state import TrainState
from unitemp_jax.training.tree_paths import path_name, rank_in_layer


def dit_shapes(config):
  dit = DiT(config)

  def run(module, x, text):
    context = module.text_context(text)
    positions = jnp.arange(x.shape[1])
    return module(x, jnp.ones(x.shape[:2]), positions, context)

  return jax.eval_shape(
    lambda key: dit.init(
      key,
      jnp.zeros((1, 1, 4, 4, config.channels)),
      jnp.zeros((1, 8, config.text_width)),
      method=run,
    ),
    jax.random.key(0),
  )['params']


def all_shapes():
  """Wan's own sizes where the defaults are those; no memory is used."""
  key = jax.random.key(0)
  text = TextEncoder(TextConfig())
  vae = VAE(VAEConfig())
  return {
    'student': dit_shapes(DiTConfig()),
    'text': jax.eval_shape(
      text.init, key, jnp.zeros((1, 8), int), jnp.ones((1, 8), bool)
    )['params'],
    'vae': jax.eval_shape(vae.init, key, jnp.zeros((1, 5, 32, 32, 3)))[
      'params'
    ],
  }


@pytest.fixture(scope='module')
def shapes():
  return all_shapes()


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
  mesh = make_mesh({'data': 1, 'fsdp': 8})
  shardings = dict(leaves(shardings_for(shapes, mesh, MODEL_RULES)))
  for path, leaf in leaves(shapes):
    here = shardings[path].shard_shape(leaf.shape)
    whole = jnp.prod(jnp.array(leaf.shape)) if leaf.shape else 1
    if not path.startswith('vae') and whole > 2_000_000:
      assert 8 * jnp.prod(jnp.array(here)) == whole, (path, leaf.shape, here)


def test_optimizer_and_mean_are_split_like_their_parameter(shapes):
  optimizer = make_optimizer(learning_rate=1e-3)
  params = {'student': shapes['student']}
  state = jax.eval_shape(
    lambda key, params: TrainState.create(
      key, params, {'student': optimizer}, ema=('student',)
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
    jax.sharding.PartitionSpec(None, 'fsdp')
  }
