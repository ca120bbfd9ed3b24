"""What a user has is never replaced, and what cannot be used is a sentence."""

import concurrent.futures
import json
import os
import pathlib
import shutil

import moving_clips
import pytest
from votes import DEEP, KEY, VOTES

from unitemp_jax.cli import main as cli
from unitemp_jax.compare import blind
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import measure


@pytest.fixture
def study(tmp_path):
  """A key and votes; the working folder."""
  (tmp_path / 'K.json').write_text(json.dumps(KEY))
  (tmp_path / 'v.json').write_text(json.dumps(VOTES))
  return tmp_path


def score(folder, out=''):
  arguments = [str(folder / 'v.json'), f'--key={folder / "K.json"}']
  arguments += [f'--out={folder / out}'] if out else []
  return cli.main(['compare', 'votes', *arguments])


@pytest.mark.parametrize('out', ['link.json', 'mine.json'])
def test_votes_replace_neither_key_nor_votes_nor_a_strange_file(
  study, capsys, out
):
  (study / 'link.json').symlink_to('K.json')
  (study / 'mine.json').write_text('{"mine": 1}')
  before = {p.name: p.read_bytes() for p in study.iterdir()}
  assert score(study, out) == 2
  assert f'--out={study / out}' in capsys.readouterr().err
  assert {p.name: p.read_bytes() for p in study.iterdir()} == before
  # Their own table they do replace.
  assert score(study, 'table.json') == score(study, 'table.json') == 0


@pytest.mark.parametrize(
  'text',
  [
    *('', 'x', '[1]', '[]', '5', 'null', '"a"', '{}', DEEP),
    json.dumps({**KEY, 'systems': 5}),
    json.dumps({**KEY, 'trials': []}),
    json.dumps({**KEY, 'trials': {'t': {'left': 'a', 'right': ['b']}}}),
  ],
)
def test_a_key_of_another_shape_is_one_sentence(study, capsys, text):
  (study / 'K.json').write_text(text)
  assert score(study) == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'K.json' in said and '--key' in said


def test_a_folder_for_a_key_is_one_sentence(study, capsys):
  (study / 'K.json').unlink()
  (study / 'K.json').mkdir()
  assert score(study) == 2
  assert 'K.json' in capsys.readouterr().err


@pytest.mark.parametrize(
  'text',
  [
    *('', 'x', '[1]', '[]', '5', '{}', DEEP),
    *(json.dumps({**VOTES, 'votes': v}) for v in ({}, None, 'left')),
    *(
      json.dumps({**VOTES, 'votes': [v]})
      for v in (3, {}, {'trial': [], 'choice': 'left'}, {'trial': 't'}, [])
    ),
    json.dumps({**VOTES, 'votes': [{'trial': 't', 'choice': ['left']}]}),
  ],
)
def test_votes_of_another_shape_are_one_sentence(study, capsys, text):
  (study / 'v.json').write_text(text)
  assert score(study) == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'v.json' in said


@pytest.fixture
def clips(tmp_path):
  """Two systems of two clips each, sidecars of all kinds of damage."""
  for system in ('a', 'b'):
    for number, text in enumerate((DEEP, '[1]')):
      clip = moving_clips.drifting_texture(13, 32, seed=number)
      path = tmp_path / system / f'p{number}-0.mp4'
      moving_clips.write(path, clip)
      path.with_suffix('.json').write_text(text)
  return tmp_path


def listing(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('out', ['a', 'b'])
@pytest.mark.parametrize('verb', ['compare', 'evaluate folder'])
def test_output_does_not_mix_with_clips(clips, capsys, out, verb):
  before = listing(clips)
  read = [f'{clips / "a"}', f'{clips / "b"}']
  if verb != 'compare':
    read = [read[0], f'--reference={read[1]}']
  assert cli.main([*verb.split(), *read, f'--out={clips / out}']) == 2
  assert 'choose another folder' in capsys.readouterr().err
  assert listing(clips) == before


def test_output_below_the_clips_is_not_taken_for_clips(clips, capsys):
  read = [f'{clips / "a"}', f'{clips / "b"}', f'--out={clips / "a" / "out"}']
  for _ in range(2):
    assert cli.main(['compare', *read]) == 0
    assert 'a: 2 clips' in capsys.readouterr().out


def test_another_page_is_kept(clips, capsys):
  (clips / 'out').mkdir()
  (clips / 'out' / 'index.html').write_text('my own page')
  before = listing(clips)
  read = [f'{clips / "a"}', f'{clips / "b"}', f'--out={clips / "out"}']
  assert cli.main(['compare', *read]) == 2
  assert cli.main(['evaluate', 'folder', read[0], read[2]]) == 2
  assert 'index.html is there already' in capsys.readouterr().err
  assert listing(clips) == before


@pytest.mark.parametrize('verb', ['compare', 'evaluate folder'])
def test_a_name_that_is_no_text_is_written_all_the_same(clips, verb):
  """And a record whose list of stages is none."""
  for system in 'ab':
    path = clips / system / 'p0-0.mp4'
    path.with_suffix('.json').unlink()
    path = path.rename(clips / system / '\udcff\udcfe-0.mp4')
    path.with_suffix('.json').write_text('{"stages": 5}')
    other = clips / system / 'p1-0.json'
    other.write_text('{"stages": ["a/b", "", null]}')
  words = [*verb.split(), f'{clips / "a"}', f'{clips / "b"}']
  words = words if verb == 'compare' else words[:-1]
  assert cli.main([*words, f'--out={clips / "out"}']) == 0
  table = (clips / 'out' / 'clips.csv').read_text()
  assert r'\udcff\udcfe-0.mp4' in table and 'p1-0.mp4' in table


@pytest.mark.parametrize('verb', ['compare', 'evaluate folder'])
def test_what_was_edited_or_is_a_link_stays(clips, capsys, verb):
  words = [*verb.split(), f'{clips / "a"}', f'{clips / "b"}']
  words = words if verb == 'compare' else words[:-1]
  words.append(f'--out={clips / "out"}')
  assert cli.main(words) == cli.main(words) == 0  # Its own it replaces.
  out, own = clips / 'out', (clips / 'out' / 'clips.csv').read_bytes()
  (out / 'clips.csv').write_text('mine')
  assert cli.main(words) == 2
  assert 'clips.csv was changed since' in capsys.readouterr().err
  assert (out / 'clips.csv').read_text() == 'mine'
  (out / 'clips.csv').write_bytes(own)
  shutil.rmtree(out / 'measured')
  (clips / 'victim').mkdir()
  (out / 'measured').symlink_to(clips / 'victim')
  assert cli.main(words) == 2
  assert 'measured is a link' in capsys.readouterr().err
  assert not list((clips / 'victim').iterdir())


def test_the_key_of_another_blind_page_stays(clips, capsys):
  words = ['compare', f'{clips / "a"}', f'{clips / "b"}']
  words.append(f'--out={clips / "out"}')
  assert cli.main(words) == cli.main(words) == 0
  key = json.loads((clips / 'out' / blind.KEY).read_text())
  assert not list((clips / 'out').glob('blind_key-*'))
  votes = {**VOTES, 'study': key['study']}
  votes['votes'] = [{'trial': next(iter(key['trials'])), 'choice': 'left'}]
  (clips / 'v.json').write_text(json.dumps(votes))
  assert cli.main([*words, '--question=Which one?']) == 0
  score = ['compare', 'votes', f'{clips / "v.json"}', '--key']
  assert cli.main([*score, f'{clips / "out" / blind.KEY}']) == 2
  [kept] = (clips / 'out').glob('blind_key-*')
  assert kept.name in capsys.readouterr().err
  assert cli.main([*score, f'{kept}']) == 0
  # What is no key at all is somebody's.
  (clips / 'out' / blind.KEY).write_text('{}')
  (clips / 'out' / '.written.json').unlink()
  assert cli.main(words) == 2
  assert 'no key of a blind' in capsys.readouterr().err


def test_more_processes_than_clips_or_cores_do_not_start(monkeypatch):
  started = []
  pool = concurrent.futures.ProcessPoolExecutor

  def counted(workers, context):
    started.append(workers)
    return pool(1, context)

  monkeypatch.setattr(concurrent.futures, 'ProcessPoolExecutor', counted)
  monkeypatch.setattr(os, 'cpu_count', lambda: 8)
  assert list(measure.spread(abs, [-1, 2, -3], 10**5, 1)) == [1, 2, 3]
  assert list(measure.spread(abs, [-1, 2, -3], 10**5, 4)) == [1, 2, 3]
  assert started == [3]


def test_an_earlier_comparison_is_no_clips(clips):
  """Those who once wrote into their folder get their clips back."""
  read = [f'{clips / "a"}', f'{clips / "b"}', f'--out={clips / "out"}']
  assert cli.main(['compare', *read]) == 0
  shutil.copytree(clips / 'out', clips / 'a', dirs_exist_ok=True)
  found = clip_folder.list_clips(clips / 'a').clips
  assert [clip.name for clip in found] == ['p0-0.mp4', 'p1-0.mp4']
  # Negative control: without its key, such a folder holds clips.
  (clips / 'a' / blind.KEY).unlink()
  assert len(clip_folder.list_clips(clips / 'a').clips) > 2


def test_a_disk_that_fills_up_leaves_no_page_without_numbers(
  clips, monkeypatch, capsys
):
  out = clips / 'out'
  arguments = ['compare', *(f'{clips / s}' for s in 'ab'), f'--out={out}']
  real = os.fsync
  ends = ('index.html', blind.KEY, 'metrics.json', 'comparison.md')

  def full(descriptor):
    path = pathlib.Path(os.readlink(f'/proc/self/fd/{descriptor}'))
    text = path.read_bytes() if path.is_file() else b''
    if text.startswith(b'{\n "results"'):  # The numbers, written last.
      raise OSError(28, 'No space left on device')
    real(descriptor)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full)
    assert cli.main(arguments) == 2
  assert 'No space left' in capsys.readouterr().err
  assert not [p for p in out.rglob('*') if p.name in ends]
  assert cli.main(arguments) == 0
  assert {p.name for p in out.rglob('*')} >= set(ends)


def test_of_a_clip_written_twice_the_mp4_is_measured(clips, capsys):
  for path in sorted((clips / 'a').glob('*.mp4')):
    shutil.copy(path, path.with_suffix('.mkv'))
  read = [f'{clips / "a"}', f'{clips / "b"}', f'--out={clips / "out"}']
  assert cli.main(['compare', *read]) == 0
  said = capsys.readouterr().out
  assert '2 clips are there as mp4 too, such as p0-0.mkv' in said
  assert 'a: 2 clips' in said and 'not paired' not in said
  # Where one system has no mp4, the comparison says so.
  for path in (clips / 'a').glob('*.mp4'):
    path.unlink()
  assert cli.main(['compare', *read]) == 0
  assert 'different kinds of file (a: .mkv, b: .mp4)' in capsys.readouterr().out


def test_a_folder_with_an_equals_sign_is_a_folder(clips, capsys):
  shutil.move(clips / 'a', clips / 'x=1')
  read = [f'{clips / "x=1"}', f'name={clips / "b"}', f'--out={clips / "out"}']
  assert cli.main(['compare', *read, '--dry_run']) == 0
  said = capsys.readouterr().out
  assert 'x=1: 2 clips' in said and 'name: 2 clips' in said
