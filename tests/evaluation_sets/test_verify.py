"""What is missing, damaged or misnamed is found before a benchmark runs."""

import collections
import json
import os
import shutil

import fake_worker
import numpy as np
import pytest
from fake_worker import files, noise, wanted, work

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import verify
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.video.write import write_video


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  root = tmp_path_factory.mktemp('whole')
  work(root)
  return root


@pytest.fixture
def copy(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'set')
  return Store(tmp_path / 'set')


def kinds(store):
  """{kind: files} of the problems of a set, and how many clips are wanted."""
  count, problems = verify.verify_set(store.root)
  assert count == 24
  found = collections.defaultdict(list)
  for problem in problems:
    found[problem.kind].append(problem.file)
  return dict(found)


def rewrite(path, video, fps=8):
  write_video(path, video, fps, scale=1)


def test_a_whole_set_has_no_problem(copy):
  assert kinds(copy) == {}


def name_of(clip):
  return f'videos/{clip.path}.mp4'


def test_each_kind_of_damage_is_named(copy):
  clip = wanted()
  paths = [copy.video(own) for own in clip]
  paths[0].unlink()
  os.truncate(paths[1], 1000)
  paths[2].write_bytes(b'')
  rewrite(paths[3], noise(clip[3])[:5])
  rewrite(paths[4], noise(clip[4]), fps=16)
  rewrite(paths[5], noise(clip[5])[:, :16])
  content = bytearray(paths[6].read_bytes())
  content[-2] ^= 1  # one bit of the last tag or picture
  paths[6].write_bytes(content)
  copy.record(clip[7]).unlink()
  shutil.copyfile(paths[8], paths[9])
  (copy.root / 'videos' / 'forward' / 'notes.json').write_text('{}')
  found = kinds(copy)
  names = [name_of(own) for own in clip]
  assert found.pop('damaged')  # all of which the record knows the hash
  assert found == {
    'missing': [names[0]],
    'unreadable': names[1:3],
    'wrong length': [names[3]],
    'wrong rate': [names[4]],
    'wrong size': [names[5]],
    'frozen': [names[5]],
    'unfinished': [names[7]],
    'repeated': [names[9]],
    'stray': ['videos/forward/notes.json'],
  }


@pytest.mark.parametrize('recorded', [True, False])
def test_clips_that_show_nothing_are_found(tmp_path, recorded):
  """By what the record says of the pixels, or else by decoding."""
  videos = {
    'black': np.zeros((9, 32, 32, 3), np.uint8),
    'constant': np.full((9, 32, 32, 3), 120, np.uint8),
    'frozen': noise(wanted()[0])[:1].repeat(9, axis=0),
    'moving': noise(wanted()[0]),
  }
  store = Store(tmp_path)
  for clip, video in zip(wanted(), videos.values(), strict=False):
    fake_worker.write(store, clip, video)
    if not recorded:
      path = store.record(clip)
      record = json.loads(path.read_text())
      for name in ('brightness', 'contrast'):
        del record[name]
      path.write_text(json.dumps(record))
  names = [name_of(clip) for clip in wanted()[:4]]
  records = {
    name_of(clip): store.read_record(store.record(clip))
    for clip in wanted()[:4]
  }
  found = verify.verify_folder(
    tmp_path, names, verify.Wanted(), records.__getitem__, below='videos'
  )
  assert [(p.file, p.kind) for p in found] == list(
    zip(names[:3], videos, strict=False)
  )


@pytest.mark.parametrize(
  'right, wrong',
  [
    ('thing 0, seen from afar.-1', 'thing 0, seen from afar-1'),
    ('thing 0, seen from afar.-1', 'Thing 0_ seen from afar.-1'),
    ('thing 0, seen from afar.-1', 'thing_0,_seen_from_afar.-1'),
    ('a' * 99 + ' b, then c-0', 'a' * 99 + ' -0'),
    ('a dog runs over the green meadow-3', 'a dog runs over green meadow-3'),
  ],
)
def test_what_other_tools_make_of_names_is_recognised(tmp_path, right, wrong):
  names = [f'{right}.mp4', 'something else-0.mp4']
  for name in (wrong, 'something else-0'):
    rewrite(tmp_path / f'{name}.mp4', noise(wanted()[len(name) % 24]))
  found = verify.verify_folder(tmp_path, names, verify.Wanted(9, 8, 32, 32))
  assert [(p.kind, p.file) for p in found] == [('misnamed', f'{wrong}.mp4')]
  assert found[0].what == f'it should probably be {right}.mp4'


def test_a_name_that_fits_several_is_not_guessed(tmp_path):
  """100 characters shared by two prompts; and another sample is no match."""
  names = ['x' * 99 + f' {i}-0.mp4' for i in 'ab']
  rewrite(tmp_path / ('x' * 99 + ' -0.mp4'), noise(wanted()[0]))
  found = verify.verify_folder(tmp_path, names, verify.Wanted())
  assert [p.kind for p in found] == ['stray', 'missing', 'missing']
  rewrite(tmp_path / ('y' * 30 + '-7.mp4'), noise(wanted()[1]))
  names = ['y' * 30 + '-0.mp4']
  found = verify.verify_folder(tmp_path, names, verify.Wanted())
  assert [p.kind for p in found] == ['stray', 'stray', 'missing']


def call(*words):
  return cli.main(['evaluate', 'verify', *map(str, words)])


def test_a_list_saved_by_an_editor_of_windows_is_read(copy):
  path = copy.root / 'clips.jsonl'
  path.write_text('\ufeff' + path.read_text(), encoding='utf-8')
  assert kinds(copy) == {}
  path.write_text('x' + path.read_text(), encoding='utf-8')  # Control.
  with pytest.raises(UserError, match=r'clips\.jsonl'):
    kinds(copy)


def test_the_command_repairs_a_set(copy, capsys):
  assert call(copy.root) == 0
  assert capsys.readouterr().out == '24 clips wanted: all there and whole\n'
  before = files(copy.root)
  path = copy.video(wanted()[3])
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)
  assert call(copy.root) == 1
  assert name_of(wanted()[3]) in capsys.readouterr().out
  # Its size is right, so that generating again would not touch it.
  assert work(copy.root) == 0
  assert call(copy.root, '--repair') == 1
  assert '1 clips will be made again' in capsys.readouterr().out
  assert work(copy.root) == 1
  assert files(copy.root) == before
  assert call(copy.root) == 0


@pytest.mark.parametrize('kept', [0, 23])
def test_a_list_that_lost_clips_is_named(copy, capsys, kept):
  """Its videos are gone as well, so that nothing else is wrong."""
  path = copy.root / 'clips.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:kept]))
  for line in map(json.loads, lines[kept:]):
    (copy.root / line['video']).unlink()
  assert call(copy.root) == 1
  said = capsys.readouterr().out
  assert f'clips.jsonl: it lists {kept} clips, and set.json says 24' in said
  assert said.endswith('24 clips wanted: 1 damaged\n')
  assert work(copy.root) == 24 - kept
  assert call(copy.root) == 0


def test_the_command_checks_folders_of_other_systems(whole, tmp_path, capsys):
  manifest = tmp_path / 'prompts.txt'
  manifest.write_text('\n'.join(fake_worker.NAMES))
  folder = whole / 'videos' / 'forward'
  words = [folder, '--suite=vbench', f'--manifest={manifest}', '--samples=2']
  sizes = ['--frames=9', '--fps=8', '--size=32x32']
  assert call(*words, *sizes) == 0
  assert '12 clips wanted: all there' in capsys.readouterr().out
  assert call(*words, '--frames=81', '--size=480x832') == 1
  out = capsys.readouterr().out
  assert '12 wrong length, 12 wrong size' in out
  assert '9 frames instead of 81' in out
  assert call(*words[:-1]) == 1
  out = capsys.readouterr().out
  assert '12 clips wanted' not in out and '30 clips wanted: 18 missing' in out


@pytest.mark.parametrize(
  'words, reason',
  [
    (['--suite=vbench'], 'belong together'),
    (['--suite=vbench', '--manifest=x.txt', '--repair'], 'made only'),
    (['--suite=i2v', '--manifest=x.txt'], 'the names are the same'),
    (['--suite=vbench', '--manifest=x.txt'], 'no file x.txt'),
  ],
)
def test_bad_arguments_are_refused(tmp_path, words, reason, capsys):
  assert call(tmp_path, *words) == 2
  assert reason in capsys.readouterr().err


def test_a_folder_that_is_none_is_refused(tmp_path):
  with pytest.raises(UserError, match='is not a folder'):
    verify.verify_folder(tmp_path / 'no', [], verify.Wanted())
  with pytest.raises(UserError, match='is no evaluation set'):
    verify.verify_set(tmp_path)
