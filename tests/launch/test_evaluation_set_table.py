"""launch/evaluation_set.sh: its steps, and the table it ends with."""

import json
import os
import pathlib
import runpy
import shutil
import subprocess

import pytest

from unitemp_jax.evaluation.metrics import readme
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import ResultTable, result
from unitemp_jax.evaluation_sets import progress

ROOT = pathlib.Path(__file__).parent.parent.parent
TABLE = runpy.run_path(str(ROOT / 'launch' / 'evaluation_set_table.py'))


@pytest.fixture
def folder(tmp_path):
  """What the script leaves: a set of 40 clips, made in two attempts."""
  journal = tmp_path / 'set' / 'progress' / '0-of-1.jsonl'
  journal.parent.mkdir(parents=True)
  lines = [
    {'event': 'start', 'time': 100.0, 'clips': 40},
    {'event': 'batch', 'time': 130.0, 'clips': 20, 'seconds': 30},
    # Killed; somebody starts it again an hour later.
    {'event': 'start', 'time': 3700.0, 'clips': 20},
    {'event': 'batch', 'time': 3730.0, 'clips': 20, 'seconds': 30},
    {'event': 'end', 'time': 3730.0},
  ]
  journal.write_text('\n'.join(map(json.dumps, lines)))
  settings = {'clips': 40, 'prompts': 20, 'orders': ['a', 'b'], 'frames': 33}
  settings['model'] = '0123'
  (tmp_path / 'set' / 'set.json').write_text(json.dumps(settings))
  steps = [
    *('begin\tgenerate\t20', 'begin\tgenerate\t20', 'end\tgenerate\t20\t70'),
    *('begin\tverify\t20', 'end\tverify\t20\t9'),
    # Run again later: there was little left to do.
    *('begin\tgenerate\t20', 'end\tgenerate\t20\t2', 'begin\tgenerate\t256'),
  ]
  (tmp_path / 'steps.tsv').write_text('\n'.join(steps) + '\n')
  rows = [
    result(name, 'a', Interval(0.5, 0.4, 0.6, 20), unit='ratio', how='')
    for name in ('BFR', 'what nobody asked for')
  ]
  (tmp_path / 'measured').mkdir()
  ResultTable(tuple(rows)).to_json(tmp_path / 'measured' / 'metrics.json')
  return tmp_path


def test_clips_per_minute_are_of_the_time_somebody_worked(folder):
  effort = progress.read_effort(folder / 'set')
  assert (effort.clips, effort.seconds) == (40, 60.0)
  assert str(effort) == '40 clips in 60 s, 40.0 per minute'
  # Two shards at the same time take no longer than one.
  lines = (folder / 'set/progress/0-of-1.jsonl').read_text()
  (folder / 'set/progress/1-of-2.jsonl').write_text(lines)
  effort = progress.read_effort(folder / 'set')
  assert (effort.clips, effort.seconds) == (80, 60.0)
  assert progress.read_effort(folder / 'measured') is None


def test_the_table_states_times_and_stands_in_the_readme(folder, capsys):
  begin, end = readme.marks(TABLE['MARK'])
  path = folder / 'README.md'
  path.write_text(f'top\n{begin}\nold\n{end}\nbottom\n')
  TABLE['main']([str(folder), '20', str(path)])
  text = path.read_text()
  assert '40 clips (20 prompts in 2 orders, 33 frames each)' in text
  assert '79 s in all. Generation: 40 clips in 60 s, 40.0 per minute' in text
  assert '| generate | 70 s (the last of 2 attempts) |' in text
  assert '| verify | 9 s |' in text
  assert '| a | 0.50 [0.40 0.60] |' in text and 'nobody asked' not in text
  assert 'old' not in text and text.startswith('top\n')
  assert (folder / 'table.md').read_text() in capsys.readouterr().out


@pytest.fixture
def sandbox(tmp_path):
  """A copy of the scripts, and programs that only take notes."""
  shutil.copytree(ROOT / 'launch', tmp_path / 'launch')
  (tmp_path / 'setup.py').write_text('one')
  binaries = tmp_path / '.venv' / 'bin'
  binaries.mkdir(parents=True)
  body = {
    'python': 'case "$*" in launch*) echo "$*" >>log;; esac',
    'unitemp': (
      'echo "$*" >>log\n'
      'case "$*" in\n'
      '*verify*) [ ! -e broken ] || { rm broken; exit 1; };;\n'
      '*folder*) mkdir -p out/evaluation_set/measured out/evaluation_set/set\n'
      'echo {} >out/evaluation_set/measured/metrics.json;;\n'
      'esac'
    ),
  }
  for name, text in body.items():
    (binaries / name).write_text(f'#!/bin/sh\n{text}\n')
    (binaries / name).chmod(0o755)
  return tmp_path


def run(folder, *arguments):
  (folder / 'log').unlink(missing_ok=True)
  done = subprocess.run(
    ['bash', 'launch/evaluation_set.sh', *arguments],
    cwd=folder,
    env={**os.environ, 'UNITEMP_VENV': '.venv', 'UNITEMP_PROMPTS': '8'},
    capture_output=True,
    text=True,
  )
  log = folder / 'log'
  return done, log.read_text().splitlines() if log.exists() else []


def test_every_step_is_run_in_turn(sandbox):
  (sandbox / 'README.md').touch()
  done, log = run(sandbox, '--readme=README.md')
  assert done.returncode == 0, done.stderr
  words = [line.split()[1] for line in log]
  out = 'out/evaluation_set'
  steps = ['generate', 'verify', 'folder']
  assert words == [f'{out}/real', *steps, f'{out}/set', out]
  assert log[-1].endswith(f'{out} 8 README.md')
  steps = (sandbox / out / 'steps.tsv').read_text().splitlines()
  assert [line.split('\t')[0] for line in steps] == ['begin', 'end'] * 5


def test_damaged_clips_are_made_again_once(sandbox):
  (sandbox / 'broken').touch()
  done, log = run(sandbox)
  assert done.returncode == 0, done.stderr
  words = [line.split()[1] for line in log]
  assert words[1:5] == ['generate', 'verify', 'generate', 'verify']


def test_a_readme_that_is_not_there_stops_before_anything(sandbox):
  done, log = run(sandbox, '--readme=NONE.md')
  assert done.returncode == 2 and 'no file NONE.md' in done.stderr
  assert log == [] and not (sandbox / 'out').exists()
