"""Tables between two marks of a Markdown file, for `--readme=FILE`."""

import re
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.errors import UserError


def split(path: Path, name: str = 'metrics') -> tuple[str, str]:
  """Returns the text up to the first mark, and from the second one on.

  Raises:
    UserError: the file cannot be read or lacks the marks.
  """
  begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
  try:
    text = path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'--readme={path} cannot be read ({error}); check the path.'
    ) from error
  marks = re.findall(f'{begin}|{end}', text)
  if marks != [begin, end]:
    raise UserError(
      f'--readme={path} must contain {begin} and then {end}, once each; add '
      'them where the tables belong.'
    )
  before, rest = text.split(begin)
  return before + begin, end + rest.split(end)[1]


def insert(path: Path, tables: str, name: str = 'metrics') -> None:
  """Replaces what lies between the marks; headings go one level down."""
  before, after = split(path, name)
  tables = re.sub(r'^(#+) ', r'#\1 ', tables, flags=re.MULTILINE).strip()
  files.write(path, f'{before}\n{tables}\n{after}')
