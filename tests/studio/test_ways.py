"""Each timeline is what a person would ask the command line for."""

import dataclasses

import numpy as np
import pytest
from conftest import line, piece

import unitemp_jax
from unitemp_jax.cli import generate
from unitemp_jax.errors import UserError
from unitemp_jax.generate.workflows import Model
from unitemp_jax.studio import given
from unitemp_jax.studio import project as projects
from unitemp_jax.studio.timeline import Piece, Source, Timeline
from unitemp_jax.video.read import read_image
from unitemp_jax.video.write import write_image, write_video

WHOLE = ('clip', 0, 0, 32)
TWO = [
  {'at': 0, 'text': 'a red seven falls', 'link': False},
  {'at': 13, 'text': 'a blue two bounces', 'link': False},
]

SCENES = [TWO[0], TWO[1] | {'at': 25, 'link': True}, TWO[1] | {'at': 37}]


@pytest.fixture
def project(studio, tmp_path):
  found = studio.listed()[0]
  clip = np.random.default_rng(0).integers(0, 255, (33, 32, 32, 3), np.uint8)
  write_video(tmp_path / 'clip.mp4', clip, 12)
  write_image(tmp_path / 'picture.png', clip[0])
  for name in ('clip.mp4', 'picture.png'):
    source = found.give(tmp_path / name, name)
    setattr(found, name[:-4], source)
  return found


def test_a_piece_is_of_the_file_that_is_there(project, tmp_path):
  """Not of one that had its name before: a version that was deleted."""
  path, made = tmp_path / 'clip.mkv', []
  for value in (10, 200):
    frames = np.full((9, 32, 32, 3), value, np.uint8)
    write_video(path, frames, 12, kind='mkv')
    found = given.cut(Source(path, 9), Piece('a', 0, 0, 0), 12, tmp_path)
    made.append(read_image(found)[0, 0, 0])
  assert made == [10, 200]


def told(project, pieces, **changes):
  pieces = [piece(getattr(project, name), *at) for name, *at in pieces]
  return Timeline.read(line(pieces=pieces, **changes))


@pytest.mark.parametrize(
  ('pieces', 'changes', 'options'),
  [
    ([], {'order': 'future'}, ['--long=33', '--direction=backward']),
    ([('picture', 8)], {}, ['--image=', '--at=8', '--length=33']),
    ([('picture', 8)], {'order': 'past'}, ['--keyframe=8:', '--side=past']),
    ([WHOLE], {'length': 45}, ['--extend=', '--after=12', '--before=0']),
    (
      [('clip', 12, 0, 32)],
      {'length': 57, 'order': 'past'},
      ['--before=12', '--after=12', '--sides=past'],
    ),
    (
      [('clip', 0, 0, 12)],
      {'prompts': TWO},
      ['--extend=', '--after=20', '--prompt_at=13:a blue two bounces'],
    ),
    (
      [('clip', 0, 0, 8), ('clip', 20, 20, 32)],
      {'decode': 'lag'},
      ['--regenerate=', '--span=9:19'],
    ),
    (
      [('clip', 0, 0, 8), ('clip', 20, 16, 28)],
      {'order': 'middle_out'},
      ['--keyframe=0:', '--keyframe=20:', '--side=middle_out'],
    ),
    (
      [('clip', 0, 0, 4), ('picture', 16), ('clip', 28, 28, 32)],
      {'anchors': 0, 'window': 6},
      ['--keyframe=16:', '--side=outside_in', '--anchors=0', '--window=6'],
    ),
    ([WHOLE], {'length': 57, 'loop': True}, ['--loop', '--first=']),
    ([WHOLE], {'length': 57, 'sinks': 'both'}, ['--long=57', '--first=']),
    (
      [('clip', 0, 0, 4), ('picture', 44)],
      {'length': 45, 'sinks': 'past', 'order': 'future'},
      ['--long=45', '--direction=backward', '--first=', '--last='],
    ),
    ([], {'length': 45, 'loop': True, 'order': 'middle_out'}, ['--loop']),
    (
      [('picture', 8), ('clip', 40, 0, 4)],
      {'length': 61, 'prompts': SCENES, 'order': 'scenes', 'anchors': 0},
      ['--storyboard='],
    ),
  ],
)
def test_a_timeline_is_a_command_and_a_script(
  project, monkeypatch, tmp_path, pieces, changes, options
):
  """All ask for the same frames: the key is a hash of all that decides."""
  value = told(project, pieces, **changes)
  call = project.call(value, tmp_path)
  job = project.job(call, tmp_path / 'out', value.decode)
  words = [f'--model={project.home}', f'--out={tmp_path / "out"}']
  words += [*call.words(), f'--decode={value.decode}', '--lossless']
  assert [o for o in options if not any(w.startswith(o) for w in words)] == []
  asked = []

  class Fake:
    card = project.card
    tokenizer = None

    def video(self, request):
      asked.append((request, 'joint'))

    def run(self, request, mode):
      asked.append((request, mode))
      return []

  monkeypatch.setattr(unitemp_jax, 'load', lambda _: Fake())
  exec(call.script(str(project.home), value.decode), {})
  [(request, decode)] = asked
  again = dataclasses.replace(job, request=request, decode=decode)
  assert again.key('') == job.key('')
  [told_so] = generate.jobs(generate.parse(words))
  assert told_so.key('') == job.key('') and told_so.path == job.path
  # Negative control: another seed has another key.
  other = dataclasses.replace(request, seed=9)
  assert dataclasses.replace(job, request=other).key('') != job.key('')
  assert Model(project.card).tokenizer is None


@pytest.mark.parametrize(
  ('pieces', 'changes', 'sentence'),
  [
    ([WHOLE], {}, 'left to make'),
    ([('picture', 8)], {'sinks': 'past'}, 'sinks are of a video'),
    ([('picture', 8)], {'loop': True}, 'joined ends'),
    ([('clip', 20, 0, 32)], {'length': 45}, 'until frame 52'),
  ],
)
def test_what_cannot_be_made_is_said(
  project, tmp_path, pieces, changes, sentence
):
  with pytest.raises(UserError, match=sentence):
    project.call(told(project, pieces, **changes), tmp_path)


def test_undo_is_kept_in_the_folder(studio):
  """It goes back over steps, in whatever process, and on again."""
  for seed in (1, 2, 3):
    studio.listed()[0].keep_timeline(Timeline(33, seed=seed), step=seed != 2)
  project = projects.Project(studio.out / 'first', studio.home, studio.model)
  assert project.steps() == (2, 0)
  assert project.undo().seed == 2
  assert project.undo().length == studio.model.card.frames
  assert project.undo().seed == 0  # There is no more.
  assert project.steps() == (0, 2)
  assert project.undo('future', 'past').seed == 2
  project.keep_timeline(Timeline(33, seed=8))
  assert project.steps() == (2, 0)


def test_what_the_command_line_finished_is_done(studio):
  project = studio.listed()[0]
  name = project.queue(Timeline.read(line()))
  project.note(name, state=projects.CANCELLED)
  version = project.versions()[name]
  assert version.state == projects.CANCELLED
  version.sidecar.parent.mkdir()
  version.sidecar.touch()
  assert version.state == projects.DONE


def test_the_queue_has_an_end(studio, monkeypatch):
  monkeypatch.setattr(projects, '_MOST_WAITING', 3)
  project = studio.listed()[0]
  for _ in range(3):
    project.queue(Timeline.read(line()))
  with pytest.raises(UserError, match='wait already'):
    project.queue(Timeline.read(line()))


def test_what_cannot_be_noted_does_not_end_the_thread(studio, monkeypatch):
  """A folder was removed, or the disk is full: the next one has its turn."""
  project = studio.listed()[0]
  names = [project.queue(Timeline.read(line(seed=k))) for k in (1, 2)]
  noted = project.note

  def note(name, **values):
    if name == names[0]:
      raise OSError('No space left on device')
    noted(name, **values)

  monkeypatch.setattr(project, 'note', note)
  worker = studio.worker
  worker._make(*worker._next())
  assert worker.run_now is None
  assert worker._next()[1].name == names[1]
  monkeypatch.setattr(worker, '_left', {})
  assert worker._next()[1].name == names[0]  # It is tried again.
