"""Training reads text or embeddings, and both are the same batch."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import random_params

from unitemp_jax.data import latents, prompt_embeddings
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, umt5, weights
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.training.build import build_loader, build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders, networks

CONFIG = pathlib.Path(__file__).parents[2] / 'configs/tiny_student_init.py'
IDS = np.array([[5, 6, 1, *[0] * 17], [7, 1, *[0] * 18]], np.int32)
MASK = IDS > 0


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two clips with their captions' embeddings, and a transformer's weights."""
  folder = tmp_path_factory.mktemp('embedded')
  rng = np.random.default_rng(0)
  config = load_config(f'{CONFIG}:test', [])
  z = rng.standard_normal((2, 9, 2, 2, config.model.vae.z_dim), np.float32)
  latents.write_shard(
    latents.shard_path(folder, 0),
    [
      {'latents': z[i], 'last_image': z[i, -1:], 'ids': IDS[i], 'mask': MASK[i]}
      for i in range(2)
    ],
  )
  latents.write_index(folder, 1, {})
  encoder = TextEncoder(builders.text_config(config.model))
  params = random_params(encoder.init, jnp.asarray(IDS), jnp.asarray(MASK))
  text = np.asarray(encoder.apply({'params': params}, IDS, MASK))
  about = {'text': '', 'dtype': 'float32', 'shards': 1}
  about |= {'length': text.shape[1], 'width': text.shape[2]}
  keys = [prompt_embeddings.key_of(*r) for r in zip(IDS, MASK, strict=True)]
  prompt_embeddings.write_index(folder, about, keys)
  prompt_embeddings.write_shard(
    prompt_embeddings.shard_path(folder, 0),
    [text[i, MASK[i]] for i in range(2)],
  )
  dit = sizes.param_shapes(builders.dit_config(config.model))
  ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), dit)
  weights.save(folder / 'dit.safetensors', ones)
  return folder, encoder, params


def batch_of(source):
  rows = [source[i] for i in range(2)]
  stacked = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
  orders = load_config(f'{CONFIG}:test', []).orders
  orders.anchor_kind = 'raw'
  return builders.latent_batch(stacked, orders)


def test_both_kinds_of_batch_hold_the_same_text(folder):
  path, encoder, params = folder
  plain = batch_of(latents.LatentSource(path))
  embedded = batch_of(latents.LatentSource(path, path))
  assert set(plain) == {'latents', 'last_image', 'anchors', 'ids', 'mask'}
  assert set(embedded) == {'latents', 'last_image', 'anchors', 'text'}
  np.testing.assert_array_equal(plain['latents'], embedded['latents'])
  one = umt5.batch_text(encoder, params, plain)
  two = umt5.batch_text(encoder, {}, embedded)
  np.testing.assert_allclose(one, two, atol=1e-6)
  assert np.abs(one[0] - two[1]).max() > 0.1


def test_a_student_is_trained_without_a_text_encoder(folder):
  path, *_ = folder
  config = load_config(
    f'{CONFIG}:test',
    [
      f'--config.latents.dir={path}',
      f'--config.teacher={path / "dit.safetensors"}',
    ],
  )
  with config.unlocked():
    config.latents.embeddings = str(path)
  program = build_program(config)
  assert jax.tree.leaves(program.frozen['text']) == []
  assert program.sample is None
  initial, frozen = weights.shapes_of(
    (program.initial, program.frozen), None, ()
  )
  state = jax.eval_shape(program.init, jax.random.key(0), initial)
  batch = batch_of(latents.LatentSource(path, path))
  run, _ = program.steps['step']
  shapes, metrics = jax.eval_shape(run, state, batch, frozen)
  assert metrics['loss'].shape == ()
  assert jax.tree.structure(shapes) == jax.tree.structure(state)


def test_captions_without_embeddings_are_refused(folder, tmp_path):
  path, *_ = folder
  about = {'text': '', 'dtype': 'float32', 'shards': 1}
  about |= {'length': 20, 'width': 16}
  prompt_embeddings.write_index(tmp_path, about, ['other'])
  prompt_embeddings.write_shard(
    prompt_embeddings.shard_path(tmp_path, 0), [np.ones((2, 16), np.float32)]
  )
  with pytest.raises(UserError, match='is not among the 1'):
    latents.LatentSource(path, tmp_path)[0]


def test_distillation_without_given_frames_needs_prompts_only(folder, tmp_path):
  path, *_ = folder
  distill = CONFIG.with_name('tiny_distill.py')
  config = load_config(f'{distill}:test', [f'--config.latents.dir={tmp_path}'])
  with config.unlocked():
    config.latents.embeddings = str(path)
    z = config.model.vae.z_dim
    config.model.vae.latent_mean = (0.0,) * z
    config.model.vae.latent_std = (1.0,) * z
  assert builders.needs_clips(config)  # Control: it is given frames.
  with pytest.raises(UserError, match='no finished latents'):
    build_loader(config, [0])
  assert 'latents' in build_program(config).batch_spec
  with config.unlocked():
    config.orders.weights = {'forward': 1.0, 'backward': 1.0}
  batch = next(build_loader(config, [0]))
  program = build_program(config)
  assert set(batch) == set(program.batch_spec) == {'text'}
  initial, frozen = weights.shapes_of(
    (program.initial, program.frozen), None, ()
  )
  state = jax.eval_shape(program.init, jax.random.key(0), initial)
  run, _ = program.steps['student_and_critic']
  shapes, metrics = jax.eval_shape(run, state, program.batch_spec, frozen)
  assert metrics['dmd'].shape == ()
  assert jax.tree.structure(shapes) == jax.tree.structure(state)
  assert networks.model_card(config, {}).vae.latent_std == (1.0,) * z


def test_clips_of_another_stage_serve_as_well(folder, tmp_path):
  path, *_ = folder
  config = load_config('configs/wan_1p3b_distill.py', [])
  with config.unlocked():
    config.latents.dir, config.latents.also = str(tmp_path), (str(path),)
  assert builders.latents_dir(config) == str(path)
  config.latents.also = ()
  assert builders.latents_dir(config) == str(tmp_path)  # Named if missing.


def test_captions_are_looked_for_before_training(folder, tmp_path):
  path, *_ = folder
  captions = path / latents.CAPTIONS
  captions.write_text('a red seven falls\n')
  config = load_config(f'{CONFIG}:test', [f'--config.latents.dir={path}'])
  with config.unlocked():
    config.latents.embeddings = str(path)
  with pytest.raises(UserError, match='the first is "a red seven falls"'):
    build_loader(config, [0])
  captions.unlink()
  build_loader(config, [0])
