"""Batches, overlap, bounded memory, and faults while clips are made."""

import collections
import errno
import functools
import itertools
import json
import threading
import time
from concurrent import futures

import fake_worker
import numpy as np
import pytest
from fake_worker import FakeMaker, files, wanted, work

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import work as set_work
from unitemp_jax.evaluation_sets.store import Journal, Store
from unitemp_jax.progress import mean_rate
from unitemp_jax.video.write import write_video


def test_batches_hold_one_bucket_and_every_clip_once():
  listed = wanted(samples=3)
  mixed = listed[::2] + listed[1::2]
  groups = list(set_work.batches(mixed, 4))
  assert all(len({clip.order for clip in group}) == 1 for group in groups)
  seen = collections.Counter(clip.path for group in groups for clip in group)
  assert seen == collections.Counter(clip.path for clip in listed)
  # Only the last batch of an order is smaller: 18 clips are 4 and a half.
  assert sorted(map(len, groups)) == [2, 2] + [4] * 8


def test_a_set_does_not_depend_on_batches_or_shards(tmp_path):
  work(tmp_path / 'a', maker=FakeMaker(4))
  work(tmp_path / 'b', maker=FakeMaker(1), writers=1)
  for i in (2, 0, 1):
    work(tmp_path / 'c', (i, 3), maker=FakeMaker(5))
  assert files(tmp_path / 'a') == files(tmp_path / 'b') == files(tmp_path / 'c')


def run(listed, size, generate, decode, write, tmp_path, **more):
  """Lines of progress; one task per clip calls `write`."""
  journal = Journal(tmp_path, (0, 1))
  lines = []

  def tasks(group, made):
    decoded = decode(group, made)
    pairs = zip(group, decoded, strict=True)
    return [functools.partial(write, *pair) for pair in pairs]

  set_work.make_clips(
    listed, size, generate, tasks, journal, lines.append, **more
  )
  return lines


@pytest.mark.slow
def test_the_same_frames_give_the_same_bytes(tmp_path):
  """Also when many encoders work at once; 3 in 100 differed with mbtree."""
  rng = np.random.default_rng(3)
  video = rng.integers(0, 256, (9, 64, 64, 3), np.uint8)
  video[:, :32] = video[:1, :32]

  def write(number):
    path = tmp_path / f'{number}.mp4'
    write_video(path, video.copy(), 8, scale=1)
    return path.read_bytes()

  with futures.ThreadPoolExecutor(16) as pool:
    assert len(set(pool.map(write, range(500)))) == 1


def test_decoding_and_writing_overlap_generation(tmp_path):
  """A batch is decoded and written while the next one is generated."""
  listed = wanted(samples=1)
  begun = {clip.path: threading.Event() for clip in listed}
  after = dict(itertools.pairwise(listed))

  def generate(group):
    begun[group[0].path].set()
    return group

  def later(clip):
    # One after the other this would wait for ever.
    return clip not in after or begun[after[clip].path].wait(60)

  def decode(group, made):
    assert later(group[0])
    return group

  def write(clip, video):
    assert later(clip)

  lines = run(listed, 1, generate, decode, write, tmp_path)
  assert len(lines) == len(listed)


def test_few_batches_are_under_way(tmp_path):
  """Generation waits for slow writers, so that memory stays bounded."""
  listed, lock = wanted(samples=4), threading.Lock()
  state = collections.Counter()

  def generate(group):
    with lock:
      state['now'] += len(group)
      state['most'] = max(state['most'], state['now'])
    return group

  def write(clip, video):
    time.sleep(0.002)
    with lock:
      state['now'] -= 1

  run(listed, 2, generate, lambda group, made: made, write, tmp_path)
  assert state['now'] == 0
  assert state['most'] <= 2 * 4 < len(listed)


def test_progress_tells_rate_and_time_left(tmp_path):
  lines = run(
    *(wanted(), 4, list, lambda group, made: made),
    *(lambda clip, video: None, tmp_path),
  )
  assert len(lines) == 6
  assert lines[0].startswith('forward: 4/24 clips, ')
  assert lines[-1].startswith('backward: 24/24 clips, ')
  assert lines[-1].endswith(' 0 s left')


def test_the_rate_leaves_out_the_batch_that_compiles():
  assert mean_rate([]) == 0
  assert mean_rate([(4, 400.0)]) == 0.01
  assert mean_rate([(4, 400.0), (4, 2.0), (2, 1.0)]) == 2


@pytest.mark.parametrize('stage', ['generate', 'decode', 'write'])
def test_a_fault_ends_the_run_and_keeps_what_is_finished(tmp_path, stage):
  """A full disk, or anything else, in any of the threads."""
  calls = collections.Counter()

  class Faulty(FakeMaker):
    def step(self, name, clip=None):
      calls[name] += 1
      if name == stage and calls[name] == 4:
        raise OSError(errno.ENOSPC, 'No space left on device')

  whole = tmp_path / 'whole'
  work(whole)
  store = Store(tmp_path / 'out')
  with pytest.raises(OSError, match='No space left'):
    work(store.root, maker=Faulty(2))
  made = len(list(store.root.glob('records/**/*.json')))
  assert 1 <= made < 24
  assert work(store.root) == 24 - made
  assert files(store.root) == files(whole)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
  """The file system's own error, from the writing of a real clip."""
  store, clip = Store(tmp_path), wanted()[0]

  def full(path, *arguments, **more):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(set_work, 'write_image', full)
  with pytest.raises(UserError, match=r'\(No space left on device\); make roo'):
    fake_worker.write(store, clip)
  assert not store.record(clip).exists()
  assert not any(path.is_file() for path in (tmp_path / 'partial').rglob('*'))


def test_records_say_how_a_clip_was_made(tmp_path):
  listed = wanted(['a thing'], samples=1)
  work(tmp_path, listed=listed)
  clip = listed[1]
  assert clip.order == 'backward'
  found = json.loads(Store(tmp_path).record(clip).read_text())
  assert found['generation_order'] == [[0, 1, 2]]
  assert found['boundary_frames'] == []
  assert (found['frames'], found['height']) == (9, 32)
  video = np.asarray(fake_worker.noise(clip), float) / 255
  steps = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2, 3))
  assert np.allclose(found['frame_difference'], steps, atol=1e-6)
  assert found['bytes'] == Store(tmp_path).video(clip).stat().st_size
