"""Faults around one small clip that is made: links, leftovers, room, locks."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import store
from unitemp_jax.models import weights
from unitemp_jax.parallel import locks
from unitemp_jax.training import metrics
from unitemp_jax.video.write import write_video

COMMAND = ['generate', '--prompt=x', '--out=o', f'--model={random_model()}']
CLIP = 'o/forward/0000-x'


def run(*more):
  return cli.main([*COMMAND, *more])


def listing(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.fixture
def empty(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder with one clip, made beside links from its old temporary names."""
  folder = tmp_path_factory.mktemp('made')
  (folder / 'victim').write_text('mine')
  (folder / 'o/forward').mkdir(parents=True)
  for name in ('0000-x.json.tmp', '.0000-x.mp4.part', '0000-x.mp4.tmp'):
    (folder / 'o/forward' / name).symlink_to('../../victim')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    assert run() == 0
  return folder


@pytest.fixture
def again(made, empty):
  """A copy of it, as the working folder."""
  shutil.copytree(made, empty, symlinks=True, dirs_exist_ok=True)
  return empty


def test_temporary_names_follow_no_links(made):
  assert (made / 'victim').read_text() == 'mine'
  assert (made / f'{CLIP}.mp4').stat().st_size > 100


def test_a_deleted_video_is_made_again(again, capsys):
  before = listing(again)
  (again / f'{CLIP}.mp4').unlink()
  assert run() == 0
  assert 'made 1, 0 were there' in capsys.readouterr().out
  assert listing(again)[f'{CLIP}.mp4'] == before[f'{CLIP}.mp4']
  assert run() == 0
  assert 'made 0, 1 were there' in capsys.readouterr().out


@pytest.mark.parametrize('more', ['--seed=1', '--length=5', '--lossless'])
def test_other_arguments_name_both_files(again, capsys, more):
  before = listing(again)
  assert run(more) == 2
  said = capsys.readouterr().err
  assert f'{CLIP}.mp4' in said and '0000-x.json' in said
  assert listing(again) == before
  assert run(more, '--dry_run') == 2  # In the same words.
  assert capsys.readouterr().err == said


def test_a_dry_run_takes_what_is_whole_for_made(again):
  before = listing(again)
  assert run('--dry_run') == 0
  (again / f'{CLIP}.mp4').unlink()
  assert run('--dry_run') == 0  # It will be made again.
  (again / f'{CLIP}.json').unlink()
  assert run('--dry_run') == 2  # A poster that nothing tells of.
  assert before


@pytest.mark.parametrize('text', ['', '{', '[1]', '[]', '5', '[' * 20_000])
def test_a_sidecar_of_garbage_is_kept_and_said(again, capsys, text):
  (again / f'{CLIP}.json').write_text(text)
  before = listing(again)
  assert run() == 2
  assert '0000-x.json' in capsys.readouterr().err
  assert listing(again) == before


def test_a_second_writer_is_told_who_writes(empty, capsys):
  with locks.lock(empty / 'o'):
    before = listing(empty)
    assert run() == 2
    said = capsys.readouterr().err
    assert 'process' in said and 'writing to' in said
    assert listing(empty) == before


def test_a_full_disk_is_found_before_anything_is_made(
  empty, monkeypatch, capsys
):
  usage = namedtuple('usage', 'total used free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(1, 1, 2**16))
  assert run('--length=5') == 2
  assert 'make room or choose another --out' in capsys.readouterr().err
  assert not list(empty.rglob('*.mp4'))


@pytest.mark.parametrize(
  'name', ['videos', 'records/forward', 'posters/forward', 'progress', 'plans']
)
def test_a_set_is_not_written_through_links(empty, capsys, name):
  """Nor is what lies behind them deleted; the set may lie behind one itself."""
  (empty / 'victim').mkdir()
  (empty / 'set').mkdir()
  (empty / 'behind').symlink_to('set')
  (empty / 'p.txt').write_text('x')
  words = ['evaluate', 'generate', '--suite=plain', '--manifest=p.txt']
  words += ['--out=behind', f'--model={random_model()}', '--dry_run']
  assert cli.main(words) == 0
  link = empty / 'set' / name
  link.parent.mkdir(exist_ok=True)
  link.symlink_to(empty / 'victim')
  capsys.readouterr()
  assert cli.main(words) == 2
  assert f'behind/{name} is a link' in capsys.readouterr().err
  clip = {'order': 'forward', 'key': 'k'}
  for kind in ('video', 'record'):
    clip[kind] = f'{kind}s/forward/0000-x-0'
  made = store.Store(empty / 'behind')
  with pytest.raises(UserError, match='is a link'):
    made.check_no_links([clip])


def test_an_order_is_not_written_through_a_link(empty, capsys):
  (empty / 'victim').mkdir()
  (empty / 'o').mkdir()
  (empty / 'o/forward').symlink_to(empty / 'victim')
  assert run('--dry_run') == 2
  assert 'o/forward is a link' in capsys.readouterr().err


def test_logs_are_not_appended_to_through_links(empty):
  (empty / 'victim').write_text('mine\n')
  (empty / 'progress').mkdir()
  (empty / 'progress/0-of-1.jsonl').symlink_to(empty / 'victim')
  with pytest.raises(UserError, match='cannot write progress/0-of-1'):
    store.Journal(Path(), (0, 1)).log('end')
  with pytest.raises(OSError):
    metrics.open_log(empty / 'progress/0-of-1.jsonl')
  assert (empty / 'victim').read_text() == 'mine\n'


@pytest.mark.filterwarnings('default::unitemp_jax.errors.Remark')
def test_what_may_not_be_read_is_called_that(empty, monkeypatch, capsys):
  """Even where tests run as root, who may read all."""

  def denied(path, *more):
    if 'locked' in str(path):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return real(path, *more)

  (empty / 'clips/locked').mkdir(parents=True)
  write_video(empty / 'clips/a-0.mp4', np.zeros((5, 16, 16, 3), 'uint8'), 12)
  real = os.scandir
  monkeypatch.setattr(os, 'scandir', denied)
  words = ['evaluate', 'folder', 'clips', '--out=m', '--dry_run']
  assert cli.main(words) == 0
  said = capsys.readouterr()
  assert '1 clips' in said.out
  assert 'clips/locked cannot be read (Permission denied)' in said.err
  real = open
  monkeypatch.setattr(weights, 'open', denied, raising=False)
  with pytest.raises(UserError, match='Permission denied'):
    weights.open_safetensors(empty / 'locked.safetensors')
