"""A folder that several processes share and that is never mixed up."""

import dataclasses
import json
import os

import fake_worker
import pytest
from fake_worker import SETTINGS, files, wanted, work

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import verify
from unitemp_jax.evaluation_sets.store import (
  Journal,
  Store,
  read_status,
  to_text,
)
from unitemp_jax.parallel import locks


def test_a_set_may_grow_but_not_change(tmp_path):
  small, large = wanted(fake_worker.NAMES[:2]), wanted()
  assert work(tmp_path, listed=small) == 8
  assert work(tmp_path, listed=small) == 0
  assert work(tmp_path, listed=large) == 16
  before = files(tmp_path)
  with pytest.raises(UserError, match='would make not at all'):
    work(tmp_path, listed=small)
  with pytest.raises(UserError, match='would make otherwise'):
    work(tmp_path, listed=wanted(seed=1))
  with pytest.raises(UserError, match='frames 9 instead of 13'):
    Store(tmp_path).begin({**SETTINGS, 'frames': 13}, large)
  assert files(tmp_path) == before


def test_other_files_are_left_alone(tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='holds other files'):
    work(tmp_path)
  assert files(tmp_path) == {'thesis.txt': b'mine'}


def test_a_lost_list_of_clips_is_restored(tmp_path):
  work(tmp_path)
  before = files(tmp_path)
  (tmp_path / 'clips.jsonl').unlink()
  with pytest.raises(UserError, match='again to restore it'):
    read_status(tmp_path)
  assert work(tmp_path) == 0
  assert files(tmp_path) == before


@pytest.mark.parametrize(
  'damage', ['gone', 'short', 'no record', 'bad record', 'no poster']
)
def test_what_is_not_whole_is_made_again(tmp_path, damage):
  work(tmp_path)
  before = files(tmp_path)
  store, clip = Store(tmp_path), wanted()[5]
  if damage == 'gone':
    store.video(clip).unlink()
  elif damage == 'short':
    os.truncate(store.video(clip), 2000)
  elif damage == 'no poster':
    store.poster(clip).unlink()
    [problem] = verify.verify_set(tmp_path)[1]
    assert problem.what == 'its poster is missing'
  elif damage == 'no record':
    store.record(clip).unlink()
  else:
    store.record(clip).write_text('{"key": ')
  assert work(tmp_path) == 1
  assert files(tmp_path) == before


@pytest.mark.parametrize('kind', ['video', 'poster'])
@pytest.mark.parametrize('repaired', [False, True])
def test_a_file_of_the_user_among_the_clips_stays(tmp_path, kind, repaired):
  work(tmp_path)
  store, clip = Store(tmp_path), wanted()[5]
  path = getattr(store, kind)(clip)
  path.write_bytes(b'mine')
  if repaired:
    problem = verify.Problem('damaged', f'videos/{clip.path}.mp4', '')
    assert verify.forget(store, [problem]) == 1
  with pytest.raises(UserError, match='not made by this command'):
    work(tmp_path)
  assert path.read_bytes() == b'mine'
  path.unlink()
  assert work(tmp_path) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path):
  store = Store(tmp_path)
  (tmp_path / 'a.txt').write_text('old')
  with pytest.raises(RuntimeError), store.writing(tmp_path / 'a.txt') as path:
    path.write_text('ne')
    raise RuntimeError
  assert (tmp_path / 'a.txt').read_text() == 'old'
  store.leave()
  assert [path.name for path in tmp_path.iterdir()] == ['a.txt']


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'videos').write_text('a file')
  store = Store(tmp_path)
  with (
    pytest.raises(UserError, match=r'cannot write .*a\.mp4'),
    store.writing(tmp_path / 'videos' / 'a.mp4') as path,
  ):
    path.write_text('x')


def test_one_shard_has_one_writer(tmp_path):
  work(tmp_path, listed=wanted()[:4])
  before = files(tmp_path)
  with locks.lock(tmp_path / 'progress' / '0-of-1'):
    with pytest.raises(UserError, match=rf'process {os.getpid()} on .* since'):
      work(tmp_path)
    assert work(tmp_path, (1, 2)) > 0
  assert files(tmp_path).keys() >= before.keys()


def test_status_tells_the_running_from_the_stopped(tmp_path):
  listed = wanted()
  store = Store(tmp_path)
  work(tmp_path, listed=listed[:12])
  store.begin(SETTINGS, listed)
  journals = [Journal(tmp_path, (i, 3)) for i in range(3)]
  journals[0].log('start', clips=6)
  journals[0].log('batch', clips=2, seconds=100.0)
  journals[0].log('batch', clips=2, seconds=4.0)
  journals[1].log('start', clips=6)
  journals[1].log('batch', clips=1, seconds=2.0)
  journals[2].log('start', clips=5)
  journals[2].log('end')
  path = tmp_path / 'progress' / '1-of-3.jsonl'
  path.write_text(
    path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999')
    # Damaged, and cut short by a kill.
    + '\n{"event": "end", "time": 1.0, "pid": 1e9, "host": "vm"}\n{"event": "ba'
  )
  seen = read_status(tmp_path)
  assert (seen.there, seen.wanted) == (
    {'forward': 12, 'backward': 0},
    {'forward': 12, 'backward': 12},
  )
  states = {worker.shard: worker.state for worker in seen.workers}
  assert states == {
    '0/1': 'finished',
    '0/3': 'running',
    '1/3': 'stopped',
    '2/3': 'finished',
  }
  # The one that runs will not make what the stopped one left.
  assert seen.seconds_left is None
  assert seen.missing_bytes > 0
  running = [w for w in seen.workers if w.state == 'running']
  alone = dataclasses.replace(
    seen, workers=running, wanted={'forward': 12, 'backward': 2}
  )
  assert alone.seconds_left == pytest.approx(2 / 0.5)
  text = to_text(seen)
  assert 'backward                    0 of 12 there, 12 missing' in text
  assert 'shard 0/3      running   4 of 6 made since its start' in text
  assert 'no estimate' in text
  assert 'about 4 s left' in to_text(alone)


def test_status_of_what_is_no_set(tmp_path):
  with pytest.raises(UserError, match=r'set.json is missing'):
    read_status(tmp_path)
  (tmp_path / 'set.json').write_text(json.dumps(SETTINGS))
  with pytest.raises(UserError, match=r'clips.jsonl cannot be read'):
    read_status(tmp_path)
