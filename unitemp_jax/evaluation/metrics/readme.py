"""Puts measured tables between two marks of a Markdown file."""

import re
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.errors import UserError


def marks(name: str) -> tuple[str, str]:
  """The marks before and after the tables of that name."""
  return f'<!-- begin {name} -->', f'<!-- end {name} -->'


def insert(path: Path, tables: str, name: str = 'metrics') -> None:
  """Replaces what lies between the marks, atomically.

  Args:
    path: of the Markdown file.
    tables: Markdown; its headings go one level down.
    name: in the marks.

  Raises:
    UserError: the file cannot be read or lacks the marks.
  """
  try:
    text = path.read_text()
  except OSError as error:
    raise UserError(
      f'--readme={path} cannot be read ({error.strerror}); check the path.'
    ) from error
  begin, end = marks(name)
  if text.count(begin) != 1 or text.count(end) != 1:
    raise UserError(
      f'--readme={path} must contain {begin} and {end} once each; add them '
      'where the tables belong.'
    )
  before, rest = text.split(begin)
  after = rest.split(end)[1]
  tables = re.sub(r'^(#+) ', r'#\1 ', tables, flags=re.MULTILINE).strip()
  files.write(path, f'{before}{begin}\n{tables}\n{end}{after}')
