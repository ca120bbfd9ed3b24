"""Clips on disk: the same files however the command was interrupted."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from generation_batch import PROMPTS, SEEDS
from model_fixture import random_model

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file, clips
from unitemp_jax.generate.request import Conditioning, Request
from unitemp_jax.parallel import locks
from unitemp_jax.video.read import read_metadata, read_video

MODEL = 'abc'
SIZE = (16, 16)  # of the random model


def changed(job, path=None, **fields):
  """The job with another request, or another path."""
  request = dataclasses.replace(job.request, **fields)
  return dataclasses.replace(job, path=path or job.path, request=request)


@pytest.fixture
def todo(pipeline, made_plans, tmp_path):
  """Three clips of one order, to be made in one batch of 4."""
  assert (pipeline.card.height, pipeline.card.width) == SIZE
  return [
    clips.Job(
      tmp_path / 'out' / clip_file.clip_name(i, prompt),
      Request('forward', made_plans['forward'], (prompt,), seed, *SIZE),
    )
    for i, (prompt, seed) in enumerate(zip(PROMPTS[:3], SEEDS, strict=False))
  ]


def files(folder):
  """All files, but the seconds that a clip took."""
  found = {}
  for path in sorted(Path(folder).rglob('*')):
    if path.is_file():
      content = path.read_bytes()
      if path.suffix == '.json':
        content = json.loads(content)
        del content['timings']
      found[path.name] = content
  return found


def test_interrupted_run_ends_with_the_same_files(pipeline, todo, tmp_path):
  assert clips.run(pipeline, todo, 4, report=lambda line: None) == 3
  whole = files(tmp_path)
  assert len(whole) == 3 * 4
  assert clips.run(pipeline, todo, 4, report=lambda line: None) == 0
  # Killed while the files of the second clip got their names.
  todo[1].path.unlink()
  todo[1].path.with_suffix('.strip.png').unlink()
  lines = []
  assert clips.run(pipeline, todo, 4, report=lines.append) == 1
  # It was alone in its batch now, and still is the same, bit for bit.
  assert files(tmp_path) == whole
  assert lines == ['forward: 1/1 clips, 0 s left']
  check_metadata(pipeline, todo[0])


def check_metadata(pipeline, job):
  tags = read_metadata(job.path)
  sidecar = json.loads(job.beside('.json').read_text())
  for about in (tags, sidecar):
    assert about['prompt'] == job.request.prompts[0]
    assert about['seed'] == job.request.seed
    assert about['order'] == 'forward'
    assert about['boundary_frames'] == [8, 20]
    assert about['generation_order'] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert about['checkpoint'] == pipeline.hash
    assert about['plan']['format'] == 'unitemp plan 1'
  assert len(sidecar['frame_difference']) == pipeline.card.frames - 1
  frames, fps = read_video(job.path)
  assert len(frames) == pipeline.card.frames
  assert fps == pipeline.card.fps


def test_another_seed_writes_another_clip(pipeline, todo, tmp_path):
  clips.run(pipeline, todo[:1], 4, report=lambda line: None)
  before = files(tmp_path)
  path = todo[0].path.with_name('0009-other.mp4')
  other = changed(todo[0], path=path, seed=12345)
  clips.run(pipeline, [other], 4, report=lambda line: None)
  assert files(tmp_path)[path.name] != before[todo[0].path.name]


def test_streamed_clips_hold_the_whole_timeline(pipeline, todo):
  made = pipeline.batch(clips.filled([todo[0].request], 4))
  joint, video = pipeline.pixels(made), pipeline.pixels(made, 'stream')
  assert video.shape == joint.shape
  # Forward the past is there, so that streaming shows the same pixels.
  assert np.abs(video.astype(int) - joint.astype(int)).max() <= 1


def test_every_setting_is_part_of_the_key(todo, made_plans):
  job = todo[0]
  plan = made_plans['inbetween'].pad()
  black = np.zeros((1, *SIZE, 3), np.uint8)
  ends = (Conditioning(0, black), Conditioning(32, black))
  between = changed(job, plan=plan, conditioning=ends)
  others = [
    changed(job, workflow='backward'),
    changed(job, prompts=('a blue one',)),
    changed(job, seed=1),
    changed(job, plan=made_plans['backward']),
    between,
    changed(between, conditioning=(ends[0], Conditioning(32, black + 1))),
    changed(job, height=48),
    dataclasses.replace(job, decode='stream'),
    dataclasses.replace(job, output=clip_file.Output(('mkv',))),
  ]
  keys = {other.key(MODEL) for other in [job, *others]}
  assert len(keys | {job.key('other model')}) == len(others) + 2
  moved = changed(job, path=Path('elsewhere.mp4'))
  assert moved.key(MODEL) == job.key(MODEL)


def test_files_of_another_run_are_refused_and_named(todo):
  job = todo[0]
  assert clips.unfinished(todo, MODEL) == todo
  job.beside('.json').parent.mkdir(parents=True)
  for bad in ('{"key": "0"}', 'no json', '{}', '[1]', '"x"'):
    job.beside('.json').write_text(bad)
    with pytest.raises(
      UserError, match=r'\.json .*choose another --out, or delete '
    ):
      clips.unfinished(todo, MODEL)


def test_what_a_desktop_adds_to_pictures_is_left_alone(
  pipeline, todo, tmp_path
):
  output = clip_file.Output(('png',))
  job = dataclasses.replace(todo[0], output=output)
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 1
  for name in ('.DS_Store', 'Thumbs.db'):
    (job.beside('.frames') / name).write_text('mine')
  before = files(tmp_path)
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 0
  (job.beside('.frames') / '00001.png').unlink()
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 1
  assert files(tmp_path) == before


@pytest.mark.parametrize('ending', ['.mp4', '.png', '.strip.png', '.rows'])
def test_what_the_user_has_there_is_never_replaced(pipeline, todo, ending):
  path = todo[0].path.with_suffix(ending)
  path.parent.mkdir(parents=True)
  path.write_bytes(b'mine')
  with pytest.raises(UserError, match='was not made by this command'):
    clips.run(pipeline, todo[:1], None, report=lambda line: None)
  assert path.read_bytes() == b'mine'
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_link_is_never_written_through(pipeline, todo, tmp_path):
  victim = tmp_path / 'victim'
  victim.write_bytes(b'mine')
  todo[0].path.parent.mkdir(parents=True)
  todo[0].path.symlink_to(victim)
  with pytest.raises(UserError, match='was not made by this command'):
    clips.run(pipeline, todo[:1], 4, report=lambda line: None)
  todo[0].path.unlink()
  todo[0].path.symlink_to(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='was not made by this command'):
    clips.run(pipeline, todo[:1], 4, report=lambda line: None)
  assert victim.read_bytes() == b'mine'
  assert not (tmp_path / 'nowhere').exists()
  todo[0].path.unlink()
  (tmp_path / 'folder').mkdir()
  output = clip_file.Output(('png',))
  job = dataclasses.replace(todo[0], output=output)
  for ending in ('.frames', '.rows'):
    job.beside(ending).symlink_to(tmp_path / 'folder')
    with pytest.raises(UserError, match='was not made by this command'):
      clips.run(pipeline, [job], None, report=lambda line: None)
    job.beside(ending).unlink()
  assert not [*(tmp_path / 'folder').iterdir()]


@pytest.mark.parametrize('ending', ['.mp4', '.png', '.strip.png'])
def test_a_finished_clip_that_lost_a_file_is_made_again(
  pipeline, todo, tmp_path, ending
):
  job = todo[0]
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 1
  whole = files(tmp_path)
  job.path.with_suffix(ending).unlink()
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 1
  assert files(tmp_path) == whole
  assert clips.run(pipeline, [job], 4, report=lambda line: None) == 0


def test_a_disk_without_room_is_found_before_generating(
  pipeline, todo, monkeypatch
):
  usage = shutil.disk_usage('/')._replace(free=2**16)
  monkeypatch.setattr(clips.shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(UserError, match=r'0.1 MiB of room.*make room'):
    clips.run(pipeline, todo[:1], 4, report=lambda line: None)
  assert not todo[0].path.parent.exists()


def test_numbers_that_are_not_finite_stop_the_clip(pipeline, todo, tmp_path):
  """A student with one NaN: no file that counts as finished."""
  params = jax.tree.map(np.array, jax.device_get(pipeline.params))
  jax.tree.leaves(params['student'])[0].flat[0] = np.nan
  broken = pipeline.replaced(student=params['student'])
  blind = jax.tree.map(np.array, jax.device_get(pipeline.params))['vae']
  jax.tree.leaves(blind['decoder'])[0].flat[0] = np.nan
  for size in (4, None):
    with pytest.raises(UserError, match=r'frames 0\.\.8 of .* not finite'):
      clips.run(broken, todo[:1], size, report=lambda line: None)
    with pytest.raises(UserError, match=r'pixels of a block .* not finite'):
      clips.run(
        pipeline.replaced(vae=blind), todo[:1], size, report=lambda line: None
      )
    shutil.rmtree(todo[0].beside('.rows'), ignore_errors=True)
  assert [p for p in tmp_path.rglob('*') if p.is_file()] == []


def test_one_folder_has_one_writer(tmp_path, capsys):
  words = ['generate', '--prompt=a red seven falls', f'--out={tmp_path}']
  with locks.lock(tmp_path):
    assert cli.main([*words, f'--model={random_model()}']) == 2
  said = capsys.readouterr().err
  assert f'process {os.getpid()} on ' in said
  assert f'has been writing to {tmp_path} since' in said
  assert list(tmp_path.iterdir()) == []


def test_two_clips_with_one_name_are_refused(todo):
  with pytest.raises(UserError, match='two clips would be written'):
    clips.unfinished([todo[0], todo[0]], MODEL)


def test_batches_hold_one_plan_and_keep_the_order(todo, made_plans):
  other = changed(todo[0], plan=made_plans['backward'])
  streamed = dataclasses.replace(todo[0], decode='stream')
  work = [*todo, other, other, streamed]
  groups = list(clips.batches(work, 2))
  assert [len(group) for group in groups] == [2, 1, 2, 1]
  assert [job for group in groups for job in group] == work


@pytest.mark.parametrize(
  'prompt, name',
  [
    ('A red seven, falls!', '0007-a-red-seven-falls.mp4'),
    ('../../etc/x', '0007-etc-x.mp4'),
    ('b' * 100, '0007-' + 'b' * 60 + '.mp4'),
  ],
)
def test_names_of_clips_are_readable_and_stay_in_the_folder(prompt, name):
  assert clip_file.clip_name(7, prompt) == name
