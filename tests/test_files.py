import contextlib
import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.parallel import locks


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(
  tmp_path, monkeypatch
):
  path = files.write(tmp_path / 'new' / 'a.txt', 'old')
  assert path.read_text() == 'old'
  assert files.write(path, 'newer').read_text() == 'newer'

  def fail(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(UserError, match='No space left on device'):
    files.write(path, 'newest')
  assert path.read_text() == 'newer'
  assert names(path.parent) == ['a.txt']


def test_others_may_read_what_a_library_puts_in_its_place(tmp_path):
  usual = files.write(tmp_path / 'a', 'x').stat().st_mode
  with files.writing(tmp_path / 'b') as temporary:
    own = tmp_path / 'own'
    os.close(os.open(own, os.O_CREAT | os.O_WRONLY, 0o600))
    own.replace(temporary)  # As safetensors does.
  assert (tmp_path / 'b').stat().st_mode == usual
  with files.writing(tmp_path / 'secret') as temporary:
    temporary.chmod(0o600)
  assert (tmp_path / 'secret').stat().st_mode & 0o777 == 0o600


def test_only_what_the_same_command_generated_is_replaced(tmp_path):
  path = tmp_path / 'tables.md'
  files.write_generated(path, 'one', 'a command')
  files.write_generated(path, 'two', 'a command')
  assert path.read_text().endswith('\n\ntwo\n')
  with pytest.raises(UserError, match='another name'):
    files.write_generated(path, 'three', 'another')
  path.write_text('mine')
  with pytest.raises(UserError, match='another name'):
    files.write_generated(path, 'four', 'a command')
  assert path.read_text() == 'mine'


def test_a_link_is_replaced_and_never_written_through(tmp_path):
  precious = tmp_path / 'precious'
  precious.write_text('mine')
  link = tmp_path / 'out.txt'
  link.symlink_to(precious)
  files.write(link, 'new')
  assert precious.read_text() == 'mine'
  assert link.read_text() == 'new' and not link.is_symlink()


def test_the_temporary_name_is_never_the_same(tmp_path):
  seen = set()
  for _ in range(3):
    with files.writing(tmp_path / 'a') as temporary:
      seen.add(temporary.name)
  assert len(seen) == 3


def test_a_folder_that_another_process_tidied_up_is_made_again(
  tmp_path, monkeypatch
):
  mkdir, removed = pathlib.Path.mkdir, []

  def make(path, *arguments, **options):
    mkdir(path, *arguments, **options)
    if path.name == 'partial' and len(removed) < times:
      removed.append(path.rmdir())

  monkeypatch.setattr(pathlib.Path, 'mkdir', make)
  times = 3
  files.write(tmp_path / 'one', 'text', within=tmp_path / 'partial')
  assert (tmp_path / 'one').read_text() == 'text' and len(removed) == 3
  # Control: one that cannot be made at all ends in a sentence.
  times = 10**6
  with pytest.raises(UserError, match='cannot write'):
    files.write(tmp_path / 'two', 'text', within=tmp_path / 'partial')


def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path):
  path = files.write(tmp_path / 'a', 'one')
  assert files.write(path, 'one', replace=False) == path
  with pytest.raises(UserError, match='exists'):
    files.write(path, 'two', replace=False)
  assert path.read_text() == 'one'


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
  with files.writing(tmp_path / 'f', folder=True) as folder:
    (folder / 'a').write_text('1')
    assert not (tmp_path / 'f').exists()
  assert names(tmp_path / 'f') == ['a']
  with (
    pytest.raises(RuntimeError),
    files.writing(tmp_path / 'g', folder=True) as folder,
  ):
    (folder / 'a').write_text('1')
    raise RuntimeError
  assert names(tmp_path) == ['f']
  with (
    pytest.raises(UserError, match='it is a folder'),
    files.writing(tmp_path / 'f'),
  ):
    pass


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
  code = (
    'import os, sys; from unitemp_jax import files\n'
    'with files.writing(sys.argv[1]) as t: os._exit(9)'
  )
  subprocess.run([sys.executable, '-c', code, tmp_path / 'a'], check=False)
  assert len(names(tmp_path)) == 1
  other = tmp_path / f'.unitemp-{12 * "a"}-1-{16 * "0"}.tmp'
  other.write_text('of another machine')
  with files.writing(tmp_path / 'b'):
    with files.writing(tmp_path / 'c'):
      pass
    # Negative control: what this process writes is not swept.
    assert len(names(tmp_path)) == 3
  assert names(tmp_path) == [other.name, 'b', 'c']
  os.utime(other, (0, 0))
  files.write(tmp_path / 'b', 'x')
  assert names(tmp_path) == ['b', 'c']


def test_hashes(tmp_path):
  one = files.write(tmp_path / 'one', 'ab')
  two = files.write(tmp_path / 'two', b'c')
  assert files.file_sha256(one, two) == files.sha256('abc')
  assert files.sha256('abc').startswith('ba7816bf')


BAD = {
  'garbage': (b'{"a": ', 'not JSON'),
  'empty': (b'', 'not JSON'),
  'a list': (b'[1]', 'a list, not a table'),
  'a number': (b'7', '7, not a table'),
  'deep': (b'[' * 20_000, 'too deep'),
  'not UTF-8': (b'"\xff"', 'UTF-8'),
  'huge number': (b'9' * 5000, 'not JSON'),
  'keys': (b'{"b": 1}', 'lacks a'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_json_is_named_with_its_file(tmp_path, name):
  content, why = BAD[name]
  path = files.write(tmp_path / 'some.json', content)
  with pytest.raises(UserError, match=rf'some\.json .*a table.*{why}.*mend it'):
    files.read_json(path, 'a table', 'mend it', keys=['a'])


def test_json_that_is_no_file(tmp_path):
  with pytest.raises(UserError, match='missing'):
    files.read_json(tmp_path / 'none')
  with pytest.raises(UserError, match='it is a folder'):
    files.read_json(tmp_path)
  path = files.write_json(tmp_path / 'good', {'a': 1})
  assert files.read_json(path, keys=['a']) == {'a': 1}


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path):
  with locks.lock(tmp_path / 'run'):
    who = f'process {os.getpid()} on .* since 20'
    with pytest.raises(UserError, match=who), locks.lock(tmp_path / 'run'):
      pass
    assert names(tmp_path / 'run') == [locks.LOCK]
  assert names(tmp_path) == []  # Nothing was written, and it was not there.
  (tmp_path / 'run').mkdir()
  with locks.lock(tmp_path / 'run'):
    pass
  assert names(tmp_path / 'run') == []


@pytest.mark.parametrize(
  'first, second, together',
  [
    ((0, 2), (1, 2), True),
    ((0, 1), (0, 2), False),
    ((0, 2), (0, 1), False),
    ((0, 2), (1, 4), False),
    ((1, 2), (1, 2), False),
  ],
)
def test_parts_of_one_number_write_together(tmp_path, first, second, together):
  with locks.lock(tmp_path, first):
    who = f'process {os.getpid()} on .* writing to {tmp_path} since'
    taken = pytest.raises(UserError, match=who)
    told = contextlib.nullcontext() if together else taken
    with told, locks.lock(tmp_path, second):
      pass
    left = [path.name for path in tmp_path.rglob(locks.LOCK)]
    assert left == [locks.LOCK]
  assert names(tmp_path) == []


def test_a_killed_part_is_in_nobodys_way(tmp_path):
  with locks.lock(tmp_path, (0, 2)):
    part = tmp_path / '.part-0-of-2'
    about = json.loads((part / locks.LOCK).read_text())
  files.write_json(part / locks.LOCK, {**about, 'born': 'before'})
  with locks.lock(tmp_path):
    assert names(tmp_path) == [locks.LOCK]


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
  code = (
    'import os, sys; from unitemp_jax.parallel import locks\n'
    'with locks.lock(sys.argv[1]): os._exit(9)'
  )
  subprocess.run([sys.executable, '-c', code, tmp_path], check=False)
  assert names(tmp_path) == [locks.LOCK]
  began = time.monotonic()
  with locks.lock(tmp_path):
    pass
  assert time.monotonic() - began < 5


def test_a_later_process_of_the_same_number_does_not_hold_the_lock(tmp_path):
  with locks.lock(tmp_path):
    about = json.loads((tmp_path / locks.LOCK).read_text())
  left = json.dumps({**about, 'born': 'before'})
  (tmp_path / locks.LOCK).write_text(left)
  with locks.lock(tmp_path):
    pass
  # Negative control: as it was, this very process would hold it.
  (tmp_path / locks.LOCK).write_text(json.dumps(about))
  with pytest.raises(UserError, match='writing'), locks.lock(tmp_path):
    pass


def test_a_zombie_is_not_alive():
  child = subprocess.Popen([sys.executable, '-c', ''], stdout=subprocess.PIPE)
  child.stdout.read()  # Ends with the process, which nobody has waited for.
  time.sleep(0.2)
  assert not files.is_alive(child.pid) and files.is_alive(os.getpid())
  child.wait()


def test_the_lock_of_another_machine_holds_while_it_is_touched(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(locks, '_BEAT', 0.02)
  monkeypatch.setattr(locks, '_WATCHED', 0.5)
  machine = files.this_machine
  monkeypatch.setattr(files, 'this_machine', lambda: 'there')
  with locks.lock(tmp_path):
    monkeypatch.setattr(files, 'this_machine', machine)
    taken = pytest.raises(UserError, match='has been writing')
    with taken, locks.lock(tmp_path):
      pass
    left = (tmp_path / locks.LOCK).read_text()
  (tmp_path / locks.LOCK).write_text(left)
  with locks.lock(tmp_path):
    assert json.loads((tmp_path / locks.LOCK).read_text()) != json.loads(left)


def test_what_a_shell_has_opened_is_read_and_other_pipes_are_not(tmp_path):
  read, write = os.pipe()
  try:
    os.write(write, b'a red one\n\n')
    os.close(write)
    assert files.read_lines(f'/dev/fd/{read}') == ['a red one']
  finally:
    os.close(read)
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', '/dev/zero', '/dev/fd/none'):
    with pytest.raises(UserError, match='no file'):
      files.read_text(path)
