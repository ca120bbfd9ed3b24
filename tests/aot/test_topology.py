"""Which topologies there are, before anything is compiled."""

import contextlib
import importlib.util
import itertools
import re
import subprocess
import sys

import pytest

from unitemp_jax.aot import topology
from unitemp_jax.aot.topology import CHIPS
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import AXES, check_rows, make_mesh
from unitemp_jax.training.config import load_config

GOOD = [
  ('v5e:1x1', 1, 1),
  ('v5e:4x4', 1, 16),
  ('v6e:2x4', 2, 16),
  ('v5p:2x2x2', 1, 8),
  ('v5p:4x4x4', 1, 64),
  ('v5p:8x8x8', 1, 512),
  ('v5p:16x16x24', 1, 6144),
  ('tpu7x:2x2x1', 1, 8),  # two devices per chip
  ('7x:2x2x1', 1, 8),
  ('v4:2x2x1', 1, 4),  # two cores are one device
  ('v4:16x16x16', 1, 4096),
]
BAD = [
  ('v9:2x2', 1, 'generation'),
  ('v5e', 1, 'does not exist'),
  ('v5e:3x3', 1, 'does not exist; v5e comes as 1x1, 2x2'),
  ('v5e:4x4x4', 1, 'does not exist'),
  ('v5p:4x4x6', 1, 'multiples of 4 up to 16x16x24'),
  ('v5p:4x24x24', 1, 'does not exist'),
  ('v5p:04x4x4', 1, 'does not exist'),
  ('v5p:4x4x-4', 1, 'does not exist'),
  ('v5e:4x4', 0, '--slices=0'),
]


@pytest.mark.parametrize(('name', 'slices', 'devices'), GOOD)
def test_a_topology_has_its_devices(name, slices, devices):
  assert topology.parse(name, slices).devices == devices


@pytest.mark.parametrize(('name', 'slices', 'words'), BAD)
def test_what_does_not_exist_is_refused(name, slices, words):
  with pytest.raises(UserError, match=words) as error:
    topology.parse(name, slices)
  assert '\n' not in str(error.value)


def test_every_shape_of_the_table_is_one():
  for chip in CHIPS.values():
    for shape in chip.shapes:
      found = topology.parse(f'{chip.name}:{shape}')
      assert found.devices == found.chips * chip.devices


def test_without_the_compiler_one_sentence_says_what_to_install(monkeypatch):
  real = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: None if name == 'libtpu' else real(name, *rest),
  )
  with pytest.raises(UserError, match=r"pip install 'unitemp_jax\[tpu\]'"):
    topology.devices(topology.parse('v5e:4x4'))


def slices_of(chip, most):
  """Shapes of a generation, the cubes among them up to so many a side."""
  sides = range(4, most + 1, 4)
  for shape in chip.shapes:
    yield topology.parse(f'{chip.name}:{shape}')
  for sizes in itertools.combinations_with_replacement(sides, 3):
    with contextlib.suppress(UserError):
      yield topology.parse(f'{chip.name}:{"x".join(map(str, sizes))}')


def settings_of(sentence):
  """What a sentence says to use instead, each as overrides."""
  named = re.findall(r'--config\.([\w.]+)=(-?\d+)', sentence)
  if sentence.startswith('mesh'):
    axes = re.findall(r'\b(data|fsdp|context)=(-?\d+)', sentence)
    named = [(f'mesh.{axis}', size) for axis, size in axes]
  named = [(name, int(value)) for name, value in named]
  return [dict(named)] if ' or ' not in sentence else [dict([n]) for n in named]


def try_mesh(devices, settings):
  """Makes the mesh of a config, and splits its batch."""
  sizes = {axis: settings[f'mesh.{axis}'] for axis in AXES}
  mesh = make_mesh(sizes, devices)
  assert len({d.id for d in mesh.devices.flat}) == len(devices)
  check_rows(settings['batch_size'], mesh, settings['accumulate'])


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='needs libtpu'
)
@pytest.mark.parametrize('most', [8, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', CHIPS)
def test_every_slice_has_a_mesh_or_is_told_one_that_would_do(name, most):
  """Also where an axis of the mesh is a part of one of the torus."""
  shipped = load_config('configs/wan_1p3b_distill.py')
  settings = {name: shipped[name] for name in ('batch_size', 'accumulate')}
  settings |= {f'mesh.{axis}': shipped.mesh[axis] for axis in AXES}
  told = 0
  for found in slices_of(CHIPS[name], most):
    devices = topology.devices(found)
    todo, seen = [settings], []
    while todo:
      tried = todo.pop()
      try:
        try_mesh(devices, tried)
      except UserError as error:
        told += 1
        assert len(seen) < 9, seen
        seen.append(str(error))
        todo += [tried | more for more in settings_of(str(error))]
  assert told  # Some are too large for the batch.


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='needs libtpu'
)
def test_nothing_is_said_before_the_sentence(capfd):
  """libtpu writes to the terminal by itself."""
  code = "from unitemp_jax.cli import main; main.main(['aot', '--dry_run', "
  code += "'--config=configs/wan_1p3b_distill.py', '--topology=v5e:1x1'])"
  subprocess.run([sys.executable, '-c', code], check=True)
  said = capfd.readouterr().err.splitlines()
  assert len(said) == 1 and said[0].startswith('unitemp: error: mesh ')
