"""Imports go strictly down, and heavy packages stay where they belong."""

import ast
import pathlib

import pytest

import unitemp_jax

PACKAGE = pathlib.Path(unitemp_jax.__file__).parent

# Level of each module below `unitemp_jax`; the longest matching prefix wins, a
# star matches the rest of a name. A module may import its own level and those
# below. A module without a level fails the test: give it one.
LEVELS = {
  '': 0,  # unitemp_jax/__init__.py itself
  'errors': 0,
  'shapes': 0,
  'flow': 0,
  'solvers': 0,
  'rope': 0,
  'plans': 0,
  'orders': 0,
  'plan_table': 0,
  'plan_laws': 0,
  'plan_text': 0,
  'plan_drawing': 0,
  'evaluation': 0,
  'storyboard_*': 0,
  'storyboard': 3,
  'models': 1,
  'data': 1,
  'convert': 1,
  'training': 1,
  'evaluation.digit_oracle': 2,  # fitted to real clips
  'evaluation.arrow_of_time': 2,
  'evaluation.clip_folder': 2,  # these read files of clips
  'evaluation.direction': 2,
  'evaluation.likeness': 2,
  'evaluation.measure_clips': 2,
  'evaluation.measure_folder': 3,
  'generate': 2,
  'objectives': 2,
  'training.checkpoint': 2,
  'training.metrics': 2,
  'training.builders': 2,
  'training.plan_sets': 2,
  'training.export': 2,
  'generate.pipeline': 3,
  'generate.embedded_pipeline': 3,
  'generate.jobs': 3,
  'generate.resume': 3,
  'training.rollout': 3,
  'training.steps': 3,
  'training.program*': 3,
  'evaluation.runner': 3,
  'evaluation.suite*': 3,
  'evaluation_sets': 3,
  'training.loop': 4,
  'aot': 4,
  'bench': 4,
  'report*': 4,
  'compare': 4,
  'cli': 5,
}

# (importing, imported): forbidden although the levels would allow it.
FORBIDDEN = [
  ('models', 'plans'),
  ('models', 'orders'),
  ('objectives', 'generate'),
  ('generate', 'objectives'),
]

# Outside package -> the only places that may import it.
ONLY_IN = {
  'tensorflow': [],
  'torch': ['convert'],
  'sklearn': ['data', 'evaluation'],
  # Config is read by the command line and by what builds objects from it.
  'ml_collections': [
    'cli',
    'training.builders',
    'training.plan_sets',
    'training.program*',
  ],
}

# The mathematics: arrays and the standard library, nothing else.
MATHS = ['flow', 'solvers', 'rope', 'plan*', 'orders']
NOT_IN_MATHS = [
  'flax',
  'optax',
  'orbax',
  'ml_collections',
  'tensorflow_datasets',
]


def is_under(module, prefix):
  if prefix.endswith('*'):
    return module.startswith(prefix[:-1])
  return prefix == '' or module == prefix or module.startswith(prefix + '.')


def level_of(module):
  """Returns the level of a module named below the package, or None."""
  if module == '':
    return LEVELS['']
  known = [p for p in LEVELS if p and is_under(module, p)]
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
    return [f'{module} has no level in LEVELS']
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
  ('flow', 'from unitemp_jax.models import dit', 'level 0'),
  ('flow', 'import flax.linen as nn', 'mathematics'),
  ('models.dit', 'from unitemp_jax import plans', 'forbidden'),
  ('models.dit', 'from .. import plans', 'forbidden'),
  ('objectives.dmd', 'import unitemp_jax.generate.sampler', 'forbidden'),
  ('generate.sampler', 'from unitemp_jax import objectives', 'forbidden'),
  ('generate.sampler', 'from . import pipeline', 'level 2'),
  ('training.steps', 'from unitemp_jax.cli import main', 'level 3'),
  ('data.loader', 'import tensorflow as tf', 'tensorflow'),
  ('cli.train', 'def f():\n  from tensorflow import io', 'tensorflow'),
  ('models.dit', 'def f():\n  import torch', 'torch'),
  ('generate.sampler', 'import sklearn.datasets', 'sklearn'),
  ('models.vae3d', 'import ml_collections', 'ml_collections'),
  ('misc', 'import os', 'no level'),
]
ALLOWED = [
  ('models.dit', 'from unitemp_jax.models import attention\nimport flax'),
  ('objectives.dmd', 'from unitemp_jax import flow'),
  ('convert.wan', 'def f():\n  import torch'),
  ('data.falling_digits', 'import tensorflow_datasets as tfds, sklearn'),
  ('training.steps', 'from unitemp_jax.generate import sampler'),
  ('cli.train', 'from unitemp_jax.training import loop'),
]
MODULES = {
  f'unitemp_jax.{module}'
  for module in [
    *['plans', 'flow', 'objectives', 'cli', 'cli.main'],
    *['models', 'models.dit', 'models.attention', 'training.loop'],
    *['training', 'generate', 'generate.sampler', 'generate.pipeline'],
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
