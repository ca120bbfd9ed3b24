"""Two processes train together, and stop together when one is told to."""

import json
import re
import signal
import socket
import sys
from pathlib import Path

import kill_harness
import numpy as np
import pytest

TOY = Path(__file__).with_name('toy.py')


def start_pair(workdir, steps):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [
    kill_harness.start(
      [
        sys.executable,
        str(TOY),
        f'--workdir={workdir}',
        f'--num_steps={steps}',
        '--delay=0.05',
        '--processes=2',
        f'--process={index}',
        f'--port={port}',
      ],
      f'{workdir}.{index}' if index else workdir,
    )
    for index in range(2)
  ]


def losses(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line)['critic_loss'] for line in text.splitlines()]


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_and_resumes(tmp_path):
  workdir = tmp_path / 'run'
  pair = start_pair(workdir, 40)
  assert kill_harness.wait_for_line(pair[0], workdir, 7)
  pair[1].send_signal(signal.SIGTERM)
  assert [process.wait(60) for process in pair] == [0, 0]
  logs = [Path(f'{workdir}{end}.log').read_text() for end in ('', '.1')]
  stops = [re.search(r'stopped \S*/(\d+)', log)[1] for log in logs]
  assert stops[0] == stops[1]
  assert 7 <= int(stops[0]) < 40
  assert [process.wait(60) for process in start_pair(workdir, 40)] == [0, 0]
  # The same training in one process, which also continues that of two.
  alone = tmp_path / 'alone'
  command = [sys.executable, str(TOY), f'--workdir={alone}']
  kill_harness.finish([*command, '--num_steps=40'], alone)
  np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-3)
  command[2] = f'--workdir={workdir}'
  log = kill_harness.finish([*command, '--num_steps=42'], workdir)
  assert 'resuming after step 40' in log
