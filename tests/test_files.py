import errno
import pathlib

import pytest

from unitemp_jax import files
from unitemp_jax.errors import UserError


def fill_disk(monkeypatch):
  """From now on, files are cut short after a few bytes, as on a full disk."""
  write = pathlib.Path.write_bytes

  def fail(path, data):
    write(path, data[:3])
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', fail)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(
  tmp_path, monkeypatch
):
  path = files.write(tmp_path / 'new' / 'a.txt', 'old')
  assert path.read_text() == 'old'
  assert files.write(path, 'newer').read_text() == 'newer'
  fill_disk(monkeypatch)
  with pytest.raises(UserError, match='No space left on device'):
    files.write(path, 'newest')
  assert path.read_text() == 'newer'
  assert list(path.parent.iterdir()) == [path]
