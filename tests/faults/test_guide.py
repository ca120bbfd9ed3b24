"""The table of faults names tests that exist, one for each promise."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / 'unitemp_jax/cli/README.md'


def promises(page):
  """Numbers of the rows of the table, and the tests by number."""
  rows = re.findall(r'^\|[^|*]+\|[^|]+\| (\d+) \|$', page, re.MULTILINE)
  tests = re.findall(r'^(\d+)\. `tests/(\S+)`: `(\w+)`$', page, re.MULTILINE)
  found = {number: (file, name) for number, file, name in tests}
  assert len(found) == len(tests), 'a number stands for two tests'
  return set(rows), found


def missing(tests):
  """Tests that are not there."""
  found = []
  for file, name in tests.values():
    path = TESTS / file
    there = path.is_file() and f'def {name}(' in path.read_text()
    found += [] if there else [f'{file}: {name}']
  return found


def test_every_promise_has_a_test_that_exists():
  rows, tests = promises(PAGE.read_text())
  assert len(rows) > 25
  assert rows == set(tests)
  assert not missing(tests)


def test_a_test_that_is_not_there_is_found():
  page = '| a | b | 1 |\n\n1. `tests/faults/test_guide.py`: `test_none`\n'
  rows, tests = promises(page)
  assert rows == {'1'}
  assert missing(tests) == ['faults/test_guide.py: test_none']
  with pytest.raises(AssertionError, match='two tests'):
    promises(page + page)
