"""Files and functions of the package stay short enough to be read."""

import ast
import pathlib

import unitemp_jax

PACKAGE = pathlib.Path(unitemp_jax.__file__).parent
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80

# 'file.py' or 'file.py:function' -> why it may be longer. Keep it short.
EXCEPTIONS: dict[str, str] = {}


def find_long(name, source):
  """Returns {'name' or 'name:function': lines} of what is over its limit."""
  long = {}
  lines = len(source.splitlines())
  if lines > MAX_FILE_LINES:
    long[name] = lines
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      lines = node.end_lineno - node.lineno + 1
      if lines > MAX_FUNCTION_LINES:
        long[f'{name}:{node.name}'] = lines
  return long


def test_no_file_or_function_is_too_long():
  long = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    name = path.relative_to(PACKAGE).as_posix()
    long.update(find_long(name, path.read_text(encoding='utf-8')))
  undeclared = {k: v for k, v in long.items() if k not in EXCEPTIONS}
  assert not undeclared
  assert set(EXCEPTIONS) <= set(long), 'an exception is no longer needed'


def test_the_check_finds_long_ones():
  """Negative control: one line over either limit is found, none at it."""
  body = '\n'.join(['  pass'] * MAX_FUNCTION_LINES)
  assert find_long('a.py', f'def f():\n{body}') == {'a.py:f': 81}
  nested = f'class C:\n  async def g(self):\n{body}'.replace(
    '  pass', '    pass'
  )
  assert find_long('a.py', nested) == {'a.py:g': 81}
  assert find_long('a.py', f'def f():\n{body[7:]}') == {}
  assert find_long('b.py', 'x = 1\n' * 501) == {'b.py': 501}
  assert find_long('b.py', 'x = 1\n' * 500) == {}
