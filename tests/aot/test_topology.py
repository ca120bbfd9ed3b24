"""Which topologies there are, before anything is compiled."""

import importlib.util

import pytest

from unitemp_jax.aot import topology
from unitemp_jax.aot.topology import CHIPS
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import make_mesh

GOOD = [
  ('v5e:1x1', 1, 1),
  ('v5e:4x4', 1, 16),
  ('v6e:2x4', 2, 16),
  ('v5p:2x2x2', 1, 8),
  ('v5p:4x4x4', 1, 64),
  ('v5p:8x8x8', 1, 512),
  ('v5p:16x16x24', 1, 6144),
  ('tpu7x:2x2x1', 1, 8),  # two devices per chip
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


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='needs libtpu'
)
@pytest.mark.parametrize('context', [1, 2, 4])
def test_every_slice_gives_a_mesh(context):
  """Also where an axis of the mesh is a part of one of the torus."""
  for chip in CHIPS.values():
    for shape in chip.shapes:
      found = topology.parse(f'{chip.name}:{shape}')
      if found.devices % context == 0:
        sizes = {'data': -1, 'context': context}
        mesh = make_mesh(sizes, topology.devices(found))
        assert mesh.shape['context'] == context
        assert len({d.id for d in mesh.devices.flat}) == found.devices
