"""Whose the files of a clip are: each fault of one, and what becomes of it."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from unitemp_jax import errors, orders
from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file, clips
from unitemp_jax.generate.request import Request
from unitemp_jax.report import read as report
from unitemp_jax.video.write import write_image

MODEL, SIZE = 'abc', (32, 32)
RNG = np.random.default_rng(0)
BESIDE = ['.png', '.strip.png', '.gif', '.webm', '.mkv', '.last.png']
BESIDE += ['.frames/00001.png', '.latents.npz']


def job_of(folder, name='x', seed=1):
  plan = orders.forward(3, anchors=3)
  request = Request('forward', plan, (f'a red {name}',), seed, *SIZE)
  output = clip_file.Output(('gif', 'webm', 'mkv', 'png'), frame='last')
  path = folder / 'forward' / f'{name}.mp4'
  return clip_file.Job(path, request, output=output, latents=True)


def write(job):
  video = RNG.integers(0, 256, (9, *SIZE, 3), np.uint8)
  latents = RNG.standard_normal((3, 4, 4, 4), np.float32)
  about = clip_file.about(job.request, 12.0, 'joint', MODEL, job.key(MODEL))
  clip_file.write_all(
    *(job.path, job.request, [video], about, {'generation': 1.0}),
    output=job.output,
    latents=latents,
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Two clips with all files that a clip can have."""
  folder = tmp_path_factory.mktemp('whole')
  for name in 'xy':
    write(job_of(folder, name))
  return folder


@pytest.fixture
def made(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'o')


def beside(folder, ending, name='x'):
  return folder / 'forward' / f'{name}{ending}'


def listing(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


def state(folder):
  """'whole', 'again', or the complaint."""
  try:
    jobs = [job_of(folder, name) for name in 'xy']
    return 'again' if clips.unfinished(jobs, MODEL) else 'whole'
  except UserError as error:
    return str(error)


def retouch(folder, ending):
  write_image(beside(folder, ending), np.full((*SIZE, 3), 9, np.uint8))


def change(folder, **fields):
  path = beside(folder, '.json')
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def swap(folder):
  one, other = beside(folder, '.mp4'), beside(folder, '.mp4', 'y')
  held = one.read_bytes()
  one.write_bytes(other.read_bytes())
  other.write_bytes(held)


def without_marks(folder):
  """As before sidecars had marks."""
  path = beside(folder, '.json')
  record = json.loads(path.read_text())
  del record[clip_file.MARKS]
  path.write_text(json.dumps(record))


def test_a_clip_that_nobody_touched_is_whole(made):
  assert state(made) == 'whole'
  told = json.loads(beside(made, '.json').read_text())[clip_file.MARKS]
  there = {f'forward/x{ending}' for ending in [*told, '.json']}
  assert there == {n for n in listing(made) if n.startswith('forward/x')}
  without_marks(made)
  assert state(made) == 'whole'
  assert not report.read_folder(made).problems


@pytest.mark.parametrize('ending', ['.mp4', *BESIDE])
@pytest.mark.parametrize('left', [None, 0, 0.9])
def test_what_is_missing_or_cut_short_is_made_again(made, ending, left):
  path = beside(made, ending)
  size = path.stat().st_size
  if left is None:
    path.unlink()
  else:
    os.truncate(path, int(left * size))
  # Too little is left of a small one to tell what it was.
  told = left and left * size < 1024
  assert state(made) == ('again' if not told else str(errors.foreign(path)))
  if left == 0 and ending in ('.mp4', '.gif', '.frames/00001.png'):
    write(job_of(made))
    assert state(made) == 'whole'


@pytest.mark.parametrize('ending', [*BESIDE, '.frames/best.png'])
@pytest.mark.parametrize('lost', ['', '.mp4', '.strip.png'])
def test_a_file_of_yours_stays_and_is_named(made, ending, lost):
  if lost and lost != ending:
    beside(made, lost).unlink()
  retouch(made, ending)
  before = listing(made)
  assert state(made) == str(errors.foreign(beside(made, ending)))
  assert listing(made) == before


@pytest.mark.parametrize(
  'fault',
  [
    swap,
    lambda folder: shutil.copy(
      beside(folder, '.mp4', 'y'), beside(folder, '.mp4')
    ),
    lambda folder: change(folder, prompt='a blue two'),
    lambda folder: change(folder, seed=2),
  ],
)
@pytest.mark.parametrize('marked', [True, False])
def test_a_video_that_is_another_clip_is_named(made, fault, marked):
  if not marked:
    without_marks(made)
  fault(made)
  path = beside(made, '.mp4')
  assert state(made).startswith(f'{path} is not the clip that x.json tells of')
  said = 'forward/x.mp4 is not the clip that its sidecar tells of'
  try:
    problems = report.read_folder(made).problems
  except UserError as error:
    problems = [str(error)]
  assert any(said in problem for problem in problems)


def test_without_a_sidecar_only_the_videos_tag_tells(made):
  beside(made, '.json').unlink()
  assert state(made) == str(errors.foreign(beside(made, '.png')))
  for path in [*made.glob('forward/x.*')]:
    if path.suffix != '.mp4':
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  assert state(made) == 'again'
  retouch(made, '.mp4')
  assert state(made) == str(errors.foreign(beside(made, '.mp4')))


def test_what_comes_while_a_clip_is_made_stays(tmp_path):
  job, path = job_of(tmp_path), beside(tmp_path, '.gif')
  assert clips.unfinished([job], MODEL) == [job]
  path.parent.mkdir()
  path.write_text('mine')
  model = SimpleNamespace(card=SimpleNamespace(fps=12.0), hash=MODEL)
  with pytest.raises(UserError, match=r'x\.gif is there already'):
    clips._write(job, model, [], {}, None)
  assert listing(tmp_path) == {'forward/x.gif': b'mine'}
