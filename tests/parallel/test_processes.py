"""Several processes train as one, stop together and fail together."""

import json
import re
import signal
import sys
from pathlib import Path

import jax
import kill_harness
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.parallel import processes

TOY = Path(__file__).parents[1] / 'helpers' / 'toy.py'
STEPS = 20


@pytest.fixture(scope='module', autouse=True)
def compile_cache(tmp_path_factory):
  """Restarts of one process read programs from disk, as they do for users."""
  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp('compile_cache')
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(folder))
    patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    yield folder


@pytest.fixture(scope='module')
def alone(tmp_path_factory, compile_cache):
  """One process with one device, never disturbed."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  kill_harness.finish(command(workdir, STEPS, '--sample_every=5'), workdir)
  return workdir


def command(workdir, steps, *flags):
  base = [sys.executable, str(TOY), f'--workdir={workdir}']
  return [*base, f'--num_steps={steps}', *flags]


def log_of(workdir, host):
  return Path(f'{workdir}.{host}.log').read_text()


def losses(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line)['critic_loss'] for line in text.splitlines()]


def assert_close(workdir, alone):
  """Sums over devices are taken in another order: float32 rounding."""
  np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-3)
  states = [kill_harness.read_run(path)[1] for path in (workdir, alone)]
  for one, two in zip(*map(jax.tree.leaves, states), strict=True):
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_comparison_sees_a_step_too_few(alone):
  """The control of the tests below."""
  values = losses(alone)
  with pytest.raises(AssertionError):
    np.testing.assert_allclose(values[1:], values[:-1], rtol=1e-3)


def kill_one(flags, workdir, kill):
  """Two hosts, of which one is killed; the other one ends by itself."""
  pair = kill_harness.start_hosts(flags, workdir)
  if kill == 'at a step':
    victim, other = pair[1], pair[0]
    assert kill_harness.wait_for_line(pair[0], workdir, 8), log_of(workdir, 0)
  else:
    victim, other = pair
    kill_harness.wait_for_write(pair[0], workdir)
  victim.kill()
  # It does not wait for ever, and says so by its exit code.
  assert other.wait(kill_harness.WAIT) != 0
  victim.wait()


def test_a_signal_to_one_host_stops_all_and_one_host_goes_on(
  alone, tmp_path, compile_cache
):
  """Two hosts of two devices, twice, then one of four on another mesh."""
  workdir = tmp_path / 'run'
  stored = sorted(compile_cache.iterdir())
  assert stored  # Control: one process keeps its programs.
  flags = command(workdir, STEPS, '--delay=0.2', '--fsdp=4', '--sample_every=5')
  kill_one(flags, workdir, 'at a step')
  pair = kill_harness.start_hosts(flags, workdir)
  # Beyond the lines that the killed run has left.
  assert kill_harness.wait_for_line(pair[0], workdir, 12), log_of(workdir, 0)
  assert 'resuming after step 5' in log_of(workdir, 0)
  pair[1].send_signal(signal.SIGTERM)
  assert [process.wait(kill_harness.WAIT) for process in pair] == [0, 0]
  # Programs for several CPU processes are not read back in their order.
  assert sorted(compile_cache.iterdir()) == stored
  stops = {
    re.search(r'stopped \S*/(\d+)', log_of(workdir, host))[1]
    for host in range(2)
  }
  (stop,) = stops  # The same step on both, and it has a checkpoint.
  assert 12 <= int(stop) < STEPS
  assert (workdir / 'checkpoints' / stop).is_dir()
  # Host 0 samples alone on its two devices, from weights that lay on four.
  sample = (workdir / 'samples' / '00000005' / 'sample.json').read_text()
  size, kernel = json.loads(sample)
  assert (size, len(kernel)) == (2, 4 * 16)
  # Progress is printed by host 0 alone.
  assert 'compiled both' in log_of(workdir, 0)
  assert 'compiled both' not in log_of(workdir, 1)
  log = kill_harness.finish(
    command(workdir, STEPS, '--fsdp=2'), workdir, devices=4
  )
  assert f'resuming after step {stop}' in log
  twin = json.loads((alone / 'samples/00000005/sample.json').read_text())
  np.testing.assert_allclose(kernel, twin[1], atol=1e-4)
  assert_close(workdir, alone)
  kinds = kill_harness.time_kinds(workdir)
  assert {
    'initialise',
    'compile',
    'data',
    'step',
    'checkpoint',
    'down',
  } <= kinds


@pytest.mark.slow
def test_sigkill_to_one_host_loses_nothing_bit_for_bit(tmp_path):
  """On the same hosts and mesh throughout."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  pair = kill_harness.start_hosts(command(whole, STEPS), whole)
  assert [process.wait(kill_harness.WAIT) for process in pair] == [0, 0]
  flags = command(killed, STEPS, '--delay=0.2')
  for kill in ('at a step', 'during a write'):
    kill_one(flags, killed, kill)
  pair = kill_harness.start_hosts(flags, killed)
  assert [process.wait(kill_harness.WAIT) for process in pair] == [0, 0]
  assert 'resuming after step' in log_of(killed, 0)
  assert kill_harness.differences(whole, killed) == []


def test_what_one_host_cannot_do_is_told_by_all(tmp_path):
  workdir = tmp_path / 'run'
  pair = kill_harness.start_hosts(command(workdir, 5, '--doomed'), workdir)
  assert pair[1].wait(kill_harness.WAIT) == 1
  assert pair[0].wait(60) == 1  # It waited for no time-out.
  reason = 'the disk of this host is full.'
  assert f'Opening the data failed on host 1: {reason}' in log_of(workdir, 0)
  assert re.search(rf'\[host 1 of 2, .*\] error: {reason}', log_of(workdir, 1))
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((0,), '1 or more'),
    ((1, 'somewhere:1', 0), 'say how many'),
    ((2, 'somewhere:1', None), 'both or neither'),
    ((2, 'somewhere:1', 2), 'must be 0 .. 1'),
  ],
)
def test_impossible_hosts_are_bad_input(arguments, words):
  with pytest.raises(UserError, match=words):
    processes.join(*arguments)


def test_failing_to_join_is_never_a_training_alone(monkeypatch):
  def fail(**_):
    raise RuntimeError('DEADLINE_EXCEEDED: nobody there\nlong trace')

  monkeypatch.setattr(jax.distributed, 'initialize', fail)
  with pytest.raises(UserError, match=r'cannot be joined \(DEADLINE.*there\)'):
    processes.join(2, 'somewhere:1', 1)
  # Nor is joining without an error that joined nothing.
  monkeypatch.setattr(jax.distributed, 'initialize', lambda **_: None)
  with pytest.raises(UserError, match='one of 1 and not of 2'):
    processes.join(2, 'somewhere:1', 1)
  processes.join(1)  # Control.


def test_missing_devices_are_noticed():
  processes.check_devices(0)
  processes.check_devices(jax.device_count())
  with pytest.raises(UserError, match=r'num_devices is 7; a host or chip'):
    processes.check_devices(7)
