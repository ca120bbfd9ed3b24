"""`.pt` files: read without PyTorch, and without running what is in them."""

import pathlib
import pickle
import struct
import zipfile

import make_torch_file
import numpy as np
import pytest
import small_models

from unitemp_jax.convert import sources, torch_zip
from unitemp_jax.errors import UserError

BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


def test_a_file_that_pytorch_wrote():
  tensors = sources.open_checkpoint(make_torch_file.PATH)
  read = {
    name.removeprefix('generator.model.'): tensor.read()
    for name, tensor in tensors.items()
    if tensor.dtype is not None
  }
  half, brain = small_models.DTYPES['float16'], small_models.DTYPES['bfloat16']
  expected = {
    'float32': BASE,
    'float16': BASE.astype(half),
    'bfloat16': BASE.astype(brain),
    'tied': BASE.astype(brain),
    'transposed': BASE.T,
    'slice': BASE[1:3, 2:5],
    'parameter': BASE[0],
    'empty': np.zeros((0, 3), np.float32),
  }
  assert read.keys() == expected.keys()
  for name, value in expected.items():
    assert read[name].dtype == value.dtype
    np.testing.assert_array_equal(read[name], value)
  rows = tensors['generator.model.float32'].read(slice(1, 3))
  np.testing.assert_array_equal(rows, BASE[1:3])
  # A whole number is no weight: it is there, and of no type of ours.
  assert tensors['generator.model.counter'].dtype is None


class Evil:
  """Unpickled, it writes a file."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return pathlib.Path.touch, (self.target,)


def zip_file(path, pickled, storages=(), compress=zipfile.ZIP_STORED):
  """A `.pt` with a pickle of one's own."""
  with zipfile.ZipFile(path, 'w', compress) as archive:
    archive.writestr('archive/data.pkl', pickled)
    for key, data in storages:
      archive.writestr(f'archive/data/{key}', data)
  return path


@pytest.mark.parametrize('protocol', range(5))
def test_code_is_not_run(protocol, tmp_path):
  marker = tmp_path / 'ran'
  code = pickle.dumps({'a': Evil(marker)}, protocol)
  path = zip_file(tmp_path / 'evil.pt', code)
  with pytest.raises(UserError, match=r'asks to call .*only functions'):
    torch_zip.read(path)
  bare = tmp_path / 'bare.pt'
  bare.write_bytes(code)
  with pytest.raises(UserError):
    torch_zip.read(bare)
  assert not marker.exists()
  # Negative control: the pickle does run what it holds if one lets it.
  pickle.loads(code)
  assert marker.exists()


@pytest.mark.parametrize(
  'name',
  [
    'os system',
    'builtins eval',
    'builtins getattr',
    'torch.storage _load_from_bytes',
    'torch load',
    'collections OrderedDict.fromkeys',
    'numpy._core.multiarray scalar',
  ],
)
def test_only_names_on_the_list(name, tmp_path):
  module, function = name.split()
  code = f'c{module}\n{function}\n'.encode() + b"(S'echo'\ntR."
  with pytest.raises(UserError, match='asks to call'):
    torch_zip.read(zip_file(tmp_path / 'a.pt', code))


def tensor_pickle(offset=0, size=(2, 3), stride=(3, 1), numel=6, key='0'):
  """What PyTorch writes for {'w': tensor}, with numbers of one's own."""

  def numbers(values):
    inner = b''.join(b'J' + struct.pack('<i', v) for v in values)
    return b'(' + inner + b't'

  text = lambda value: b'X' + struct.pack('<I', len(value)) + value  # noqa: E731
  return (
    b'\x80\x02}('
    + text(b'w')
    + b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage'
    + b'ctorch\nFloatStorage\n'
    + text(key.encode())
    + text(b'cpu')
    + b'J'
    + struct.pack('<i', numel)
    + b'tQJ'
    + struct.pack('<i', offset)
    + numbers(size)
    + numbers(stride)
    + b'\x89ccollections\nOrderedDict\n)RtRu.'
  )


DATA = np.arange(6, dtype=np.float32).tobytes()
WRONG = {
  'beyond its storage': {'size': (3, 3)},
  'described wrongly': {'offset': -1},
  'storage 0 is shorter than it says': {'numel': 7},
  'a tensor is described': {'stride': (1,)},
  'data of storage 5 is missing': {'key': '5'},
}


@pytest.mark.parametrize('what', WRONG)
def test_numbers_that_reach_elsewhere(what, tmp_path):
  """Negative control first: the right numbers are read."""
  right = zip_file(tmp_path / 'right.pt', tensor_pickle(), [('0', DATA)])
  tensor = torch_zip.read(right)['w']
  np.testing.assert_array_equal(tensor.read(), np.arange(6.0).reshape(2, 3))
  wrong = tensor_pickle(**WRONG[what])
  path = zip_file(tmp_path / 'wrong.pt', wrong, [('0', DATA)])
  with pytest.raises(UserError, match=what):
    torch_zip.read(path)


def test_compressed_storages_are_refused(tmp_path):
  path = tmp_path / 'a.pt'
  zip_file(path, tensor_pickle(), [('0', DATA)], zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match='compressed'):
    torch_zip.read(path)


def test_every_truncation_is_refused(tmp_path):
  given = {'w': np.arange(6, dtype=np.float32), 'v': np.ones(3, np.float16)}
  whole = small_models.write_pt(tmp_path / 'a.pt', given).read_bytes()
  path = tmp_path / 'cut.pt'
  for length in range(0, len(whole), 7):
    path.write_bytes(whole[:length])
    with pytest.raises(UserError):
      sources.open_checkpoint(path)


def test_the_same_bytes_every_time(tmp_path):
  given = small_models.state_dict('umt5', 'wan')
  first = small_models.write_pt(tmp_path / 'a.pt', given).read_bytes()
  assert small_models.write_pt(tmp_path / 'b.pt', given).read_bytes() == first
  tensor = torch_zip.read(tmp_path / 'a.pt')['norm.weight']
  assert tensor.offset % 64 == 0
