"""Clips on disk: the same files however the command was interrupted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from generation_batch import PROMPTS, SEEDS

from unitemp_jax.errors import UserError
from unitemp_jax.generate import jobs
from unitemp_jax.generate.request import Given, Request
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
    jobs.Job(
      tmp_path / 'out' / jobs.clip_name(i, prompt),
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
  assert jobs.run(pipeline, todo, 4, report=lambda line: None) == 3
  whole = files(tmp_path)
  assert len(whole) == 3 * 4
  assert jobs.run(pipeline, todo, 4, report=lambda line: None) == 0
  # Killed while the second clip was written: all of it but its sidecar.
  todo[1].sidecar.unlink()
  todo[1].path.write_bytes(b'half')
  lines = []
  assert jobs.run(pipeline, todo, 4, report=lines.append) == 1
  # It was alone in its batch now, and still is the same, bit for bit.
  assert files(tmp_path) == whole
  assert lines == ['forward: 1/1 clips, 0 s left']
  check_metadata(pipeline, todo[0])


def check_metadata(pipeline, job):
  tags = read_metadata(job.path)
  sidecar = json.loads(job.sidecar.read_text())
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
  jobs.run(pipeline, todo[:1], 4, report=lambda line: None)
  before = files(tmp_path)
  path = todo[0].path.with_name('0009-other.mp4')
  other = changed(todo[0], path=path, seed=12345)
  jobs.run(pipeline, [other], 4, report=lambda line: None)
  assert files(tmp_path)[path.name] != before[todo[0].path.name]


def test_streamed_clips_hold_the_whole_timeline(pipeline, todo):
  streamed = dataclasses.replace(todo[0], decode='stream')
  joint = jobs.make(pipeline, [todo[0]], 4)
  video = jobs.make(pipeline, [streamed], 4)
  assert video.shape == joint.shape
  # Forward the past is there, so that streaming shows the same pixels.
  assert np.abs(video.astype(int) - joint.astype(int)).max() <= 1


def test_every_setting_is_part_of_the_key(todo, made_plans):
  job = todo[0]
  plan = made_plans['inbetween'].pad()
  black = np.zeros((1, *SIZE, 3), np.uint8)
  ends = (Given(0, black), Given(32, black))
  between = changed(job, plan=plan, given=ends)
  others = [
    changed(job, workflow='backward'),
    changed(job, prompts=('a blue one',)),
    changed(job, seed=1),
    changed(job, plan=made_plans['backward']),
    between,
    changed(between, given=(ends[0], Given(32, black + 1))),
    changed(job, height=48),
    dataclasses.replace(job, decode='stream'),
    dataclasses.replace(job, lossless=True),
  ]
  keys = {other.key(MODEL) for other in [job, *others]}
  assert len(keys | {job.key('other model')}) == len(others) + 2
  moved = changed(job, path=Path('elsewhere.mp4'))
  assert moved.key(MODEL) == job.key(MODEL)


def test_files_of_another_run_are_refused(todo):
  job = todo[0]
  assert jobs.unfinished(todo, MODEL) == todo
  job.sidecar.parent.mkdir(parents=True)
  job.sidecar.write_text(json.dumps({'key': job.key(MODEL)}))
  assert jobs.unfinished(todo, MODEL) == todo[1:]
  for bad in ('{"key": "0"}', 'no json', '{}'):
    job.sidecar.write_text(bad)
    with pytest.raises(UserError, match='made by another command or model'):
      jobs.unfinished(todo, MODEL)


def test_two_clips_with_one_name_are_refused(todo):
  with pytest.raises(UserError, match='two clips would be written'):
    jobs.unfinished([todo[0], todo[0]], MODEL)


def test_batches_hold_one_plan_and_keep_the_order(todo, made_plans):
  other = changed(todo[0], plan=made_plans['backward'])
  streamed = dataclasses.replace(todo[0], decode='stream')
  work = [*todo, other, other, streamed]
  groups = list(jobs.batches(work, 2))
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
  assert jobs.clip_name(7, prompt) == name
