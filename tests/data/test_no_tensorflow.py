"""No command needs TensorFlow, however large what it writes."""

import importlib.machinery
import inspect
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from unitemp_jax.data import digits_builder, prepared
from unitemp_jax.data.falling_digits import FallingDigitsSpec


class Forbid:
  """Finds TensorFlow, as a package that is there, and does not load it."""

  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] == 'tensorflow':
      return importlib.machinery.ModuleSpec(name, self)

  def create_module(self, spec):
    raise ModuleNotFoundError(f'{spec.name} is forbidden here')

  def exec_module(self, module):
    pass


_WALK = """
import pkgutil, sys

sys.meta_path.insert(0, Forbid())
try:
  import tensorflow
except ModuleNotFoundError:
  pass  # Negative control.
else:
  sys.exit('it was not forbidden')

import unitemp_jax
from unitemp_jax.cli import main

for found in pkgutil.walk_packages(unitemp_jax.__path__, 'unitemp_jax.'):
  importlib.import_module(found.name)
for verb in main.VERBS:
  try:
    main.find_verb(verb)(['--help'])
  except SystemExit as end:
    assert not end.code, verb
loaded = [n for n in sys.modules if n.partition('.')[0] == 'tensorflow']
assert not loaded, loaded
"""


_SOURCE = f'import importlib.machinery\n{inspect.getsource(Forbid)}{_WALK}'


def test_all_verbs_are_imported_where_it_is_forbidden():
  made = subprocess.run(
    [sys.executable, '-c', _SOURCE], capture_output=True, text=True
  )
  assert made.returncode == 0, made.stderr[-2000:]


class Shuffled(  # What this project's builders were.
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  VERSION = tfds.core.Version('1.0.0')
  code_path = None

  def _info(self):
    features = tfds.features.FeaturesDict(
      {'x': tfds.features.Tensor(shape=(1000,), dtype=np.uint8)}
    )
    return tfds.core.DatasetInfo(
      builder=self, features=features, disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(20):
      yield i, {'x': np.zeros(1000, np.uint8)}


def test_a_set_larger_than_the_limit_of_the_shuffler(tmp_path, monkeypatch):
  """TFDS's shuffler spills 1 GiB through TensorFlow; here 10 kB are enough."""
  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 10_000)
  monkeypatch.setattr(sys, 'meta_path', [Forbid(), *sys.meta_path])
  spec = FallingDigitsSpec(num_frames=5, size=16)
  _, source = digits_builder.prepare(tmp_path, spec, 20)
  assert len(source) == 20
  assert sum(source[i]['video'].nbytes for i in range(20)) > 10_000
  # Negative control: a builder with a shuffler cannot write as much.
  with pytest.raises(ModuleNotFoundError):
    prepared.prepare(
      lambda: Shuffled(data_dir=str(tmp_path), file_format='array_record'),
      tmp_path,
    )
