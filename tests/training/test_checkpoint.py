import contextlib
import errno
import resource
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import TOY_RULES, ToyProgram

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.training import workdir
from unitemp_jax.training.program import abstract_state
from unitemp_jax.training.workdir import Checkpoints

# Of a damaged checkpoint Orbax gives up at the first array and closes the loop
# that the other reads report to; they may end during any later test.
pytestmark = [
  pytest.mark.devices(8),
  pytest.mark.filterwarnings(
    'ignore:(?s).*Event loop is closed:pytest.PytestUnraisableExceptionWarning'
  ),
]


def shapes_on(mesh):
  return abstract_state(ToyProgram(), 0, mesh, TOY_RULES)


def state_on(mesh, seed=0):
  shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes_on(mesh))
  init = jax.jit(ToyProgram().init, out_shardings=shardings)
  return init(jax.random.key(seed), {})


def plain(state):
  key = np.asarray(jax.random.key_data(state.key))
  return [key] + [np.asarray(x) for x in jax.tree.leaves(state.replace(key=0))]


def assert_equal(one, two):
  for x, y in zip(plain(one), plain(two), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.fixture
def folder(tmp_path):
  """Two checkpoints, of steps 5 and 10."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints', fingerprint='a')
  for step in (5, 10):
    state = state_on(make_mesh({'data': 1}), seed=step)
    checkpoints.save(step, state, {'count': step})
  checkpoints.close()
  return tmp_path / 'checkpoints'


def damage(folder, how):
  """Makes every file with arrays in `folder` shorter, or empties it."""
  files = [f for f in folder.rglob('*') if f.is_file() and 'd/' in str(f)]
  assert files
  for file in files:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if how == 'half' else b'')


def test_state_with_typed_key_returns_on_another_mesh(folder):
  mesh = make_mesh({'data': 2, 'fsdp': 4})
  checkpoints = Checkpoints(folder, fingerprint='a')
  state, data_state = checkpoints.restore_latest(shapes_on(mesh))
  checkpoints.close()
  assert data_state == {'count': 10}
  saved = state_on(make_mesh({'data': 1}), seed=10)
  assert_equal(state, saved)
  # A key that draws, not just its numbers; and the new mesh's shardings.
  draws = [np.asarray(jax.random.normal(s.key)) for s in (state, saved)]
  assert draws[0] == draws[1]
  kernel = state.params['net']['up']['kernel']
  assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, 'fsdp')
  assert kernel.addressable_shards[0].data.shape == (4, 4)


def test_other_seed_is_another_state(folder):
  """Control: the comparison above can fail."""
  mesh = make_mesh({'data': 1})
  with pytest.raises(AssertionError):
    assert_equal(state_on(mesh, seed=10), state_on(mesh, seed=5))


@pytest.mark.parametrize('how', ['half', 'empty', 'state missing'])
def test_damaged_newest_is_skipped_and_its_step_can_be_saved_again(folder, how):
  if how == 'state missing':
    for file in (folder / '10/state').rglob('*'):
      if file.is_file():
        file.unlink()
  else:
    damage(folder / '10/state', how)
  checkpoints = Checkpoints(folder, fingerprint='a')
  mesh = make_mesh({'data': 1})
  with pytest.warns(UserWarning, match='Skipping checkpoint .*10'):
    state, data_state = checkpoints.restore_latest(shapes_on(mesh))
  assert data_state == {'count': 5}
  assert_equal(state, state_on(mesh, seed=5))
  assert (folder.with_name('checkpoints_damaged') / '10.0').is_dir()
  checkpoints.save(10, state_on(mesh, seed=3), {'count': 10})
  checkpoints.wait()
  state, _ = checkpoints.restore_latest(shapes_on(mesh))
  checkpoints.close()
  assert_equal(state, state_on(mesh, seed=3))


def test_half_written_checkpoint_is_ignored(folder):
  # Orbax renames the folder last, so a kill leaves one with such a name.
  (folder / '10').rename(folder / '15.orbax-checkpoint-tmp')
  checkpoints = Checkpoints(folder, fingerprint='a')
  mesh = make_mesh({'data': 1})
  assert checkpoints.restore_latest(shapes_on(mesh))[1] == {'count': 5}
  checkpoints.close()


def test_nothing_readable_stops_and_moves_nothing(folder):
  for step in (5, 10):
    damage(folder / f'{step}/state', 'half')
  checkpoints = Checkpoints(folder, fingerprint='a')
  with (
    pytest.warns(UserWarning),
    pytest.raises(UserError, match='None of the 2 checkpoints'),
  ):
    checkpoints.restore_latest(shapes_on(make_mesh({'data': 1})))
  checkpoints.close()
  assert (folder / '5').is_dir() and (folder / '10').is_dir()


def test_other_config_is_refused(folder):
  checkpoints = Checkpoints(folder, fingerprint='b')
  with pytest.raises(UserError, match='another config'):
    checkpoints.restore_latest(shapes_on(make_mesh({'data': 1})))
  checkpoints.close()


def test_empty_folder_gives_none(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'new')
  assert checkpoints.restore_latest(shapes_on(make_mesh({'data': 1}))) is None
  checkpoints.close()


def test_only_the_newest_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3):
    checkpoints.save(step, {'x': jnp.zeros(3)}, {})
  checkpoints.wait()
  assert checkpoints.steps() == [2, 3]
  checkpoints.close()


def test_every_so_many_steps_are_kept_as_well(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=1, keep_every=4)
  for step in range(1, 11):
    checkpoints.save(step, {'x': jnp.zeros(3)}, {})
  checkpoints.wait()
  assert checkpoints.steps() == [4, 8, 10]
  checkpoints.close()


def test_state_may_be_donated_while_it_is_written(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
  x = jnp.arange(1 << 22, dtype=jnp.float32)
  checkpoints.save(1, {'x': x}, {})
  for _ in range(5):
    x = overwrite(x)
  x.block_until_ready()
  checkpoints.wait()
  shapes = {'x': jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)}
  state, _ = checkpoints.restore_latest(shapes)
  checkpoints.close()
  np.testing.assert_array_equal(
    np.asarray(state['x']), np.arange(1 << 22, dtype=np.float32)
  )


def test_a_disk_that_fills_up_is_told_and_the_last_checkpoint_stays(folder):
  """No file grows beyond so many bytes, which Orbax is told as by a disk."""
  checkpoints = Checkpoints(folder, fingerprint='a')
  state = state_on(make_mesh({'data': 1}), seed=15)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
  try:
    with pytest.raises(OSError, match='File too large') as caught:
      checkpoints.save(15, state, {'count': 15})
      checkpoints.wait()
    with contextlib.suppress(OSError):  # It may be told once more.
      checkpoints.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert caught.value.errno == errno.EFBIG
  assert caught.value.filename == str(folder)
  # The control: with room the same is saved, beside what was there.
  again = Checkpoints(folder, fingerprint='a')
  assert again.steps() == [5, 10]
  again.save(15, state, {'count': 15})
  again.close()
  assert Checkpoints(folder, fingerprint='a').steps() == [10, 15]


@pytest.mark.parametrize(
  'error, is_shown',
  [
    (ValueError('Failed to write: No space left on device'), False),
    (RuntimeError('Event loop is closed'), False),
    (ValueError('something else'), True),  # Control.
  ],
)
def test_threads_of_a_full_disk_print_nothing(monkeypatch, error, is_shown):
  """It is raised where the checkpoint is awaited, and said once."""
  shown = []
  for module, name in ((threading, 'excepthook'), (sys, 'unraisablehook')):
    monkeypatch.setattr(module, name, shown.append)
  workdir._quiet_writers.__wrapped__()
  hook = sys.unraisablehook if 'loop' in str(error) else threading.excepthook
  hook(types.SimpleNamespace(exc_value=error))
  assert bool(shown) == is_shown
