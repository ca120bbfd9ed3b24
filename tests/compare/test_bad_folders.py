"""What users have in their folders: named through the command, and survived."""

import os

import moving_clips
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.evaluation.metrics.results import ResultTable


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
  """Good clips among other files, damage, and clips of other sizes and rates.

  Two folders with the same prompts.
  """
  root = tmp_path_factory.mktemp('mixed')
  for name in ('one', 'two'):
    folder = root / name
    for seed in range(3):
      clip = moving_clips.drifting_texture(33, 32, seed=seed)
      path = moving_clips.write(folder / f'prompt {seed}-0.mp4', clip)
    data = path.read_bytes()
    (folder / 'half-0.mp4').write_bytes(data[: len(data) // 2])
    (folder / 'text-0.mp4').write_text('no video')
    (folder / 'empty-0.mp4').touch()
    (folder / 'link-0.mp4').symlink_to('nowhere')
    (folder / 'Thumbs.db').touch()
    (folder / 'notes.md').write_text('mine')
    other = moving_clips.drifting_texture(40, 48, seed=7)
    moving_clips.write(folder / 'large-0.mp4', other, 16)
  return root


def names_of(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_measured_all_the_same(mixed, tmp_path, capsys):
  before = names_of(mixed / 'one')
  arguments = ['evaluate', 'folder', str(mixed / 'one')]
  assert cli.main([*arguments, f'--out={tmp_path}']) == 0
  said = capsys.readouterr().out
  for sentence in (
    'half-0.mp4: the end of the file is missing',
    'text-0.mp4: Invalid data',
    'empty-0.mp4: Invalid data',
    'link-0.mp4 is no file that can be read',
    '1 other files were not read, such as Thumbs.db',
    '2 sizes (3 of 32x32, 1 of 48x48)',
    '2 rates',
    '2 lengths',
  ):
    assert sentence in said
  table = ResultTable.from_json(tmp_path / 'metrics.json')
  assert {row.n for row in table.select('mean step')} == {4}
  assert names_of(mixed / 'one') == before


def test_folders_are_compared_all_the_same(mixed, tmp_path, capsys):
  arguments = ['compare', str(mixed / 'one'), str(mixed / 'two')]
  assert cli.main([*arguments, f'--out={tmp_path}', '--trials=2']) == 0
  said = capsys.readouterr().out
  assert 'left out: Cannot read' in said and 'half-0.mp4' in said
  assert 'one: 5 clips' in said
  table = ResultTable.from_json(tmp_path / 'metrics.json')
  rows = table.select('mean step')
  assert rows and {row.n for row in rows} == {4}


@pytest.mark.parametrize('verb', ['evaluate folder', 'compare'])
def test_a_full_disk_is_one_sentence(
  mixed, tmp_path, monkeypatch, capsys, verb
):
  def fail(*_):
    raise OSError(28, 'No space left on device')

  folders = [str(mixed / 'one')]
  if verb == 'compare':
    folders.append(str(mixed / 'two'))
  arguments = [*verb.split(), *folders, f'--out={tmp_path / "out"}']
  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', fail)
    assert cli.main(arguments) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and 'No space left on device' in error
  assert not [p for p in (tmp_path / 'out').rglob('*') if p.is_file()]
  # There is room again: the same command goes through.
  assert cli.main(arguments) == 0


@pytest.mark.parametrize(
  ('name', 'text'),
  [('a.txt', ''), ('a.txt', '\n \n'), ('a.json', '[]'), ('a.csv', 'prompt\n')],
)
@pytest.mark.parametrize('suite', ['vbench', 'plain'])
def test_an_empty_manifest_is_refused(tmp_path, capsys, name, text, suite):
  path = tmp_path / name
  path.write_text(text)
  arguments = [f'--suite={suite}', f'--manifest={path}']
  out = tmp_path / 'out'
  assert cli.main(['evaluate', 'generate', *arguments, f'--out={out}']) == 2
  assert 'holds no prompt' in capsys.readouterr().err
  assert not out.exists()


def test_duplicate_prompts_are_named(tmp_path, capsys):
  path = tmp_path / 'a.txt'
  path.write_text('a dog\na cat\na dog\n')
  arguments = [f'--manifest={path}', f'--out={tmp_path / "out"}', '--dry_run']
  assert cli.main(['evaluate', 'generate', '--suite=vbench', *arguments]) == 0
  said = capsys.readouterr().out
  assert "such as 'a dog' (2 times)" in said and '10 clips' in said
  # Where clips are numbered, each gets a clip and seeds of its own.
  assert cli.main(['evaluate', 'generate', '--suite=plain', *arguments]) == 0
  lines = [x for x in capsys.readouterr().out.splitlines() if 'a dog' in x]
  assert len(lines) == 2 and len({x.split('seed')[1] for x in lines}) == 2
