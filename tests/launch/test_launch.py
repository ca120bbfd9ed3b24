"""The launch scripts: executable, well-formed, safe to run twice."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = [
  'launch/device_check.sh',
  'launch/evaluation_set.sh',
  'launch/quickstart.sh',
  'launch/studio.sh',
  'launch/test.sh',
  'launch/tpu_worker.sh',
  'launch/train_tiny.sh',
  'launch/workflows.sh',
  '.ci/run',
  '.ci/parity',
]
SOURCED = 'launch/environment.sh'

pytestmark = pytest.mark.skipif(
  shutil.which('bash') is None, reason='needs bash'
)


def bash(script, cwd=ROOT, **env):
  return subprocess.run(
    ['bash', '-c', script],
    cwd=cwd,
    env={**os.environ, **env},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize('name', SCRIPTS)
def test_script_is_executable(name):
  assert os.access(ROOT / name, os.X_OK)
  assert (ROOT / name).read_text().startswith('#!/usr/bin/env bash\n')


@pytest.mark.parametrize('name', [*SCRIPTS, SOURCED])
def test_script_parses(name):
  assert bash(f'bash -n {name}').returncode == 0
  # Negative control: bash -n does see an unfinished script.
  assert bash(f'(cat {name}; echo "if true") | bash -n').returncode != 0


@pytest.mark.parametrize('name', [*SCRIPTS, SOURCED])
def test_shellcheck_is_clean(name):
  if shutil.which('shellcheck') is None:
    pytest.skip('needs shellcheck')
  done = bash(f'shellcheck -x {name}')
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
  'name', [name for name in SCRIPTS if name.startswith('launch/')]
)
def test_help_prints_and_makes_nothing(name, tmp_path):
  venv = tmp_path / 'venv'
  done = bash(f'{name} --help', UNITEMP_VENV=str(venv))
  assert done.returncode == 0 and done.stdout and not done.stderr
  assert not venv.exists()


def test_unknown_argument_stops_before_anything_is_made(tmp_path):
  venv = tmp_path / 'venv'
  done = bash('launch/quickstart.sh --gpu', UNITEMP_VENV=str(venv))
  assert done.returncode == 2
  assert "unknown argument '--gpu'" in done.stderr
  assert not venv.exists()


def test_old_python_is_named_in_one_sentence(tmp_path):
  old = tmp_path / 'python3'
  old.write_text('#!/bin/sh\nexit 1\n')
  old.chmod(0o755)
  venv = tmp_path / 'venv'
  done = bash(
    'launch/quickstart.sh', UNITEMP_VENV=str(venv), UNITEMP_PYTHON=str(old)
  )
  assert done.returncode == 2
  assert 'is no Python 3.11 or newer' in done.stderr
  assert not venv.exists()


@pytest.fixture
def sandbox(tmp_path):
  """A copy of the scripts, and an environment whose Python only takes notes."""
  shutil.copytree(ROOT / 'launch', tmp_path / 'launch')
  (tmp_path / 'setup.py').write_text('one')
  binaries = tmp_path / '.venv' / 'bin'
  binaries.mkdir(parents=True)
  fakes = {
    'python': 'case "$*" in *install*) echo "$*" >>log;; esac',
    'unitemp': 'echo "unitemp $* platform=$JAX_PLATFORMS" >>log',
  }
  for name, body in fakes.items():
    (binaries / name).write_text(f'#!/bin/sh\n{body}\n')
    (binaries / name).chmod(0o755)
  return tmp_path


def read_log(folder):
  lines = (folder / 'log').read_text().splitlines()
  (folder / 'log').unlink()
  return lines


def test_second_run_installs_nothing(sandbox):
  for installs in (1, 0):
    done = bash('launch/quickstart.sh', cwd=sandbox, UNITEMP_PROMPTS='3')
    assert done.returncode == 0, done.stderr
    log = read_log(sandbox)
    assert sum('pip install' in line for line in log) == installs
    assert log[-2].startswith('unitemp generate --orders=all --num_prompts=3')
    assert log[-1].startswith('unitemp report out/quickstart platform=cpu')


def test_paths_are_relative_to_where_a_script_was_called(sandbox):
  (sandbox / 'else').mkdir()
  script = f'cd else && {sandbox}/launch/quickstart.sh'
  for out, where in (
    ('mine', f'{sandbox}/else/mine'),
    ('/tmp/x', '/tmp/x'),
    ('', 'out/quickstart'),
  ):
    done = bash(script, cwd=sandbox, UNITEMP_OUT=out)
    assert done.returncode == 0, done.stderr
    assert read_log(sandbox)[-1].startswith(f'unitemp report {where} platform')
  done = bash(
    f'cd else && {sandbox}/launch/evaluation_set.sh --markdown=no/a.md',
    cwd=sandbox,
  )
  assert done.returncode == 2
  assert f'there is no folder {sandbox}/else/no.' in done.stderr


@pytest.mark.parametrize('number', ['abc', '0', '-1', '1e3'])
def test_a_number_of_prompts_is_one(sandbox, number):
  script = 'launch/evaluation_set.sh'
  done = bash(script, cwd=sandbox, UNITEMP_PROMPTS=number)
  assert done.returncode == 2
  assert f'UNITEMP_PROMPTS={number} is no whole number' in done.stderr
  assert not (sandbox / 'out').exists()


def test_changed_setup_installs_again(sandbox):
  """Negative control of the stamp: it is not merely 'a file exists'."""
  bash('launch/quickstart.sh', cwd=sandbox)
  read_log(sandbox)
  (sandbox / 'setup.py').write_text('two')
  bash('launch/quickstart.sh', cwd=sandbox)
  assert any('pip install' in line for line in read_log(sandbox))


def test_accelerator_keeps_its_platform(sandbox):
  script = 'unset JAX_PLATFORMS; launch/quickstart.sh --accelerator=cuda'
  assert bash(script, cwd=sandbox).returncode == 0
  log = read_log(sandbox)
  assert any('.[cuda]' in line for line in log)
  assert log[-1].endswith('platform=')


def test_failed_install_is_tried_again(sandbox):
  python = sandbox / '.venv' / 'bin' / 'python'
  good = python.read_text()
  python.write_text(
    '#!/bin/sh\ncase "$*" in *install*) echo no network >&2; exit 1;; esac\n'
  )
  done = bash('launch/quickstart.sh', cwd=sandbox)
  assert done.returncode == 2
  assert 'no network' in done.stderr
  assert 'could not be installed' in done.stderr
  assert not (sandbox / 'log').exists()
  python.write_text(good)
  assert bash('launch/quickstart.sh', cwd=sandbox).returncode == 0
  assert any('pip install' in line for line in read_log(sandbox))


def test_setup_reads_the_version_of_the_package():
  import unitemp_jax

  done = subprocess.run(
    [sys.executable, 'setup.py', '--version'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.stdout.split()[-1:] == [unitemp_jax.__version__], done.stderr


def test_device_check_goes_on_where_it_stopped(sandbox):
  out = sandbox / 'out' / 'device_check'
  out.mkdir(parents=True)
  (out / 'forward.json').write_text('{}')
  done = bash('launch/device_check.sh', cwd=sandbox)
  assert done.returncode == 0, done.stderr
  log = [line for line in read_log(sandbox) if line.startswith('unitemp')]
  parts = [line.split()[3] for line in log]
  assert parts == ['about', 'attention', 'backward', 'stream', 'train'] + [
    'baselines',
    'table',
  ]
  assert all('platform=cpu' in line for line in log)
  done = bash('launch/device_check.sh', cwd=sandbox, DEVICE_CHECK_LIMIT='0')
  assert 'about is left for another run' in done.stderr
  assert len(read_log(sandbox)) == 1  # The table alone.


@pytest.mark.parametrize(('code', 'last'), [(143, 'train'), (0, 'export')])
def test_no_stage_follows_one_that_was_stopped(sandbox, code, last):
  """Control: a stage that finished is followed, up to the export."""
  with (sandbox / '.venv/bin/unitemp').open('a') as file:
    file.write(f'case "$*" in train*) exit {code};; esac\n')
  assert bash('launch/train_tiny.sh', cwd=sandbox).returncode == code
  assert read_log(sandbox)[-1].split()[1] == last
