"""Every objective, as its program, learns one batch by heart."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.data import latents
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.models import weights
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.training.build import build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.builders import latent_shape

CONFIGS = Path(__file__).parents[2] / 'configs'
SETTINGS = ('optimizer.schedule=constant', 'optimizer.learning_rate=0.01')
# Two blocks of three latents. A token must fit the width of the network, or it
# cannot even pass the noise on.
LATENT_SETTINGS = ('data.num_frames=21', 'model.dit.patch=1')


def make_config(stage, *changes):
  if stage != 'vae':
    changes = (*LATENT_SETTINGS, *changes)
  return load_config(f'{CONFIGS}/tiny_{stage}.py:test', [*SETTINGS, *changes])


def make_batch(config):
  """Two clips of one colour each, so to speak, which only the prompt tells.

  Noise in their place would be learned slowly: positions are relative.
  """
  frames, height, width = latent_shape(config)
  rng = np.random.default_rng(0)
  colours = rng.standard_normal((2, 1, 1, 1, config.model.vae.z_dim))
  latents = np.tile(colours, (1, frames, height, width, 1)).astype(np.float32)
  anchors = [latents[:, k - 3 : k] for k in range(3, frames, 3)]
  ids = np.zeros((2, config.model.text.length), np.int32)
  ids[:, :3] = [[5, 6, 1], [7, 8, 1]]
  return {
    'latents': latents,
    'last_image': latents[:, -1:],
    'anchors': np.stack(anchors, axis=1),
    'ids': ids,
    'mask': ids > 0,
  }


@functools.cache
def compiled(function):
  return jax.jit(function)


def fit(program, batch, steps, learn=True):
  """Takes steps on one batch; returns the state and all metrics."""
  initial, frozen = weights.load_lazy((program.initial, program.frozen))
  state = jax.jit(program.init)(jax.random.key(0), initial)
  history = []
  for step in range(steps):
    run = compiled(program.steps[program.step_name(step)][0])
    new, metrics = run(state, batch, frozen)
    state = (new if learn else state).replace(step=state.step + 1)
    history.append(metrics)
  return state, history


def mean_of(history, name, part):
  return float(np.mean([metrics[name] for metrics in history[part]]))


def check_falls(history, name, factor):
  first = mean_of(history, name, slice(0, 5))
  last = mean_of(history, name, slice(-20, None))
  assert last < factor * first, f'{name}: {first:.3f} to {last:.3f}'


def test_vae():
  config = make_config('vae', 'data.num_frames=5')
  program = build_program(config)
  spec = FallingDigitsSpec(num_frames=5, size=16)
  batch = {'video': sample_clips(spec, range(2))['video']}
  _, history = fit(program, batch, 60)
  check_falls(history, 'reconstruction', 0.3)
  assert float(history[-1]['psnr']) > float(history[0]['psnr']) + 4


@pytest.fixture(scope='module')
def teacher():
  """A teacher that knows its two clips: (program, state, metrics)."""
  program = build_program(make_config('teacher'))
  return program, *fit(program, make_batch(make_config('teacher')), 250)


def test_teacher(teacher):
  program, _, history = teacher
  check_falls(history, 'loss', 0.4)
  # The control: steps that are taken back teach nothing.
  batch = make_batch(make_config('teacher'))
  _, history = fit(program, batch, 40, learn=False)
  with pytest.raises(AssertionError, match='loss'):
    check_falls(history, 'loss', 0.7)


def test_student_init(teacher, tmp_path):
  # From a teacher that knows nothing, so that there is something to learn.
  program, *_ = teacher
  untrained = program.init(jax.random.key(1), {}).params['teacher']
  path = weights.save(tmp_path / 'teacher.safetensors', untrained)
  config = make_config('student_init', f'teacher={path}')
  program = build_program(config)
  _, history = fit(program, make_batch(config), 200)
  for name in ('block', 'anchor', 'loss'):
    check_falls(history, name, 0.5)


def fresh_vae(config, folder):
  """Settings for latents that come from an untrained VAE."""
  channels = config.model.vae.z_dim
  index = {
    'shards': 1,
    'latent_mean': [0.0] * channels,
    'latent_std': [1.0] * channels,
  }
  (folder / latents.INDEX).write_text(json.dumps(index))
  vae = VAE(builders.vae_config(config.model))
  video = jnp.zeros((1, 5, config.data.size, config.data.size, 3))
  params = vae.init(jax.random.key(0), video)['params']
  path = weights.save(folder / 'vae.safetensors', params)
  return f'latents.dir={folder}', f'latents.vae={path}'


@pytest.mark.slow
def test_distillation(teacher, tmp_path):
  """Samples of a student with worn weights come to the teacher's clips."""
  known = teacher[1].params['teacher']
  worn = jax.tree.map(lambda leaf: 0.85 * leaf, known['dit'])
  config = make_config(
    'distill',
    f'teacher={weights.save(tmp_path / "teacher.safetensors", known)}',
    f'student_init={weights.save(tmp_path / "student.safetensors", worn)}',
    *fresh_vae(make_config('distill'), tmp_path),
    'accumulate=1',
    'loss.guidance_scale=1.0',
    # That VAE says nothing about these latents.
    'loss.anchor_match=0.0',
    'loss.closing=0.0',
    'optimizer.learning_rate=0.001',
    'critic_optimizer.learning_rate=0.002',
  )
  program = build_program(config)
  batch = make_batch(config)
  frozen = weights.load_lazy(program.frozen)

  @jax.jit
  def distance(params, key):
    rollout = program.roll_out(params, frozen, batch, key)
    return ((rollout.latents - batch['latents']) ** 2).mean()

  def error(params):
    keys = jax.random.split(jax.random.key(1), 16)
    return float(np.mean([distance(params, key) for key in keys]))

  state, history = fit(program, batch, 300)
  before, after = error(worn), error(state.params['student'])
  assert after < 0.6 * before, f'{before:.3f} to {after:.3f}'
  assert all(np.isfinite(metrics['critic']) for metrics in history)
