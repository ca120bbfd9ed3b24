"""Kills the real command at any moment and repeats it."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from model_fixture import random_model

from unitemp_jax.video.read import read_video

ROOT = Path(__file__).parents[2]
BLOCKS = 25
FRAMES = 12 * BLOCKS - 3
# Tests may run in the background, where shells have SIGINT ignored.
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from unitemp_jax.cli import main
sys.exit(main.main(sys.argv[1:]))
"""


def command(out, seed=1):
  """A backward video of so many blocks through a window."""
  return [
    *(sys.executable, '-c', RUN, 'generate'),
    *('--prompt=a red seven falls', f'--long={FRAMES}'),
    '--direction=backward',
    *('--lossless', f'--seed={seed}', f'--model={random_model()}'),
    f'--out={out}',
  ]


@pytest.fixture(scope='module')
def environment():
  return {**os.environ, 'PYTHONPATH': str(ROOT)}


@pytest.fixture(scope='module')
def undisturbed(environment, tmp_path_factory):
  out = tmp_path_factory.mktemp('undisturbed')
  done = subprocess.run(
    command(out), env=environment, capture_output=True, text=True, check=True
  )
  last = f'{FRAMES - 12}..{FRAMES - 1}'
  assert f'first block, frames {last}, after' in done.stdout
  assert f'{BLOCKS} of {BLOCKS} blocks, 0 s left' in done.stdout
  return out


def files(out):
  """All files by name, but the seconds that a clip took."""
  found = {}
  for path in sorted(p for p in Path(out).rglob('*') if p.is_file()):
    content = path.read_bytes()
    if path.suffix == '.json':
      content = json.loads(content)
      content.pop('timings', None)
    found[path.relative_to(out).as_posix()] = content
  return found


def rows_of(out):
  return list(Path(out).rglob('row*.npz'))


def stop(environment, out, sent, rows, delay=0.0):
  """Sends a signal once so many rows exist; returns exit code and output."""
  process = subprocess.Popen(
    command(out),
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  while process.poll() is None and len(rows_of(out)) < rows:
    time.sleep(0.002)
  time.sleep(delay)
  process.send_signal(sent)
  text, _ = process.communicate()
  return process.returncode, text


def test_interrupted_and_killed_it_ends_with_the_same_files(
  environment, undisturbed, tmp_path
):
  code, text = stop(environment, tmp_path, signal.SIGINT, 3)
  assert code == 130, text
  kept = len(rows_of(tmp_path))
  assert 3 <= kept < BLOCKS
  found = re.search(rf'interrupted: (\d+) of {BLOCKS} blocks are kept in', text)
  counted = int(found[1])
  assert counted == kept
  [partial] = tmp_path.rglob('*.partial.mp4')
  shown, _ = read_video(partial)
  # The first block of the video, a sink, is made early and has 9 frames.
  assert len(shown) == 12 * counted - 3
  code, _ = stop(environment, tmp_path, signal.SIGKILL, kept + 4)
  assert code == -signal.SIGKILL
  assert kept + 4 <= len(rows_of(tmp_path)) < BLOCKS
  done = subprocess.run(
    command(tmp_path),
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'blocks were there' in done.stdout
  assert files(tmp_path) == files(undisturbed)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(
  environment, undisturbed, tmp_path
):
  rng = random.Random(0)
  met = 0
  for _ in range(8):
    rows = rng.randrange(BLOCKS + 1)
    code, _ = stop(
      environment, tmp_path, signal.SIGKILL, rows, rng.uniform(0, 0.5)
    )
    met += code == -signal.SIGKILL
    if code == 0:
      break
  assert met >= 2
  subprocess.run(command(tmp_path), env=environment, check=True)
  assert files(tmp_path) == files(undisturbed)


@pytest.mark.slow
def test_another_seed_ends_with_other_files(environment, undisturbed, tmp_path):
  """The control: the comparison can tell clips apart."""
  subprocess.run(command(tmp_path, seed=2), env=environment, check=True)
  mine, other = files(tmp_path), files(undisturbed)
  assert mine.keys() == other.keys()
  assert all(mine[name] != other[name] for name in mine)
