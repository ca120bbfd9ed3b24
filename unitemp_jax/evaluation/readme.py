"""Puts the measured tables between two marks of a Markdown file."""

import os
import re
from pathlib import Path

from unitemp_jax.errors import UserError

BEGIN = '<!-- begin metrics -->'
END = '<!-- end metrics -->'


def insert(path: Path, tables: str) -> None:
  """Replaces what lies between the marks, atomically.

  Args:
    path: of the Markdown file.
    tables: Markdown; its headings go one level down.

  Raises:
    UserError: the file cannot be read or lacks the marks.
  """
  try:
    text = path.read_text()
  except OSError as error:
    raise UserError(
      f'--readme={path} cannot be read ({error.strerror}); check the path.'
    ) from error
  if text.count(BEGIN) != 1 or text.count(END) != 1:
    raise UserError(
      f'--readme={path} must contain {BEGIN} and {END} once each; add them '
      'where the tables belong.'
    )
  before, rest = text.split(BEGIN)
  after = rest.split(END)[1]
  tables = re.sub(r'^(#+) ', r'#\1 ', tables, flags=re.MULTILINE).strip()
  partial = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  partial.write_text(f'{before}{BEGIN}\n{tables}\n{END}{after}')
  os.replace(partial, path)
