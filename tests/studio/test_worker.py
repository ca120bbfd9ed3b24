"""What the studio makes is what the command and Python make, bit for bit."""

import shlex

import numpy as np
import pytest
from conftest import line, piece
from model_fixture import random_model
from starlette.testclient import TestClient

from unitemp_jax.cli import main as cli
from unitemp_jax.studio import estimate, server
from unitemp_jax.studio.timeline import Timeline
from unitemp_jax.studio.worker import Worker
from unitemp_jax.video.read import read_video

URL = 'http://127.0.0.1:8400'


class Killed(BaseException):
  """Stands for SIGKILL: nothing is caught or noted."""


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
  out = tmp_path_factory.mktemp('studio')
  return server.Studio(out, random_model())


@pytest.fixture(scope='module')
def project(studio):
  return studio.listed()[0]


def make(studio, project, value, stop=None):
  """Queues a version and makes it, until the worker says `stop`."""
  name = project.queue(Timeline.read(value))
  go_on(studio, stop)
  return project.versions()[name]


def go_on(studio, stop=None):
  def watch(run, said):
    if stop and stop in said:
      raise Killed
    Worker._say(studio.worker, run, said)

  studio.worker._say = watch
  studio.worker._make(*studio.worker._next())


def frames(path):
  return read_video(path)[0]


@pytest.fixture(scope='module')
def first(studio, project):
  """A version in the first project."""
  return make(studio, project, line(length=45, order='future'))


JOINT = pytest.param('joint', marks=pytest.mark.slow)


@pytest.mark.parametrize('decode', [JOINT, 'lag'])
def test_command_and_python_make_the_same_frames(
  studio, project, first, decode, tmp_path
):
  pieces = [piece(first.name, 0, 0, 12), piece(first.name, 32, 20, 20)]
  value = line(length=33, pieces=pieces, seed=3, decode=decode)
  version = make(studio, project, value)
  assert version.state == 'done'
  made = frames(version.frames_file)
  given = frames(first.frames_file)
  np.testing.assert_array_equal(made[:13], given[:13])
  np.testing.assert_array_equal(made[32], given[20])
  command = project.about(version)['command']
  words = shlex.split(command)[2:]
  moved = [w for w in words if not w.startswith('--out=')]
  assert cli.main(['generate', *moved, f'--out={tmp_path}']) == 0
  [clip] = tmp_path.rglob('*.mkv')
  assert clip.read_bytes() == version.frames_file.read_bytes()
  scope = {}
  call, _ = project.remade(version)
  exec(call.script(str(studio.home), decode), scope)
  np.testing.assert_array_equal(scope['video'], made)
  # Negative control: another seed makes other frames.
  other = make(studio, project, value | {'seed': 4})
  assert (frames(other.frames_file) != made).any()


def test_a_killed_version_goes_on_and_is_the_same(studio, project, first):
  with pytest.raises(Killed):
    make(studio, project, line(length=45, order='future'), '2 of')
  name = max(project.versions())
  assert project.versions()[name].state == 'running'
  rows = len(list((project.folder / name).rglob('row*.npz')))
  assert 0 < rows < 4
  again = server.Studio(studio.out, random_model())
  again.worker._pipeline = studio.worker._pipeline
  said = []
  again.worker._say = lambda run, line: said.append(line)
  again.worker._make(*again.worker._next())
  assert any(f'{rows} of 4 blocks were there' in text for text in said)
  version = project.versions()[name]
  assert version.state == 'done'
  assert version.frames_file.read_bytes() == first.frames_file.read_bytes()


def test_a_cancelled_version_keeps_its_blocks(studio, project, first):
  name = project.queue(Timeline.read(line(length=45, order='future')))
  worker = studio.worker

  def cancel(run, said):
    if '2 of' in said:
      worker.cancel(project, name)
    Worker._say(worker, run, said)

  worker._say = cancel
  worker._make(*worker._next())
  version = project.versions()[name]
  assert version.state == 'cancelled'
  assert project.about(version)['partial']
  worker.resume(project, name)
  shown = []
  worker._show = lambda run, *what: shown.append(what)
  go_on(studio)
  del worker._show
  # Backward, a block is seen at once, and again when its past is there.
  frames = [range(a, a + len(block)) for a, block, _ in shown]
  assert set().union(*frames) == set(range(45))
  for k, (_, _, refines) in enumerate(shown):
    assert refines == any(set(frames[k]) & set(one) for one in frames[:k])
  assert any(refines for *_, refines in shown)
  version = project.versions()[name]
  assert version.state == 'done'
  assert version.frames_file.read_bytes() == first.frames_file.read_bytes()
  assert not version.clip.with_suffix('.partial.mp4').exists()


def test_the_command_line_goes_on_where_the_studio_stopped(
  studio, project, first
):
  name = project.queue(Timeline.read(line(length=45, order='future')))
  with pytest.raises(Killed):
    go_on(studio, '2 of')
  project.note(name, state='cancelled')
  words = shlex.split(project.about(project.versions()[name])['command'])
  assert cli.main(words[1:]) == 0
  version = project.versions()[name]
  assert version.state == 'done'
  assert version.frames_file.read_bytes() == first.frames_file.read_bytes()


def test_the_studio_continues_a_clip_of_the_command_line(studio, project):
  words = ['--prompt=a red seven falls', '--long=45', '--direction=backward']
  words += [f'--model={studio.home}', f'--out={project.folder}']
  assert cli.main(['generate', *words]) == 0
  [name] = [name for name in project.versions() if name.startswith('long:')]
  about = project.about(project.versions()[name])
  assert about['state'] == 'done' and len(about['frame_difference']) == 44
  value = line(length=57, pieces=[piece(name, 0, 0, 44)])
  found = estimate.plan(project, Timeline.read(value))
  assert found['seconds'] > 0 and found['blocks'][-1][2] is False
  assert project.queue(Timeline.read(value)) in project.versions()


@pytest.mark.parametrize('kind', ['mp4', 'gif', 'webm', 'last', 'strip'])
def test_downloads(studio, project, first, kind):
  client = TestClient(server.make_app(studio, '127.0.0.1', None), URL)
  path = f'/api/{project.name}/versions/{first.name}/{kind}'
  sent = client.get(path, params={'save': ''})
  assert len(sent.content) > 50
  assert f'first-{first.name}' in sent.headers['content-disposition']
