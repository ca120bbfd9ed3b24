import re
import signal
import sys
from pathlib import Path

import ended
import kill_harness
import pytest
import toy

STEPS = 40


def command(workdir, *flags):
  return [
    sys.executable,
    toy.__file__,
    f'--workdir={workdir}',
    f'--num_steps={STEPS}',
    '--delay=0.02',
    *flags,
  ]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  kill_harness.finish(command(workdir), workdir)
  return workdir


def test_killed_run_equals_undisturbed_bit_for_bit(undisturbed, tmp_path):
  workdir = tmp_path / 'run'
  met = kill_harness.run_with_kills(
    command(workdir), workdir, kills=3, num_lines=STEPS
  )
  assert met >= 2  # Otherwise nothing was tried.
  assert kill_harness.differences(undisturbed, workdir) == []
  resumed = re.findall(r'resuming after step (\d+)', _log(workdir))
  assert resumed, 'no run was resumed from a checkpoint'


def test_loop_that_forgets_its_place_in_the_data_differs(undisturbed, tmp_path):
  workdir = tmp_path / 'run'
  words = [f'--workdir={workdir}', f'--num_steps={STEPS}', '--forgetful']

  def forgetful():
    return int(toy.run(toy.arguments(words)).step != STEPS)

  ended.train(forgetful, 20)
  ended.train(forgetful)
  found = kill_harness.differences(undisturbed, workdir)
  assert f'data_crc at {STEPS}' in found
  assert any('params' in name for name in found)
  # What came before is the same, so the difference is that of the end.
  assert 'data_crc at 1' not in found


def test_sigterm_saves_once(undisturbed, tmp_path):
  workdir = tmp_path / 'run'
  process = kill_harness.start(command(workdir), workdir)
  assert kill_harness.wait_for_line(process, workdir, 12)
  process.send_signal(signal.SIGTERM)
  assert process.wait(kill_harness.WAIT) == 0
  stop = re.search(r'stopped \S*/checkpoints/(\d+)', _log(workdir))
  assert 12 <= int(stop[1]) < STEPS
  assert (workdir / 'checkpoints' / stop[1]).is_dir()
  kill_harness.finish(command(workdir), workdir)
  assert kill_harness.differences(undisturbed, workdir) == []


def test_finished_run_does_nothing_when_repeated(undisturbed):
  before = (undisturbed / 'metrics.jsonl').read_bytes()
  words = [f'--workdir={undisturbed}', f'--num_steps={STEPS}']
  assert toy.run(toy.arguments(words)).outcome == 'was finished'
  assert (undisturbed / 'metrics.jsonl').read_bytes() == before


def _log(workdir):
  return Path(f'{workdir}.log').read_text()
