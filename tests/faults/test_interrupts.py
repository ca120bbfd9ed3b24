"""^C at any moment: exit code 130, one sentence, and the same files again."""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import model_fixture
import numpy as np
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.video.write import write_video

CONFIGS = Path(__file__).parents[2] / 'configs'
SAID = 'unitemp: interrupted\n'
# Tests may run in the background, where shells have SIGINT ignored.
HEED = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)'
RUN = f'{HEED}; from unitemp_jax.cli import main; main.run()'
DATA = '--config.num_steps=4 --config.checkpoint_every=1'
# Verb -> the command; of a log of times only the end is the same.
COMMANDS = {
  'generate': 'generate --prompts=p.txt --length=9 --format=png --model=m',
  'encode': 'encode p.txt --model=m',
  'set': 'evaluate generate --suite=plain --manifest=p.txt --frames=9 '
  '--model=m',
  'train': f'train --config={CONFIGS}/tiny_vae.py:test {DATA} '
  '--config.data.dir=data',
  'video_folder': 'data video_folder --videos=A --captions=c.csv --height=16 '
  '--width=16 --num_frames=5 --fps=12',
  'convert': 'convert --model=m --to=wan',
  'compare': 'compare A B --workers=2',
  'report': 'report o',
}


def start(words, folder):
  """A process as a terminal starts it."""
  return subprocess.Popen(
    [sys.executable, '-c', RUN, *words],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(Path(cli.__file__).parents[2])},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def files(folder):
  """What was written by name, but for times."""
  logs = ('progress', 'metrics.jsonl', 'goodput.jsonl', 'checkpoints', '.html')
  return {
    path.relative_to(folder).as_posix(): (
      b'' if path.suffix == '.json' else path.read_bytes()
    )
    for path in folder.rglob('*')
    if path.is_file() and not any(name in str(path) for name in logs)
  }


def prepare(folder):
  shutil.copytree(model_fixture.random_model(), folder / 'm')
  (folder / 'p.txt').write_text('a red one\na blue two\n')
  (folder / 'c.csv').write_text('file,caption\np0-0.mp4,x\np1-0.mp4,y\n')
  for name in ('A/p0-0.mp4', 'A/p1-0.mp4', 'B/p0-0.mp4', 'B/p1-0.mp4'):
    rng = np.random.default_rng(len(name) + ord(name[3]))
    write_video(
      folder / name, rng.integers(0, 255, (33, 16, 16, 3)).astype('uint8'), 12
    )


@pytest.mark.slow
@pytest.mark.parametrize('verb', COMMANDS)
def test_ended_at_random_moments_it_ends_with_the_same_files(verb, tmp_path):
  rng = random.Random(verb)
  option = '--workdir' if verb == 'train' else '--out'
  words = shlex.split(COMMANDS[verb])
  words += [] if verb == 'report' else [f'{option}=o']
  # What is read is named by its whole path: all of it in one place.
  prepare(tmp_path)
  out, given = tmp_path / 'o', tmp_path / 'given'
  given.mkdir()
  if verb == 'report':
    ran = start([*shlex.split(COMMANDS['generate']), '--out=given'], tmp_path)
    assert ran.communicate() and ran.returncode == 0
  wholes, seconds = [], 0.0
  for _ in range(2):  # The first one compiles.
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(given, out)
    began = time.monotonic()
    ran = start(words, tmp_path)
    assert ran.communicate() and ran.returncode == 0
    seconds = time.monotonic() - began
    wholes.append(files(out))
  assert wholes[0] and wholes[0] == wholes[1]
  met = 0
  for _ in range(6):
    shutil.rmtree(out)
    shutil.copytree(given, out)
    ran = start(words, tmp_path)
    time.sleep(rng.uniform(0.5, 0.9 * max(seconds, 0.6)))
    os.killpg(ran.pid, signal.SIGINT)
    said = ran.communicate()[0]
    # At its very end Python itself has no handler any more.
    assert ran.returncode in (0, 130, -signal.SIGINT), said
    assert 'Traceback' not in said
    if ran.returncode == 130:
      met += 1
      assert said.endswith(SAID)
    ran = start(words, tmp_path)
    said = ran.communicate()[0]
    assert ran.returncode == 0, said
    assert files(out) == wholes[1]
  assert met


def test_an_interrupt_that_a_library_turns_into_an_error(monkeypatch, capsys):
  def verb(argv):
    raise ValueError('a tracer has leaked')

  monkeypatch.setattr(cli, 'find_verb', lambda name: verb)
  with pytest.raises(ValueError, match='leaked'):
    cli.main(['plan'])
  monkeypatch.setattr(cli, '_interrupts', [signal.SIGINT])
  assert cli.main(['plan']) == 130
  assert capsys.readouterr().err == SAID


def test_an_interrupted_import_ends_at_once(tmp_path):
  """A library that makes something of the exception is not asked."""
  (tmp_path / 'eager.py').write_text(
    'import os, signal\n'
    'try:\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n'
    '  sum(range(1000))\n'
    'except KeyboardInterrupt:\n'
    '  print("caught")\n'
  )
  code = (
    f'{HEED}; import sys; from unitemp_jax.cli import main; '
    'sys.path.insert(0, "."); '
    'main.VERBS["plan"] = ("eager", ""); sys.argv = ["unitemp", "plan"]; '
    'main.run()'
  )
  ran = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(Path(cli.__file__).parents[2])},
    capture_output=True,
    text=True,
  )
  assert (ran.returncode, ran.stdout, ran.stderr) == (130, '', SAID)
