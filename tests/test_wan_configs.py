"""The published sizes, to the parameter, through shapes alone."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.cli.config_args import load_config
from unitemp_jax.convert import presets
from unitemp_jax.errors import UserError
from unitemp_jax.generate.teacher import TeacherSettings
from unitemp_jax.models import sizes, weights
from unitemp_jax.training import builders, programs

ROOT = pathlib.Path(__file__).parent.parent / 'configs'
PARAMETERS = {
  'wan_1p3b_teacher': 1_418_996_800,
  'wan_1p3b_student_init': 1_418_996_800,
  'wan_1p3b_distill': 1_418_996_800,
  'wan_14b_teacher': 14_288_491_584,
}
# 1,050,148,864 of the vocabulary, 24 layers of 192,948,224, and 4,096.
UMT5 = 5_680_910_336
VAE = 126_892_531


def load(name):
  return load_config(str(ROOT / f'{name}.py'), [])


@pytest.mark.parametrize('name', PARAMETERS)
def test_transformers_have_the_published_number_of_parameters(name):
  config = builders.dit_config(load(name).model)
  assert sizes.count(sizes.param_shapes(config)) == PARAMETERS[name]
  other = dataclasses.replace(config, layers=config.layers - 1)
  assert sizes.count(sizes.param_shapes(other)) < PARAMETERS[name]


def test_vae_and_text_encoder_too():
  model = load('wan_1p3b_teacher').model
  vae, text = builders.vae_config(model), builders.text_config(model)
  assert sizes.count(sizes.param_shapes(vae)) == VAE
  assert sizes.count(sizes.param_shapes(text)) == UMT5
  assert vae == presets.PRESETS['vae']['Wan 2.1 VAE']
  assert (
    dataclasses.replace(text, dtype='float32')
    == (presets.PRESETS['umt5']['UMT5-XXL'])
  )


@pytest.mark.parametrize('name', PARAMETERS)
def test_every_config_says_that_it_was_not_run_and_how_to_sample(name):
  assert 'Not run.' in (ROOT / f'{name}.py').read_text()
  config = load(name)
  how = config.sampling
  TeacherSettings(how.steps, how.teacher_shift, how.guidance, how.solver)
  assert how.negative_prompt.endswith('倒着走')
  # 81 frames at 480x832: 32,760 tokens in seven blocks of three latents.
  data, dit = config.data, builders.dit_config(config.model)
  latents = 1 + (data.num_frames - 1) // 4
  tokens = dit.tokens_per_frame(data.height // 8, data.width // 8)
  assert (latents, latents * tokens) == (21, 32_760)
  with pytest.raises(UserError, match='take none'):
    load_config(f'{ROOT / name}.py:test', [])


def test_distillation_is_self_forcings():
  config = load('wan_1p3b_distill')
  assert config.optimizer.learning_rate == 2e-6
  assert config.critic_optimizer.learning_rate == 4e-7
  assert (config.optimizer.b1, config.optimizer.b2) == (0.0, 0.999)
  assert config.num_steps // config.loss.critic_updates == 120


SMALL = {
  'model.dit.width': 64,
  'model.dit.ffn_width': 64,
  'model.dit.heads': 2,
  'model.dit.layers': 1,
  'model.dit.text_width': 8,
  'data.height': 32,
  'data.width': 48,
  'data.num_frames': 33,
}


def test_the_initial_students_config_is_one_that_trains(tmp_path):
  """Shrunk, its program traces a step, on embeddings and uneven frames."""
  config = load_config(
    str(ROOT / 'wan_1p3b_student_init.py'),
    [f'--config.{key}={value}' for key, value in SMALL.items()],
  )
  dit = sizes.param_shapes(builders.dit_config(config.model))
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dit)
  config.teacher = str(weights.save(tmp_path / 't.safetensors', zeros))
  program = programs.build_program(config, None)
  state = jax.eval_shape(program.init, jax.random.key(0))
  latents = jnp.zeros((1, 9, 4, 6, 16))
  batch = {
    'latents': latents,
    'last_image': latents[:, -1:],
    'anchors': jnp.zeros((1, 2, 3, 4, 6, 16)),
    'text': jnp.zeros((1, 512, 8)),
  }
  _, metrics = jax.eval_shape(program.step_fn(0), state, batch, program.frozen)
  assert metrics['loss'].shape == ()
  with pytest.raises(TypeError):  # Latents of another frame do not fit.
    other = {**batch, 'latents': jnp.zeros((1, 9, 4, 4, 16))}
    jax.eval_shape(program.step_fn(0), state, other, program.frozen)
