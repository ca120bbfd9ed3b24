import shutil

import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder


def copy_of_tiny(folder):
  shutil.copytree(model_folder.TINY, folder)
  return folder


def in_parts(folder, content):
  """Puts the student into two files with an index."""
  student = folder / 'student.safetensors'
  student.unlink()
  weights.index_path(student).write_text('{}')
  for i, part in enumerate(content, start=1):
    (folder / f'student-0000{i}-of-00002.safetensors').write_bytes(part)


def test_it_names_the_content(tmp_path):
  folder = copy_of_tiny(tmp_path / 'model')
  name = model_folder.fingerprint(folder)
  assert name == model_folder.fingerprint(model_folder.TINY)
  (folder / 'tokenizer.json').write_text('{}')
  assert model_folder.fingerprint(folder) != name


def test_weights_in_parts_count_too(tmp_path):
  names = []
  for i, content in enumerate(((b'a', b'b'), (b'a', b'c'))):
    folder = copy_of_tiny(tmp_path / str(i))
    in_parts(folder, content)
    names.append(model_folder.fingerprint(folder))
  assert names[0] != names[1]


def test_missing_weights_are_named(tmp_path):
  folder = copy_of_tiny(tmp_path / 'model')
  (folder / 'student.safetensors').unlink()
  with pytest.raises(UserError, match='is missing; export'):
    model_folder.fingerprint(folder)


def test_a_left_over_index_hides_no_weights(tmp_path):
  """What is loaded is the whole file, so that is what counts."""
  folder = copy_of_tiny(tmp_path / 'model')
  student = folder / 'student.safetensors'
  weights.index_path(student).write_text('{"files": [], "axes": {}}')
  name = model_folder.fingerprint(folder)
  assert name == model_folder.fingerprint(model_folder.TINY)
  student.write_bytes(b'other')
  assert model_folder.fingerprint(folder) != name
