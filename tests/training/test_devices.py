"""A training step is the same on any number of devices.

Rows are split over data and fsdp, tokens over context, parameters over fsdp and
context. Every micro-batch draws its own plan, exit level and noise, so what is
equal is a step with the same batch and the same `accumulate`. A loss without
such draws does not depend on it either (test_optim.py, test_loop.py).
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel.mesh import MODEL_RULES, make_mesh, put_batch
from unitemp_jax.training.build import build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.program import CompiledSteps, first_state
from unitemp_jax.training.programs import builders

pytestmark = pytest.mark.devices(8)

CONFIGS = Path(__file__).parents[2] / 'configs'
ROWS = 16
MESHES = {
  'one': {'data': 1},
  'eight': {'data': 2, 'fsdp': 2, 'context': 2},
}
# Adam would make steps of one size from gradients of any size.
SGD_LIKE = {
  'name': 'adamw',
  'schedule': 'constant',
  'learning_rate': 1e-3,
  'eps': 1.0,
  'clip_norm': 0.0,
}


def random_like(shapes, seed):
  rng = np.random.default_rng(seed)

  def one(leaf):
    x = 0.2 * rng.standard_normal(leaf.shape, np.float32)
    return x.astype(leaf.dtype) if leaf.dtype.kind == 'f' else x > 0

  return jax.tree.map(one, shapes)


def small(stage):
  """A tiny stage with four tokens a frame, and all that saves memory."""
  config = load_config(
    f'{CONFIGS}/tiny_{stage}.py:test',
    ['data.num_frames=21', 'model.dit.patch=1', 'model.dit.num_layers=1'],
  )
  config.unlock()
  config.orders.anchor_kind = 'raw'
  config.orders.weights = {'forward': 0.5, 'backward+last': 0.5}
  config.model.dit.remat = 'attention'
  config.batch_size, config.accumulate = ROWS, 4
  config.optimizer.update(SGD_LIKE)
  return config


@pytest.fixture(scope='module')
def distillation(tmp_path_factory):
  folder = tmp_path_factory.mktemp('weights')
  config = small('distill')
  config.loss.checkpoint_rollout = True
  config.critic_optimizer.update(SGD_LIKE)
  dit = sizes.param_shapes(builders.dit_config(config.model))
  text = sizes.param_shapes(builders.text_config(config.model))
  teacher = random_like({'dit': dit, 'text': text}, 0)
  config.teacher = str(weights.save(folder / 'teacher.safetensors', teacher))
  config.student_init = str(
    weights.save(folder / 'student.safetensors', random_like(dit, 1))
  )
  return config


def batch_of(config):
  batch = random_like(build_program(config).batch_spec, 2)
  batch['ids'] = np.random.default_rng(3).integers(1, 40, batch['ids'].shape)
  return {**batch, 'mask': np.ones(batch['mask'].shape, bool)}


def taken(config, mesh_name):
  """(how the parameters moved, metrics) in one step."""
  mesh = make_mesh(MESHES[mesh_name])
  program = build_program(config)
  state = first_state(program, 0, mesh)
  # On the host: the step takes the state for itself.
  before = jax.tree.map(np.array, state.params)
  frozen = weights.load_lazy(program.frozen, mesh, MODEL_RULES)
  batch = put_batch(batch_of(config), mesh)
  steps = CompiledSteps(program, state, mesh)
  # A step of student and critic, where there are two kinds.
  name = program.step_name(config.loss.get('critic_updates', 0))
  steps.compile(name, state, batch, frozen)
  state, metrics, _ = steps(name, state, batch, frozen, np.zeros(2))
  moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, before)
  return moved, jax.tree.map(np.asarray, metrics)


def apart(one, two):
  """The largest difference next to the largest value, over all leaves."""
  found = jax.tree.map(
    lambda a, b: np.abs(a - b).max() / max(np.abs(a).max(), 1e-6), one, two
  )
  return max(jax.tree.leaves(found))


def check(config):
  moved, metrics = taken(config, 'one')
  split_moved, split_metrics = taken(config, 'eight')
  assert metrics['skipped'] == 0
  assert apart(metrics, split_metrics) < 1e-3
  assert apart(moved, split_moved) < 1e-2
  # Control: every network moved, and a step of another size is seen.
  assert apart(moved, jax.tree.map(lambda leaf: 0.9 * leaf, moved)) > 0.05


def test_eight_devices_with_accumulation_equal_one():
  check(small('teacher'))


@pytest.mark.slow
def test_so_they_do_in_distillation(distillation):
  """Rollouts on drawn plans, replayed; teacher, critic and student."""
  check(distillation)
