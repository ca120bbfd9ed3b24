"""The published sizes, to the parameter, through shapes alone."""

import contextlib
import dataclasses
import pathlib

import jax
import pytest
from flax.errors import ScopeParamShapeError

from unitemp_jax.aot import serving
from unitemp_jax.convert import fit, folder
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel.mesh import MODEL_RULES, make_mesh
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.teacher import TeacherSettings
from unitemp_jax.training.build import build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.program import abstract_state
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs import networks as program_networks

pytestmark = pytest.mark.devices(8)

ROOT = pathlib.Path(__file__).parents[2] / 'configs'
PARAMETERS = {
  'wan_1p3b_teacher': 1_418_996_800,
  'wan_1p3b_student_init': 1_418_996_800,
  'wan_1p3b_ode_init': 1_418_996_800,
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
  other = dataclasses.replace(config, num_layers=config.num_layers - 1)
  assert sizes.count(sizes.param_shapes(other)) < PARAMETERS[name]


def test_vae_and_text_encoder_too():
  model = load('wan_1p3b_teacher').model
  vae, text = builders.vae_config(model), builders.text_config(model)
  assert sizes.count(sizes.param_shapes(vae)) == VAE
  assert sizes.count(sizes.param_shapes(text)) == UMT5
  # The same weights, computed in pieces that one chip has room for.
  assert vae.large_frames and vae.decode_dtype == 'bfloat16'
  whole = dataclasses.replace(vae, large_frames=False, decode_dtype='float32')
  assert whole == fit.PRESETS['vae']['Wan 2.1 VAE']
  assert (
    dataclasses.replace(text, dtype='float32')
    == (fit.PRESETS['umt5']['UMT5-XXL'])
  )


@pytest.mark.parametrize('name', PARAMETERS)
def test_every_config_says_that_it_was_not_run_and_how_to_sample(name):
  assert 'Not run.' in (ROOT / f'{name}.py').read_text()
  config = load(name)
  how = config.sampling
  TeacherSettings(how.steps, how.teacher_shift, how.guidance_scale, how.solver)
  assert how.negative_prompt.endswith('倒着走')
  # 81 frames at 480x832: 32,760 tokens in seven blocks of three latents.
  data, dit = config.data, builders.dit_config(config.model)
  latents = 1 + (data.num_frames - 1) // 4
  tokens = dit.tokens_per_frame(data.height // 8, data.width // 8)
  assert (latents, latents * tokens) == (21, 32_760)
  with pytest.raises(UserError, match=r'take none|use "14b"'):
    load_config(f'{ROOT / name}.py:test', [])


def test_distillation_is_self_forcings():
  config = load('wan_1p3b_distill')
  assert config.optimizer.learning_rate == 2e-6
  assert config.critic_optimizer.learning_rate == 4e-7
  assert (config.optimizer.b1, config.optimizer.b2) == (0.0, 0.999)
  assert config.num_steps // config.loss.critic_updates == 120


def test_the_teacher_of_a_distillation_may_be_larger():
  config = load_config(f'{ROOT}/wan_1p3b_distill.py:14b', [])
  teacher = program_networks.lazy_teacher(config, frozen=True)['dit']
  assert sizes.count(teacher.shapes) == PARAMETERS['wan_14b_teacher']
  # In bfloat16, but for vectors, tables and what is computed in float32.
  held = sum(
    leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(teacher.shapes)
  )
  assert 2.0 < held / PARAMETERS['wan_14b_teacher'] < 2.1
  networks = program_networks.initial_networks(config)
  for name in ('student', 'critic'):
    assert sizes.count(networks[name].shapes) == PARAMETERS['wan_1p3b_distill']
  assert networks['critic'].path != teacher.path
  config.critic_init = ''
  with pytest.raises(UserError, match='critic_init is missing'):
    program_networks.initial_networks(config)


SMALL = {
  'model.dit.dim': 64,
  'model.dit.ffn_dim': 64,
  'model.dit.num_heads': 2,
  'model.dit.num_layers': 1,
  'model.dit.text_dim': 8,
  'data.height': 32,
  'data.width': 48,
  'data.num_frames': 21,
}


# One device takes what a pod would.
MESH = {'data': 1, 'fsdp': 1}


def shrunk(name, argument=''):
  config = load_config(
    f'{ROOT / name}.py{argument}',
    [f'--config.{key}={value}' for key, value in SMALL.items()],
  )
  config.batch_size, config.accumulate = 2, 1
  with config.unlocked():
    config.model.vae.update({'base_dim': 8, 'num_res_blocks': 1})
  if 'teacher_model' in config:
    small = {**config.model.dit.to_dict(), 'dim': 128}
    config.teacher_model.dit.update(small)
  return config


STAGES = [
  'wan_1p3b_teacher',
  'wan_14b_teacher',
  'wan_1p3b_student_init',
  'wan_1p3b_ode_init',
  'wan_1p3b_distill',
  'wan_1p3b_distill:14b',
]


def stage(name):
  """(program, state, frozen weights) of a shrunk stage, as shapes."""
  stem, _, argument = name.partition(':')
  config = shrunk(stem, f':{argument}' if argument else '')
  program, mesh = build_program(config), make_mesh(MESH)
  frozen = weights.shapes_of(program.frozen, mesh, MODEL_RULES)
  return program, abstract_state(program, 0, mesh), frozen


@pytest.mark.parametrize('name', STAGES)
def test_every_stage_is_one_that_trains(name):
  """Its steps can be traced, without any file that they need."""
  program, given, frozen = stage(name)
  # A larger teacher changes the first step alone, and leaks no other way.
  *first, last = list(program.steps.values())[: 1 if ':' in name else None]
  for function, _ in (*first, last):
    quick = function is not last[0] or ':' in name
    with contextlib.nullcontext() if quick else jax.checking_leaks():
      state, metrics = jax.eval_shape(
        function, given, program.batch_spec, frozen
      )
    assert jax.tree.structure(state) == jax.tree.structure(given)
    assert metrics['critic' if 'distill' in name else 'loss'].shape == ()
  # Control: latents of another VAE do not fit.
  latents = program.batch_spec['latents']
  wrong = latents.update(shape=(*latents.shape[:-1], 8))
  with pytest.raises((TypeError, ValueError, ScopeParamShapeError)):
    other = {**program.batch_spec, 'latents': wrong}
    jax.eval_shape(function, given, other, frozen)


@pytest.mark.slow
def test_the_longest_step_leaks_nothing():
  """Of student and critic: without its caches jax traces it for a minute."""
  program, given, frozen = stage('wan_1p3b_distill')
  function, _ = program.steps['student_and_critic']
  with jax.checking_leaks():
    jax.eval_shape(function, given, program.batch_spec, frozen)


def test_converted_models_are_what_the_memory_tables_are_of():
  """`unitemp aot` compiles the sizes and dtypes that a converted card has."""
  config = load('wan_1p3b_distill')
  vae = builders.vae_config(config.model)
  known = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  tables, made = builders.model_card(config, known, {}), folder.new_card({})
  assert made.vae == tables.vae
  assert made.text == tables.text
  assert dataclasses.replace(made.dit, remat='full') == tables.dit
  for name in ('frames', 'height', 'width', 'block', 'timesteps'):
    assert getattr(made, name) == getattr(tables, name)
  assert made.vae != fit.PRESETS['vae']['Wan 2.1 VAE']  # Control.
  # Sizes of one's own keep what their config says.
  told = folder.new_card({}, {'vae': {}})
  assert told.vae == fit.PRESETS['vae']['Wan 2.1 VAE']


def test_a_model_folder_is_judged_as_it_is_served(tmp_path):
  model_folder.write_card(tmp_path, folder.new_card({}))
  devices, v5e, v5p = jax.devices(), 15.75 * 2**30, 95.74 * 2**30
  found = serving.folder_steps(tmp_path, list(serving.FOLDER), devices, v5e)
  assert [step.name for step in found] == list(serving.FOLDER)
  text = found[-1]
  assert 'layer' in text.arguments and 'student' in text.resident
  (whole,) = serving.folder_steps(tmp_path, ['text'], devices, v5p)
  assert whole.argument_bytes() > 20 * text.argument_bytes()
  with pytest.raises(UserError, match='of a model use'):
    serving.folder_steps(tmp_path, ['train'], devices, v5e)
