"""What holds for the repository as a whole: imports, references, flat files."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAT_FILES = 6
# Notes that are not in the repository.
OUTSIDE = re.compile(
  r'(method|architecture|examples)\.md|\b[Ff]acts (section|file)|_facts\.md'
)
# Run or loaded by what is imported.
INDIRECT = {
  *('mypy', 'pre-commit', 'pytest-xdist', 'ruff'),
  *('httpx2', 'uvicorn'),
  *('clu', 'tensorboard', 'tensorflow'),
}


def normal(name):
  return re.match(r'[\w.-]+', name)[0].lower().replace('_', '-')


def declared(setup):
  """(required, extras by name) of a setup.py's text, as sets of names."""
  values = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse(setup).body
    if isinstance(node, ast.Assign)
    and getattr(node.targets[0], 'id', '') in ('REQUIRED', 'EXTRAS')
  }
  extras = values['EXTRAS'].items()
  return {normal(name) for name in values['REQUIRED']}, {
    extra: {normal(name) for name in names} for extra, names in extras
  }


def imported(texts):
  """Distributions that Python texts import, at the top or anywhere else."""
  names = set()
  for text in texts:
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Import):
        names |= {alias.name.split('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names.add(node.module.split('.')[0])
  owners = importlib.metadata.packages_distributions()
  return {
    # Many packages share the name google; one of them is used here.
    'google-cloud-storage'
    if name == 'google'
    else normal(owners.get(name, [name])[0])
    for name in names - set(sys.stdlib_module_names)
  }


def texts(*folders):
  return [
    path.read_text()
    for folder in folders
    for path in sorted((ROOT / folder).rglob('*.py'))
  ]


def faults(required, extras, package, tests):
  """What is imported and not declared, or declared and not imported."""
  optional = set().union(*(extras[name] for name in extras if name != 'test'))
  found = [f'{x} is not declared' for x in package - required - optional]
  known = required | optional | extras['test']
  found += [f'{x} of the tests is not declared' for x in tests - known]
  unused = {
    'is required by nothing': required - package,
    'is an extra of nothing': optional - package - tests,
    'is not imported by any test': extras['test'] - tests,
  }
  return found + [
    f'{x} {what}' for what in unused for x in unused[what] - INDIRECT
  ]


@pytest.fixture(scope='module')
def imports():
  local = (ROOT / 'tests', ROOT / 'launch')
  own = {normal(p.stem) for folder in local for p in folder.rglob('*.py')}
  own |= {'unitemp-jax', 'configs', 'launch', 'pod', 'tests'}
  package = imported(texts('unitemp_jax', 'configs', 'launch')) - own
  return package, imported(texts('tests')) - own


def test_what_is_imported_is_declared_and_the_reverse(imports):
  setup = (ROOT / 'setup.py').read_text()
  assert faults(*declared(setup), *imports) == []


def test_an_undeclared_and_an_unused_package_are_found():
  required, extras = {'jax', 'unused'}, {'test': {'pytest', 'mypy', 'idle'}}
  package = imported(['import jax\ndef f():\n  from PIL import Image\n'])
  assert faults(required, extras, package, {'pytest'}) == [
    'pillow is not declared',
    'unused is required by nothing',
    'idle is not imported by any test',
  ]


def test_few_files_lie_flat_in_the_package():
  flat = {path.name for path in (ROOT / 'unitemp_jax').glob('*.py')}
  assert len(flat - {'__init__.py'}) <= FLAT_FILES


def test_nothing_refers_to_notes_outside_the_repository():
  names = ('unitemp_jax', 'configs', 'launch', 'tests')
  files = [path for name in names for path in (ROOT / name).rglob('*.*')]
  found = [
    f'{path.relative_to(ROOT)}: {match[0]}'
    for path in [ROOT / 'README.md', ROOT / 'setup.py', *files]
    if path.suffix in ('.py', '.md', '.sh', '.toml', '.yaml', '.jinja', '.html')
    for match in OUTSIDE.finditer(path.read_text())
  ]
  assert found == []
  assert OUTSIDE.search(f'as in {"method"}.md section 4')  # Control.
