"""`unitemp train` on two hosts of two devices, and elsewhere afterwards."""

import re
import signal
import sys
from pathlib import Path

import kill_harness
import numpy as np
import pytest
import safetensors.numpy
from ended import run
from test_objectives_kill import command, inputs  # noqa: F401

# Float32 rounding (sums over devices in another order), after Adam, which makes
# steps of a fixed size from gradients of any size.
TOLERANCE = 1e-4
FOREVER = 100_000  # steps: a run that ends before its signal shows nothing


def flags_of(folder, workdir, steps, **mesh):
  """The command for so many steps on a mesh; four tokens a frame."""
  return [
    *command('teacher', folder, workdir),
    '--config.model.dit.patch=1',
    f'--config.num_steps={steps}',
    *(f'--config.mesh.{axis}={size}' for axis, size in mesh.items()),
  ]


def processes_of(*arguments, **mesh):
  """The command of `flags_of` for a process of its own."""
  program = [sys.executable, '-m', 'unitemp_jax.cli.main']
  return [*program, *flags_of(*arguments, **mesh)]


def last_checkpoint(workdir):
  names = (path.name for path in (workdir / 'checkpoints').iterdir())
  return max(int(name) for name in names if name.isdigit())


def difference(workdirs):
  """Returns the largest difference of the exported weights, and their size."""
  one, two = (
    safetensors.numpy.load_file(workdir / 'weights/teacher.safetensors')
    for workdir in workdirs
  )
  assert one.keys() == two.keys()
  return (
    max(np.abs(one[name] - two[name]).max() for name in one),
    max(np.abs(array).max() for array in one.values()),
  )


def test_two_hosts_train_as_one_process_does(inputs, tmp_path):  # noqa: F811
  """Parameters split over hosts and tokens over the devices of a host."""
  together, alone = tmp_path / 'together', tmp_path / 'alone'
  split = {'data': 1, 'fsdp': 2, 'context': 2}
  pair = kill_harness.start_hosts(
    processes_of(inputs, together, 2, **split), together
  )
  codes = [process.wait(kill_harness.WAIT) for process in pair]
  assert codes == [0, 0], Path(f'{together}.0.log').read_text()[-2000:]
  run(flags_of(inputs, alone, 2))
  off, size = difference([together, alone])
  assert off < TOLERANCE < size


@pytest.mark.slow
def test_hosts_stop_together_and_another_mesh_goes_on(inputs, tmp_path):  # noqa: F811
  """Weights lie split over both hosts, then whole on each of four devices."""
  workdir, alone = tmp_path / 'run', tmp_path / 'alone'
  pair = kill_harness.start_hosts(
    processes_of(inputs, workdir, FOREVER, data=1, fsdp=4), workdir
  )
  assert kill_harness.wait_for_line(pair[0], workdir, 5)
  pair[1].send_signal(signal.SIGTERM)
  assert [process.wait(kill_harness.WAIT) for process in pair] == [143, 143]
  logs = [Path(f'{workdir}.{host}.log').read_text() for host in range(2)]
  stops = {re.search(r'stopped at step (\d+)', log)[1] for log in logs}
  assert len(stops) == 1
  stop = int(stops.pop())
  assert stop == last_checkpoint(workdir)
  rest = processes_of(inputs, workdir, stop + 3, data=4, fsdp=1)
  log = kill_harness.finish(rest, workdir, devices=4)
  assert f'resuming after step {stop}' in log
  run(flags_of(inputs, alone, stop + 3))
  off, size = difference([workdir, alone])
  assert off < TOLERANCE
  # Control: two trainings of other data differ by more than that.
  other = tmp_path / 'other'
  run([*flags_of(inputs, other, 6), '--config.seed=1'])
  assert difference([other, alone])[0] > 10 * TOLERANCE, size


@pytest.mark.slow
def test_same_mesh_on_two_hosts_is_bit_for_bit(inputs, tmp_path):  # noqa: F811
  """A host is killed; the last checkpoint decides where the run goes on."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  split = {'data': 1, 'fsdp': 4}
  pair = kill_harness.start_hosts(
    processes_of(inputs, killed, FOREVER, **split), killed
  )
  assert kill_harness.wait_for_line(pair[0], killed, 5)
  pair[0].kill()
  assert pair[1].wait(kill_harness.WAIT) != 0
  pair[0].wait()
  end = last_checkpoint(killed) + 3
  for workdir in (killed, whole):
    flags = processes_of(inputs, workdir, end, **split)
    pair = kill_harness.start_hosts(flags, workdir)
    assert [process.wait(kill_harness.WAIT) for process in pair] == [0, 0]
  assert 'resuming after step' in Path(f'{killed}.0.log').read_text()
  assert kill_harness.differences(whole, killed) == []
