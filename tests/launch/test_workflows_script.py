"""launch/workflows.sh: the page holds the very commands that were run."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = 'unitemp_jax/assets/readme/README.md'

pytestmark = pytest.mark.skipif(
  shutil.which('bash') is None, reason='needs bash'
)


@pytest.fixture
def sandbox(tmp_path):
  """A copy of the scripts, and an environment whose programs take notes."""
  shutil.copytree(ROOT / 'launch', tmp_path / 'launch')
  (tmp_path / 'setup.py').write_text('one')
  (tmp_path / 'hash').write_text('hash')
  binaries = tmp_path / '.venv' / 'bin'
  binaries.mkdir(parents=True)
  fakes = {
    'python': (
      'case "$*" in *" given "*) mkdir -p "$3"; echo clip >"$3/clip.mp4"; '
      'cat hash;; *" picture "*) echo "$3 $4" >>pictures;; esac'
    ),
    'unitemp': 'for a in "$@"; do echo "$a"; done >>log; echo >>log',
  }
  for name, body in fakes.items():
    (binaries / name).write_text(f'#!/bin/sh\n{body}\n')
    (binaries / name).chmod(0o755)
  return tmp_path


def run(folder):
  """Returns the arguments of every call of unitemp, one list for each."""
  (folder / 'log').unlink(missing_ok=True)
  done = subprocess.run(
    ['bash', 'launch/workflows.sh'],
    cwd=folder,
    env={**os.environ, 'UNITEMP_VENV': '.venv'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == PAGE
  calls = (folder / 'log').read_text().strip().split('\n\n')
  return [call.splitlines() for call in calls]


def test_the_page_holds_what_was_run(sandbox):
  calls = run(sandbox)
  blocks = (sandbox / PAGE).read_text().split('\n## ')[1:]
  assert len(calls) == len(blocks) >= 10
  pictures = (sandbox / 'pictures').read_text().splitlines()
  for call, block, picture in zip(calls, blocks, pictures, strict=True):
    command = re.search('```bash\n(.*)\n```', block)[1]
    assert command.startswith('unitemp generate ')
    # A shell reads the command of the page as what was run, but for places.
    words = subprocess.run(
      ['bash', '-c', f'for a in {command}; do echo "$a"; done'],
      capture_output=True,
      text=True,
    ).stdout.splitlines()[1:]
    ours = [word.replace('out/workflows/given/', '') for word in call]
    assert [w for w in words if not w.startswith('--out')] == [
      w for w in ours if not w.startswith(('--out', '--model'))
    ]
    assert f'({pathlib.Path(picture.split()[1]).name})' in block
    assert f'--out={picture.split()[0]}' in call


def test_folders_follow_the_command_and_the_model(sandbox):
  first = run(sandbox)
  assert run(sandbox) == first
  # Negative control: another model, or other given clips, are other folders.
  (sandbox / 'hash').write_text('another')
  second = run(sandbox)
  for one, other in zip(first, second, strict=True):
    assert one[:-1] == other[:-1] and one[-1] != other[-1]


def test_files_that_the_page_names_are_those_that_are_given():
  script = (ROOT / 'launch' / 'workflows.sh').read_text()
  helper = (ROOT / 'launch' / 'workflow_pictures.py').read_text()
  named = set(re.findall(r'[= :]([a-z]+\.(?:png|mp4))', script))
  assert named and all(f"'{name}'" in helper for name in named)
