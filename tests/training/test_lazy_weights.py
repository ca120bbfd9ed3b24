"""Weights are checked before they are read, and read where they lie."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from unitemp_jax.cli import train as train_cli
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.training import build

pytestmark = pytest.mark.devices(8)

RULES = ((r'(^|/)kernel$', P('fsdp')),)
TREE = {
  'dit': {'kernel': np.arange(32, dtype=np.float32).reshape(8, 4)},
  'text': {'kernel': np.ones((4, 2), np.float32), 'bias': np.ones(2, 'f4')},
}


def shapes_of(tree, dtype=jnp.float32):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), tree)


@pytest.fixture
def path(tmp_path):
  return str(weights.save(tmp_path / 'teacher.safetensors', TREE))


@pytest.fixture
def reads(monkeypatch):
  """Which parts of which arrays are read."""
  seen = []
  read = weights.Files.read

  def spy(self, name, index=None):
    seen.append((name, None if index is None else index[0]))
    return read(self, name, index)

  monkeypatch.setattr(weights.Files, 'read', spy)
  return seen


def test_each_device_reads_its_own_part(path, reads):
  tree = {'teacher': LazyWeights(path, shapes_of(TREE, jnp.bfloat16), 'dit')}
  weights.check_lazy(tree)
  mesh = make_mesh({'fsdp': 4})
  shapes = weights.shapes_of(tree, mesh, RULES)
  assert shapes['teacher']['kernel'].dtype == jnp.bfloat16
  assert reads == []  # So far only names and shapes.
  kernel = weights.load_lazy(tree, mesh, RULES)['teacher']['kernel']
  assert kernel.sharding.spec == P('fsdp')
  np.testing.assert_array_equal(
    kernel.astype(np.float32), TREE['dit']['kernel']
  )
  # Two rows each, and nothing of the other network.
  assert {name for name, _ in reads} == {'dit.kernel'}
  assert sorted(index.start for _, index in reads) == [0, 2, 4, 6]


def test_another_model_is_refused_before_anything_is_read(path, reads):
  other = {**TREE, 'dit': {'kernel': np.ones((8, 5))}}
  with pytest.raises(UserError, match=r'dit.kernel has shape \[8, 4\], wanted'):
    weights.check_lazy({'teacher': LazyWeights(path, shapes_of(other), 'dit')})
  with pytest.raises(UserError, match='there are no weights'):
    weights.check_lazy([LazyWeights(path + '.gone', shapes_of(TREE))])
  assert reads == []


class State(typing.NamedTuple):
  kernel: jax.Array
  ema: dict


class Split:
  """A program whose one matrix does not divide over four devices."""

  def __init__(self):
    self.frozen, self.initial, self.steps = {}, {}, {}

  def init(self, key, _):
    return State(jax.random.normal(key, (6, 2)), {})


def test_a_width_that_does_not_divide_leaves_no_trace(tmp_path, monkeypatch):
  (tmp_path / 'split.py').write_text(
    'from configs.common import training_config\n'
    'def get_config(arg=None):\n'
    '  config = training_config(batch_size=8)\n'
    "  config.objective, config.model = 'split', {}\n"
    '  config.data, config.optimizer = {}, {}\n'
    '  return config\n'
  )
  opened = []
  monkeypatch.setattr(build, 'build_program', lambda *_: Split())
  monkeypatch.setattr(build, 'build_loader', lambda *_: opened.append(1))
  monkeypatch.setattr(train_cli, 'MODEL_RULES', RULES)
  flags = [f'--config={tmp_path / "split.py"}', f'--workdir={tmp_path / "run"}']
  with pytest.raises(UserError, match='6 does not divide by 4; change config'):
    train_cli.main([*flags, '--config.mesh.fsdp=4', '--config.mesh.data=1'])
  assert not opened and not (tmp_path / 'run').exists()
  # Control: over two devices it divides, and the data is opened.
  with pytest.raises(AttributeError):
    train_cli.main([*flags, '--config.mesh.fsdp=2', '--config.mesh.data=1'])
  assert opened
