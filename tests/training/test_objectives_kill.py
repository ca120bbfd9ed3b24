"""A training that ends at any step leaves no trace in its result.

The commands are those of users, with the size of the tests, on random latents.
They end by an exception here, which costs no process; real signals are sent in
test_kill.py and, to such commands, in test_hosts.py.
"""

from pathlib import Path

import ended
import jax
import kill_harness
import numpy as np
import pytest

from unitemp_jax.models import sizes, weights
from unitemp_jax.training.build import build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.builders import latent_shape

ROOT = Path(__file__).parents[2]
STEPS = 5
SLOW = ('vae', 'student_init', 'distill')
STAGES = ['teacher', *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW)]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """What stages hand to each other: latents, a teacher, a student."""
  folder = tmp_path_factory.mktemp('inputs')
  config = load_config(f'{ROOT}/configs/tiny_teacher.py:test')
  rng = np.random.default_rng(0)
  shape = latent_shape(config)
  ended.write_latents(folder / 'latents', shape, 32)
  program = build_program(config)
  shapes = jax.eval_shape(program.init, jax.random.key(0), {}).params['teacher']
  teacher = jax.tree.map(
    lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes
  )
  weights.save(folder / 'teacher.safetensors', teacher)
  weights.save(folder / 'student.safetensors', teacher['dit'])
  # It says what the anchors of a distillation should have been.
  vae = jax.tree.map(
    lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32),
    sizes.param_shapes(builders.vae_config(config.model)),
  )
  weights.save(folder / 'vae.safetensors', vae)
  return folder


def command(stage, inputs, workdir):
  flags = {
    'num_steps': STEPS,
    'log_every': 1,
    'checkpoint_every': 2,
    'data.dir': inputs / 'data',
  }
  if stage == 'teacher':
    flags['model.dit.num_layers'] = 1
  if stage != 'vae':
    flags['latents.dir'] = inputs / 'latents'
    flags['latents.vae'] = inputs / 'vae.safetensors'
  if stage in ('student_init', 'distill'):
    flags['teacher'] = inputs / 'teacher.safetensors'
  if stage == 'distill':
    flags['student_init'] = inputs / 'student.safetensors'
  return [
    'train',
    f'--config={ROOT}/configs/tiny_{stage}.py:test',
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in flags.items()),
  ]


@pytest.mark.parametrize('stage', STAGES)
def test_ended_training_equals_an_undisturbed_one(
  stage, inputs, tmp_path, capsys
):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  ended.run(command(stage, inputs, whole))
  capsys.readouterr()
  for steps in (4, None):  # The checkpoint is that of step 2.
    ended.run(command(stage, inputs, parts), steps)
  assert 'resuming after step 2' in capsys.readouterr().out
  assert kill_harness.differences(whole, parts) == []
  # What the next stage is given is the same file.
  files = [sorted((run / 'weights').iterdir()) for run in (whole, parts)]
  assert len(files[0]) == 1
  for one, two in zip(*files, strict=True):
    assert one.read_bytes() == two.read_bytes()
  if stage == 'teacher':
    # The control: the comparison sees another order of the data.
    other = tmp_path / 'other'
    flags = ['--config.num_steps=2', '--config.seed=1']
    ended.run([*command(stage, inputs, other), *flags])
    found = kill_harness.differences(whole, other)
    assert 'data_crc at 1' in found
    assert any('params' in name for name in found)
