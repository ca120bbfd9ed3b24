"""Kills a training at random moments and compares it with an undisturbed one.

Works on any command that trains in a workdir in the loop's layout:
`checkpoints/<step>/` and `metrics.jsonl`.
"""

import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

ROOT = Path(__file__).parents[2]
# Fields of metrics that differ between two equal runs.
TIME_FIELDS = ('seconds', 'steps_per_second')
WAIT = 1200  # seconds; compiling is slow where machines are shared


def _environment(devices):
  # So many devices, whatever the test process itself was given.
  return dict(
    os.environ,
    JAX_PLATFORMS='cpu',
    PYTHONPATH=str(ROOT),
    XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
  )


def start(command, workdir, devices=1):
  """Starts the command; its output is appended to `workdir`.log."""
  with Path(f'{workdir}.log').open('a') as log:
    return subprocess.Popen(
      command, cwd=ROOT, env=_environment(devices), stdout=log, stderr=log
    )


def start_hosts(command, workdir, hosts=2, devices=2):
  """Starts the command once per host; host I logs to `workdir`.I.log."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  flags = [f'--hosts={hosts}', f'--coordinator=127.0.0.1:{port}']
  return [
    start([*command, *flags, f'--host_index={i}'], f'{workdir}.{i}', devices)
    for i in range(hosts)
  ]


def finish(command, workdir, timeout=WAIT, devices=1):
  """Runs the command to its end, which must be a success."""
  code = start(command, workdir, devices).wait(timeout)
  log = Path(f'{workdir}.log').read_text()
  assert code == 0, f'exit code {code}:\n{log[-3000:]}'
  return log


def wait_for_line(process, workdir, line, timeout=WAIT):
  """Returns once the metrics have `line` lines, False if the run ended."""
  deadline = time.monotonic() + timeout
  while process.poll() is None:
    assert time.monotonic() < deadline, f'no line {line} in {workdir}'
    path = Path(workdir) / 'metrics.jsonl'
    if path.exists() and path.read_bytes().count(b'\n') >= line:
      return True
    time.sleep(0.002)
  return False


def run_with_kills(command, workdir, *, kills, num_lines, seed=0):
  """Kills the command with SIGKILL `kills` times, then lets it finish.

  Args:
    command: list of arguments; the same each time.
    workdir: the folder that it trains in.
    kills: how often; each at a random line of the metrics that lies ahead, and
      a random moment after it, so that saving is hit as well as computing.
    num_lines: number of lines of an undisturbed run's metrics.
    seed: of the moments.

  Returns:
    How many of the kills met a living process.
  """
  rng = random.Random(seed)
  marks = sorted(rng.sample(range(1, num_lines), kills))
  met = 0
  for mark in marks:
    process = start(command, workdir)
    if wait_for_line(process, workdir, mark):
      time.sleep(rng.uniform(0.0, 0.1))
    met += process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
  finish(command, workdir)
  return met


def read_run(workdir):
  """Returns (metrics lines without times, stored state, host state)."""
  workdir = Path(workdir).absolute()
  lines = []
  for text in (workdir / 'metrics.jsonl').read_text().splitlines():
    line = json.loads(text)
    lines.append({k: v for k, v in line.items() if k not in TIME_FIELDS})
  checkpoints = workdir / 'checkpoints'
  newest = max(
    (p for p in checkpoints.iterdir() if p.name.isdigit()), key=_step
  )
  host = json.loads((newest / 'host' / 'metadata').read_text())
  return lines, _read_state(newest / 'state'), host


def _step(path):
  return int(path.name)


def _read_state(folder):
  """Returns the arrays of a checkpoint, saved by any number of processes."""
  handler = ocp.PyTreeCheckpointHandler()
  folder = epath.Path(folder)
  as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
  tree = handler.metadata(folder).tree
  return handler.restore(
    folder,
    args=ocp.args.PyTreeRestore(
      restore_args=jax.tree.map(lambda _: as_numpy, tree)
    ),
  )


def differences(first, second):
  """Names what differs between two runs, bit for bit; empty if nothing does.

  Compares parameters, optimizers, means and keys of the last checkpoint, every
  line of metrics (with the checksum of the data), and the place in the data.
  """
  lines_1, state_1, host_1 = read_run(first)
  lines_2, state_2, host_2 = read_run(second)
  found = [] if host_1 == host_2 else ['host state']
  if len(lines_1) != len(lines_2):
    found.append('number of lines')
  for one, two in zip(lines_1, lines_2, strict=False):
    found += [f'{k} at {one["step"]}' for k in one if one[k] != two.get(k)]
  flat_1, flat_2 = _flatten(state_1), _flatten(state_2)
  assert len(flat_1) > 2, 'the checkpoint is empty'
  for name in flat_1.keys() | flat_2.keys():
    one, two = (np.asarray(flat.get(name)) for flat in (flat_1, flat_2))
    if one.dtype != two.dtype or one.tobytes() != two.tobytes():
      found.append(name)
  return found


def _flatten(tree, prefix=''):
  if not isinstance(tree, dict):
    return {prefix: tree}
  flat = {}
  for name, value in tree.items():
    flat |= _flatten(value, f'{prefix}/{name}')
  return flat


def wait_for_write(process, workdir, timeout=WAIT):
  """Returns while a checkpoint is being written; it has no final name yet."""
  deadline = time.monotonic() + timeout
  folder = Path(workdir) / 'checkpoints'
  while not any(folder.glob('*tmp*')):
    assert time.monotonic() < deadline and process.poll() is None


def time_kinds(workdir):
  """Returns the kinds of time in the goodput log of a run."""
  lines = (Path(workdir) / 'goodput.jsonl').read_text().splitlines()
  return {kind for line in lines for kind in json.loads(line)['seconds']}
