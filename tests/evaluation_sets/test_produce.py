"""Batches, overlap, bounded memory, and faults while clips are made."""

import collections
import errno
import itertools
import json
import threading
import time
from concurrent import futures

import fake_worker
import numpy as np
import pytest
from fake_worker import fake_maker, files, wanted, work

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import produce, progress, record
from unitemp_jax.evaluation_sets.produce import Maker
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.video.write import write_video


def test_batches_hold_one_bucket_and_every_clip_once():
  listed = wanted(samples=3)
  mixed = listed[::2] + listed[1::2]
  groups = list(produce.batches(mixed, fake_maker(4)))
  assert all(len({clip.order for clip in group}) == 1 for group in groups)
  seen = collections.Counter(clip.path for group in groups for clip in group)
  assert seen == collections.Counter(clip.path for clip in listed)
  # Only the last batch of an order is smaller: 18 clips are 4 and a half.
  assert sorted(map(len, groups)) == [2, 2] + [4] * 8


def test_a_set_does_not_depend_on_batches_or_shards(tmp_path):
  work(tmp_path / 'a', maker=fake_maker(4))
  work(tmp_path / 'b', maker=fake_maker(1), writers=1)
  for i in (2, 0, 1):
    work(tmp_path / 'c', (i, 3), maker=fake_maker(5))
  assert files(tmp_path / 'a') == files(tmp_path / 'b') == files(tmp_path / 'c')


def run(listed, maker, write, tmp_path, **more):
  journal = progress.Journal(tmp_path, (0, 1))
  lines = []
  produce.produce(listed, maker, write, journal, report=lines.append, **more)
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

  maker = Maker(lambda clip: 0, generate, decode, 1)
  assert len(run(listed, maker, write, tmp_path)) == len(listed)


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

  maker = Maker(lambda clip: 0, generate, lambda group, made: group, 2)
  run(listed, maker, write, tmp_path)
  assert state['now'] == 0
  assert state['most'] <= 2 * 4 < len(listed)


def test_progress_tells_rate_and_time_left(tmp_path):
  maker = Maker(lambda clip: 0, list, lambda group, made: made, 4)
  lines = run(wanted(), maker, lambda clip, video: None, tmp_path)
  assert len(lines) == 6
  assert lines[0].startswith('forward: 4/24 clips, ')
  assert lines[-1].startswith('backward: 24/24 clips, ')
  assert lines[-1].endswith(' 0 s left')


def test_the_rate_leaves_out_the_batch_that_compiles():
  assert progress.mean_rate([]) == 0
  assert progress.mean_rate([(4, 400.0)]) == 0.01
  assert progress.mean_rate([(4, 400.0), (4, 2.0), (2, 1.0)]) == 2


@pytest.mark.parametrize('stage', ['generate', 'decode', 'write'])
def test_a_fault_ends_the_run_and_keeps_what_is_finished(tmp_path, stage):
  """A full disk, or anything else, in any of the threads."""
  sound, calls = fake_maker(2), collections.Counter()

  def faulty(name, function):
    def call(*arguments):
      calls[name] += 1
      if name == stage and calls[name] == 4:
        raise OSError(errno.ENOSPC, 'No space left on device')
      return function(*arguments)

    return call

  maker = Maker(
    sound.bucket,
    faulty('generate', sound.generate),
    faulty('decode', sound.decode),
    sound.size,
  )
  whole = tmp_path / 'whole'
  work(whole)
  store = Store(tmp_path / 'out')
  write_clip = faulty('write', record.write_clip)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, 'write_clip', write_clip)
    with pytest.raises(OSError, match='No space left'):
      work(store.root, maker=maker)
  made = len(list(store.root.glob('records/**/*.json')))
  assert 1 <= made < 24
  assert work(store.root) == 24 - made
  assert files(store.root) == files(whole)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
  """The file system's own error, from the writing of a real clip."""
  store, clip = Store(tmp_path), wanted()[0]
  facts = record.order_facts(fake_worker.PLANS['forward'])

  def full(path, *arguments, **more):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(record, 'write_image', full)
  with pytest.raises(UserError, match=r'\(No space left on device\); make roo'):
    record.write_clip(
      store, clip, fake_worker.noise(clip), fake_worker.FORM, facts
    )
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


def test_seams_are_counted_from_the_first_frame():
  """Also where a given clip meets what is made."""
  plain = orders.forward(9, block=3, anchors=3)
  facts = record.order_facts(plain)
  blocks = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
  assert facts == {'generation_order': blocks, 'boundary_frames': [8, 20]}
  back = record.order_facts(orders.backward(9, block=3, anchors=3))
  assert back['generation_order'] == blocks[::-1]
  ends = orders.inbetween(9, block=3, anchors=3, given_first=1, given_last=1)
  assert record.order_facts(ends) == facts
  clip = orders.forward(9, block=3, anchors=3, given_first=4)
  assert record.order_facts(clip) == {
    'generation_order': [[4, 5, 6], [7, 8]],
    'boundary_frames': [12, 24],
  }
  # A loop ends with the first frames of its first block.
  assert record.order_facts(orders.loop(9, block=3, anchors=3)) == {
    'generation_order': [[0, 1, 2], [8], [5, 6, 7], [3, 4]],
    'boundary_frames': [8, 16, 28],
  }
