"""Measured tables in a Markdown file."""

import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import results

BEGIN, END = '<!-- begin metrics -->', '<!-- end metrics -->'


def test_tables_replace_what_lay_between_the_marks(tmp_path):
  path = tmp_path / 'README.md'
  path.write_text(f'top\n{BEGIN}\nold\n{END}\nbottom\n')
  results.insert_tables(path, '## VAE\n\n| a |\n')
  results.insert_tables(path, '## VAE\n\n| b |\n')
  text = path.read_text()
  assert text.startswith('top\n') and text.endswith('\nbottom\n')
  assert '### VAE\n\n| b |' in text
  assert 'old' not in text and '| a |' not in text


@pytest.mark.parametrize(
  'text', ['no marks', f'{BEGIN} only one', f'{END} {BEGIN}']
)
def test_a_file_without_marks_is_left_alone(tmp_path, text):
  path = tmp_path / 'README.md'
  path.write_text(text)
  with pytest.raises(UserError, match='must contain'):
    results.insert_tables(path, 'x')
  assert path.read_text() == text


def test_marks_of_another_name_are_others(tmp_path):
  path = tmp_path / 'README.md'
  begin, end = '<!-- begin set -->', '<!-- end set -->'
  path.write_text(f'{BEGIN}\na\n{END}\n{begin}\nold\n{end}\n')
  results.insert_tables(path, 'new', 'set')
  assert path.read_text() == f'{BEGIN}\na\n{END}\n{begin}\nnew\n{end}\n'


@pytest.mark.parametrize('more', [[], ['--dry_run']])
def test_the_command_refuses_a_file_without_marks_first(tmp_path, capsys, more):
  path = tmp_path / 'README.md'
  path.write_text('no marks')
  out = tmp_path / 'out'
  arguments = ['evaluate', f'--out={out}', f'--readme={path}', *more]
  assert cli.main(arguments) == 2
  assert 'must contain <!-- begin metrics -->' in capsys.readouterr().err
  assert not out.exists()
