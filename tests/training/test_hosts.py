"""`unitemp train` on two hosts of two devices, and elsewhere afterwards."""

import re
import signal
from pathlib import Path

import kill_harness
import numpy as np
import pytest
import safetensors.numpy
from test_objectives_kill import command, compile_cache, inputs  # noqa: F401

pytestmark = pytest.mark.slow

# Float32 rounding (sums over devices in another order), after Adam, which makes
# steps of a fixed size from gradients of any size.
TOLERANCE = 1e-4
WAIT = 1200  # seconds; compiling is slow where machines are shared


def mesh(data, fsdp):
  return [f'--config.mesh.data={data}', f'--config.mesh.fsdp={fsdp}']


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


def test_hosts_stop_together_and_another_mesh_goes_on(inputs, tmp_path):  # noqa: F811
  """Weights lie split over both hosts, then whole on each of four devices."""
  workdir, alone = tmp_path / 'run', tmp_path / 'alone'
  flags = command('teacher', inputs, workdir)
  pair = kill_harness.start_hosts([*flags, *mesh(1, 4)], workdir)
  assert kill_harness.wait_for_line(pair[0], workdir, 5, WAIT)
  pair[1].send_signal(signal.SIGTERM)
  assert [process.wait(WAIT) for process in pair] == [0, 0]
  logs = [Path(f'{workdir}.{host}.log').read_text() for host in range(2)]
  stops = {re.search(r'stopped at step (\d+)', log)[1] for log in logs}
  assert len(stops) == 1
  log = kill_harness.finish([*flags, *mesh(4, 1)], workdir, WAIT, devices=4)
  assert f'resuming after step {stops.pop()}' in log
  kill_harness.finish(command('teacher', inputs, alone), alone, WAIT)
  off, size = difference([workdir, alone])
  assert off < TOLERANCE
  # Control: two trainings of other data differ by more than that.
  other = tmp_path / 'other'
  seeded = [*command('teacher', inputs, other), '--config.seed=1']
  kill_harness.finish(seeded, other, WAIT)
  assert difference([other, alone])[0] > 10 * TOLERANCE, size


def test_same_mesh_on_two_hosts_is_bit_for_bit(inputs, tmp_path):  # noqa: F811
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  for workdir in (whole, killed):
    flags = [*command('teacher', inputs, workdir), *mesh(1, 4)]
    if workdir == killed:
      pair = kill_harness.start_hosts(flags, workdir)
      assert kill_harness.wait_for_line(pair[0], workdir, 5, WAIT)
      pair[0].kill()
      assert pair[1].wait(WAIT) != 0
      pair[0].wait()
    pair = kill_harness.start_hosts(flags, workdir)
    assert [process.wait(WAIT) for process in pair] == [0, 0]
  assert kill_harness.differences(whole, killed) == []
