import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import (
  local_rows,
  make_mesh,
  put_batch,
  shardings_for,
)

pytestmark = pytest.mark.devices(8)

RULES = (
  (r'(^|/)blocks/q/kernel$', P(None, 'fsdp')),
  (r'(^|/)kernel$', P('fsdp')),
)


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


@pytest.mark.parametrize(
  'sizes, expected',
  [
    ({}, (1, 1, 1)),
    ({'data': -1}, (8, 1, 1)),
    ({'data': -1, 'fsdp': 4}, (2, 4, 1)),
    ({'data': 2, 'fsdp': -1, 'context': 2}, (2, 2, 2)),
    ({'data': 2}, (2, 1, 1)),
  ],
)
def test_sizes_fill_the_devices(sizes, expected):
  assert tuple(make_mesh(sizes).shape.values()) == expected


@pytest.mark.parametrize(
  'sizes', [{'data': 9}, {'data': 3, 'fsdp': -1}, {'data': 0}, {'model': 2}]
)
def test_impossible_meshes_are_bad_input(sizes):
  with pytest.raises(UserError, match='mesh'):
    make_mesh(sizes)


def test_first_rule_wins_and_vectors_need_none():
  tree = {
    'blocks': {'q': {'kernel': shape(3, 8, 8), 'bias': shape(3, 8)}},
    'head': {'kernel': shape(8, 3), 'bias': shape(3)},
    'step': shape(),
  }
  mesh = make_mesh({'fsdp': 4})
  found = jax.tree.map(lambda s: s.spec, shardings_for(tree, mesh, RULES))
  assert found['blocks']['q'] == {'kernel': P(None, 'fsdp'), 'bias': P()}
  assert found['head'] == {'kernel': P('fsdp'), 'bias': P()}
  assert found['step'] == P()


def test_matrix_without_a_rule_is_an_error():
  with pytest.raises(ValueError, match='No sharding rule for table'):
    shardings_for({'table': shape(8, 8)}, make_mesh({}), RULES)


def test_axis_that_does_not_divide_names_the_parameter():
  tree = {'head': {'kernel': shape(6, 3)}}
  with pytest.raises(UserError, match=r'head/kernel .*6 does not divide by 4'):
    shardings_for(tree, make_mesh({'fsdp': 4}), RULES)
  shardings_for(tree, make_mesh({'fsdp': 2}), RULES)  # Control.


def test_batch_is_spread_over_all_devices():
  batch = {'x': np.arange(16, dtype=np.float32).reshape(16, 1)}
  placed = put_batch(batch, make_mesh({'data': 2, 'fsdp': 4}))['x']
  assert len(placed.addressable_shards) == 8
  assert all(s.data.shape == (2, 1) for s in placed.addressable_shards)
  np.testing.assert_array_equal(np.asarray(placed), batch['x'])


def test_rows_are_not_split_over_context():
  """Devices that share a row hold all of it; the model splits its tokens."""
  batch = {'x': np.arange(8, dtype=np.float32).reshape(8, 1)}
  mesh = make_mesh({'data': 2, 'fsdp': 2, 'context': 2})
  placed = put_batch(batch, mesh)['x']
  assert len(placed.addressable_shards) == 8
  assert all(s.data.shape == (2, 1) for s in placed.addressable_shards)
  np.testing.assert_array_equal(np.asarray(placed), batch['x'])
  assert local_rows(mesh, 4).tolist() == [0, 1, 2, 3]
  with pytest.raises(UserError, match='does not divide over 8'):
    local_rows(make_mesh({'data': 8}), 4)  # Control.


def test_a_micro_batch_must_divide_too():
  mesh = make_mesh({'data': 2, 'fsdp': 4})
  assert len(local_rows(mesh, 32, accumulate=4)) == 32
  with pytest.raises(UserError, match='16 in 4 passes does not divide over 8'):
    local_rows(mesh, 16, accumulate=4)


class FarDevice:
  """A chip of a pod: slices are far from each other."""

  def __init__(self, number, per_slice):
    self.id, self.process_index = number, number
    self.platform, self.device_kind = 'tpu', 'TPU v5 lite'
    self.slice_index = number // per_slice
    self.coords = (number % per_slice, 0, 0)
    self.core_on_chip = 0

  def __repr__(self):
    return str(self.id)


def test_slices_of_a_pod_differ_along_data_only():
  devices = [FarDevice(i, 4) for i in range(8)]
  mesh = make_mesh({'data': -1, 'fsdp': 2, 'context': 2}, devices)
  slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  np.testing.assert_array_equal(slices, [[[0, 0], [0, 0]], [[1, 1], [1, 1]]])
  with pytest.raises(UserError, match='does not divide over the 2 slices'):
    make_mesh({'fsdp': 8}, devices)


def test_bad_batches():
  mesh = make_mesh({'data': 8})
  assert local_rows(mesh, 16).tolist() == list(range(16))
  with pytest.raises(UserError, match='batch of 0 does not divide over 8'):
    local_rows(mesh, 0)
  with pytest.raises(UserError, match='batch of 6 does not divide over 8'):
    put_batch({'x': np.zeros((6, 1))}, mesh)
  with pytest.raises(ValueError, match='caption'):
    put_batch({'caption': np.array(['a'] * 8, dtype=object)}, mesh)
