"""Processes that are killed leave a set that others complete, bit for bit."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import fake_worker
import pytest
import readers
from fake_worker import files
from model_fixture import random_model
from prompt_lists import vbench_records, write_json

from unitemp_jax.evaluation_sets import clips, manifests, store, verify
from unitemp_jax.evaluation_sets.clips import SUITES

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 600  # seconds that anything may take on a busy machine


def start(command, cache=None):
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  env.pop('XLA_FLAGS', None)
  if cache is not None:
    env['JAX_COMPILATION_CACHE_DIR'] = str(cache)
    env['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  return subprocess.Popen(
    command,
    env=env,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def records(out):
  return len(list(out.glob('records/**/*.json')))


def kill_later(process, out, goal, pause):
  """Kills it when so many clips are finished, or a moment later."""
  end = time.monotonic() + LIMIT
  while records(out) < goal and process.poll() is None:
    assert time.monotonic() < end, 'nothing happens'
    time.sleep(0.005)
  time.sleep(pause)
  met = process.poll() is None
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return met


def finish(process):
  output, _ = process.communicate(timeout=LIMIT)
  assert process.returncode == 0, output
  return output


def run_with_kills(command, out, total, kills, seed=0, cache=None):
  """Two shards side by side, killed at random; returns kills that met one.

  Args:
    command: (shard) -> arguments of a process.
    out: the set.
    total: clips of the set.
    kills: how often.
    seed: of the moments.
    cache: folder of compiled programs.
  """
  rng = random.Random(seed)
  goals = sorted(rng.sample(range(1, total - 4), kills))
  running = {shard: start(command(shard), cache) for shard in ('0/2', '1/2')}
  met = 0
  for goal in goals:
    shard = rng.choice(list(running))
    met += kill_later(running[shard], out, goal, rng.uniform(0, 0.05))
    running[shard] = start(command(shard), cache)
  for process in running.values():
    finish(process)
  return met


def test_two_killed_shards_end_with_the_same_files(tmp_path):
  whole, out = tmp_path / 'whole', tmp_path / 'killed'
  assert fake_worker.work(whole) == 24
  script = [sys.executable, str(HERE / 'fake_worker.py'), str(out)]
  met = run_with_kills(lambda shard: [*script, shard], out, 24, kills=1)
  assert met == 1, 'the kill came too late to matter'
  assert files(out) == files(whole)
  assert verify.verify_set(out) == (24, [])
  seen = store.read_status(out)
  assert seen.missing == 0
  assert [worker.state for worker in seen.workers] == ['finished'] * 2
  # Negative control: the comparison sees one bit.
  path = next(iter((out / 'records' / 'forward').iterdir()))
  path.write_text(path.read_text().replace('"seed": ', '"seed": 1'))
  assert files(out) != files(whole)


@pytest.mark.slow
def test_a_vbench_set_is_made_and_found(tmp_path):
  """From three shards; test_suites.py resolves all 6,220 names."""
  info = vbench_records()[::10]
  manifest = write_json(tmp_path / 'info.json', info)
  prompts, _ = clips.arrange(SUITES['vbench'], manifests.read(manifest))
  listed = [
    dataclasses.replace(clip, key=str(clip.seed))
    for clip in clips.list_clips(SUITES['vbench'], prompts, ['forward'])
  ]
  out = tmp_path / 'out'
  for i in range(3):
    fake_worker.work(out, (i, 3), listed, fake_worker.FakeMaker(64))
  assert verify.verify_set(out) == (len(listed), [])
  found, missing = readers.read_vbench(out / 'videos' / 'forward', info)
  assert not missing and sum(map(len, found.values())) == 5 * len(info)
  static = readers.filter_static(out / 'videos' / 'forward', info)
  assert {len(paths) for paths in static.values()} == {25}


@pytest.fixture(scope='module')
def command(tmp_path_factory):
  """(folder, more arguments) -> the command that makes 12 clips."""
  manifest = tmp_path_factory.mktemp('prompts') / 'prompts.txt'
  manifest.write_text('a red seven falls\na blue one bounces\na green two.\n')

  def arguments(out, *more):
    return [
      *(sys.executable, '-m', 'unitemp_jax.cli.main', 'evaluate', 'generate'),
      *('--suite=vbench', f'--manifest={manifest}', '--order=forward,backward'),
      *(f'--model={random_model()}', '--batch_size=2', '--samples=2'),
      *(f'--out={out}', *more),
    ]

  return arguments


@pytest.fixture(scope='module')
def whole(command, tmp_path_factory):
  """The set that one process makes, and a folder of compiled programs."""
  folder = tmp_path_factory.mktemp('whole')
  finish(start(command(folder / 'set'), folder / 'cache'))
  return folder / 'set', folder / 'cache'


@pytest.mark.slow
def test_kills_of_the_command(command, whole, tmp_path):
  """The same with a model, from two shards, by the command line."""
  out = tmp_path / 'killed'
  met = run_with_kills(
    lambda shard: command(out, f'--shard={shard}'),
    *(out, 12, 2),
    cache=whole[1],
  )
  assert met >= 1
  assert files(out) == files(whole[0])
  assert verify.verify_set(out) == (12, [])
  line = json.loads((out / 'clips.jsonl').read_text().splitlines()[0])
  assert line['video'] == 'videos/forward/a red seven falls-0.mp4'


@pytest.mark.slow
def test_processes_that_jax_joins_share_the_work(command, whole, tmp_path):
  """Each makes its part on its own device, and the set is the same."""
  out = tmp_path / 'both'
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'--coordinator=localhost:{free.getsockname()[1]}'
  both = [
    start(command(out, '--hosts=2', address, f'--host_index={i}'), whole[1])
    for i in range(2)
  ]
  for process in both:
    assert 'made 6, 0 were there' in finish(process)
  assert files(out) == files(whole[0])
