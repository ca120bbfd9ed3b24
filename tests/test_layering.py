"""Imports go strictly down, and heavy packages stay where they belong."""

import ast
import pathlib

import pytest

import unitemp_jax

PACKAGE = pathlib.Path(unitemp_jax.__file__).parent

# Floors from the ground up. A folder may import its own floor and those below;
# what has no floor fails the test, and so does a floor that names nothing.
FLOORS = (
  ('errors', 'progress', 'shapes'),
  ('files', 'storage', 'timeline', 'diffusion', 'parallel', 'plans', 'video'),
  ('orders', 'data', 'models', 'objectives', 'evaluation.metrics'),
  ('sampling', 'convert', 'evaluation.classifiers'),
  ('generate',),
  ('training', 'evaluation_sets', 'evaluation.suites'),
  ('evaluation.clips', 'evaluation.ablation', 'bench', 'aot'),
  ('report',),
  ('compare', 'studio'),
  ('cli',),
)
LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names}
# Hold nothing themselves.
SHELLS = ('', 'evaluation')

# (importing, imported): forbidden although the levels would allow it.
FORBIDDEN = [
  ('models', 'plans'),
  ('models', 'orders'),
  ('objectives', 'models'),
  ('sampling', 'objectives'),
  ('generate', 'objectives'),
]

# Outside package -> the only places that may import it.
ONLY_IN = {
  'tensorflow': [],
  'torch': ['convert', 'bench.pytorch'],
  'sklearn': ['data', 'evaluation'],
  # Config is read by the command line and by what builds objects from it.
  'ml_collections': ['cli', 'training', 'aot.steps', 'aot.search'],
}

# The mathematics: arrays and the standard library, nothing else.
MATHS = ['diffusion', 'plans', 'orders', 'models.rope']
NOT_IN_MATHS = [
  'flax',
  'optax',
  'orbax',
  'ml_collections',
  'tensorflow_datasets',
]


def is_under(module, prefix):
  return module == prefix or module.startswith(prefix + '.')


def level_of(module):
  """Returns the level of a module named below the package, or None."""
  if module in SHELLS:
    return 0
  known = [p for p in LEVELS if is_under(module, p)]
  return LEVELS[max(known, key=len)] if known else None


def imports_of(module, is_package, source, modules):
  """Returns the full names imported anywhere in a file, lazily too.

  `from package import name` counts as `package.name` where that is a module
  and as `package` otherwise.
  """
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        parts = ['unitemp_jax', *(module.split('.') if module else [])]
        up = node.level - (1 if is_package else 0)
        parts = parts[: len(parts) - up]
        base = '.'.join([*parts, base]) if base else '.'.join(parts)
      for alias in node.names:
        full = f'{base}.{alias.name}'
        found.add(full if full in modules else base)
  return found


def violations(module, imported):
  """Returns one sentence per import that `module` may not have."""
  found = []
  level = level_of(module)
  if level is None:
    return [f'{module} has no floor in FLOORS']
  for name in sorted(imported):
    root, _, inner = name.partition('.')
    if root == 'unitemp_jax':
      target = level_of(inner)
      if target is None or target > level:
        found.append(f'{module} (level {level}) imports {inner} ({target})')
      for above, below in FORBIDDEN:
        if is_under(module, above) and inner and is_under(inner, below):
          found.append(f'{module} imports {inner}, which is forbidden')
    elif root in ONLY_IN and not any(
      is_under(module, place) for place in ONLY_IN[root]
    ):
      found.append(f'{module} imports {root}')
    elif root in NOT_IN_MATHS and any(is_under(module, m) for m in MATHS):
      found.append(f'{module} is mathematics and imports {root}')
  return found


def read_package():
  """Returns {module below the package: (is it a package, source)}."""
  sources = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = list(path.relative_to(PACKAGE).with_suffix('').parts)
    is_package = parts[-1] == '__init__'
    module = '.'.join(parts[:-1] if is_package else parts)
    sources[module] = (is_package, path.read_text(encoding='utf-8'))
  return sources


def read_imports():
  sources = read_package()
  names = {f'unitemp_jax.{m}' if m else 'unitemp_jax' for m in sources}
  return {
    module: imports_of(module, is_package, source, names)
    for module, (is_package, source) in sources.items()
  }


def find_cycle(graph):
  """Returns the modules of one import cycle, or an empty list."""
  done = set()

  def visit(node, path):
    if node in path:
      return path[path.index(node) :]
    if node in done:
      return []
    for following in sorted(graph.get(node, ())):
      cycle = visit(following, [*path, node])
      if cycle:
        return cycle
    done.add(node)
    return []

  for node in sorted(graph):
    cycle = visit(node, [])
    if cycle:
      return cycle
  return []


def test_imports_go_down():
  found = []
  for module, imported in read_imports().items():
    found += violations(module, imported)
  assert not found, '\n'.join(found)


def test_every_floor_names_something():
  modules = read_package()
  assert unknown_names(LEVELS, modules) == []
  assert unknown_names(['models', 'modles'], modules) == ['modles']


def unknown_names(names, modules):
  return [n for n in names if not any(is_under(m, n) for m in modules)]


def test_there_is_no_import_cycle():
  """Modules of one level may import each other, but never in a circle."""
  imports = read_imports()
  graph = {
    module: {
      name.partition('.')[2]
      for name in imported
      if name.startswith('unitemp_jax.')
    }
    for module, imported in imports.items()
  }
  assert find_cycle(graph) == []
  assert find_cycle({'a': {'b'}, 'b': {'c'}, 'c': {'a'}}) == ['a', 'b', 'c']


SYNTHETIC = [
  ('diffusion.flow', 'from unitemp_jax.models import dit', 'level 1'),
  ('diffusion.flow', 'import flax.linen as nn', 'mathematics'),
  ('models.dit', 'from unitemp_jax import plans', 'forbidden'),
  ('models.dit', 'from .. import plans', 'forbidden'),
  ('objectives.dmd', 'from unitemp_jax.models import dit', 'forbidden'),
  ('sampling.sampler', 'from unitemp_jax import objectives', 'forbidden'),
  ('sampling.sampler', 'import unitemp_jax.generate.pipeline', 'level 3'),
  ('training.loop', 'from unitemp_jax.cli import main', 'level 5'),
  ('data.loader', 'import tensorflow as tf', 'tensorflow'),
  ('cli.train', 'def f():\n  from tensorflow import io', 'tensorflow'),
  ('models.dit', 'def f():\n  import torch', 'torch'),
  ('sampling.sampler', 'import sklearn.datasets', 'sklearn'),
  ('models.vae3d', 'import ml_collections', 'ml_collections'),
  ('misc', 'import os', 'no floor'),
]
ALLOWED = [
  ('models.dit', 'from unitemp_jax.models import attention\nimport flax'),
  ('objectives.dmd', 'from unitemp_jax.diffusion import flow'),
  ('convert.wan', 'def f():\n  import torch'),
  ('data.falling_digits', 'import tensorflow_datasets as tfds, sklearn'),
  ('training.loop', 'from unitemp_jax.sampling import sampler'),
  ('cli.train', 'from unitemp_jax.training import loop'),
]
MODULES = {
  f'unitemp_jax.{module}'
  for module in [
    *['plans', 'diffusion', 'diffusion.flow', 'objectives', 'cli', 'cli.main'],
    *['models', 'models.dit', 'models.attention', 'training.loop', 'training'],
    *['sampling', 'sampling.sampler', 'generate', 'generate.pipeline'],
  ]
}


@pytest.mark.parametrize(('module', 'source', 'expected'), SYNTHETIC)
def test_a_forbidden_import_is_found(module, source, expected):
  """Negative control: each rule finds its own violation."""
  found = violations(module, imports_of(module, False, source, MODULES))
  assert any(expected in sentence for sentence in found)


@pytest.mark.parametrize(('module', 'source'), ALLOWED)
def test_an_allowed_import_passes(module, source):
  assert not violations(module, imports_of(module, False, source, MODULES))
