"""`.pt` files: read and written by PyTorch, and no code in them is run."""

import pathlib
import pickle
import sys

import make_torch_file
import numpy as np
import pytest
import small_models

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import checkpoints, load_torch
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.sampling import model_folder

BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


class WithoutTorch:
  """Finds no PyTorch."""

  def find_spec(self, name, path=None, target=None):
    if name == 'torch':
      raise ImportError('it is not installed')


def test_without_pytorch_a_sentence_says_what_to_install(
  tmp_path, monkeypatch, capsys
):
  """To read and to write; nothing is left behind."""
  monkeypatch.delitem(sys.modules, 'torch', raising=False)
  monkeypatch.setattr(sys, 'meta_path', [WithoutTorch(), *sys.meta_path])
  with pytest.raises(UserError, match=r'pip install "unitemp_jax\[torch\]"'):
    checkpoints.open_checkpoint(make_torch_file.PATH)
  command = f'convert --model={model_folder.TINY} --out={tmp_path / "out"}'
  for to in ('self_forcing', 'wan --networks=student,vae'):
    assert cli.main([*command.split(), *f'--to={to}'.split()]) == 2
    assert 'pip install "unitemp_jax[torch]"' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


class Evil:
  """Unpickled, it writes a file."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return pathlib.Path.touch, (self.target,)


class TestWithPyTorch:
  """What needs it."""

  @pytest.fixture(autouse=True)
  def torch(self):
    return pytest.importorskip('torch')

  def test_a_file_that_pytorch_wrote(self):
    tensors = checkpoints.open_checkpoint(make_torch_file.PATH).tensors
    read = {
      name.removeprefix('generator.model.'): tensor.read()
      for name, tensor in tensors.items()
      if tensor.dtype is not None
    }
    half = small_models.DTYPES['float16']
    brain = small_models.DTYPES['bfloat16']
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
    rows = tensors['generator.model.bfloat16'].read(slice(1, 3))
    np.testing.assert_array_equal(rows, BASE[1:3].astype(brain))
    # A whole number is no weight: it is there, and of no type of ours.
    assert tensors['generator.model.counter'].dtype is None

  @pytest.mark.parametrize('zipped', [True, False])
  def test_both_formats(self, zipped, torch, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(
      {'w': torch.arange(3.0)}, path, _use_new_zipfile_serialization=zipped
    )
    read = checkpoints.open_checkpoint(path).tensors['w'].read()
    np.testing.assert_array_equal(read, [0, 1, 2])

  def test_code_is_not_run(self, torch, tmp_path):
    marker = tmp_path / 'ran'
    torch.save({'a': Evil(marker)}, tmp_path / 'evil.pt')
    bare = pickle.dumps({'a': Evil(marker)})
    (tmp_path / 'bare.pt').write_bytes(bare)
    with pytest.raises(UserError, match='asks to run'):
      checkpoints.open_checkpoint(tmp_path / 'evil.pt')
    with pytest.raises(UserError, match='cannot be read as weights'):
      checkpoints.open_checkpoint(tmp_path / 'bare.pt')
    assert not marker.exists()
    # Negative control: the pickle does run what it holds if one lets it.
    pickle.loads(bare)
    assert marker.exists()

  def test_dicts_without_end_are_refused(self, torch, tmp_path):
    endless = {'w': torch.zeros(1)}
    endless['again'] = endless
    torch.save(endless, tmp_path / 'a.pt')
    with pytest.raises(UserError, match='without end'):
      checkpoints.open_checkpoint(tmp_path / 'a.pt')

  def test_what_is_cut_off_is_refused(self, torch, tmp_path):
    torch.save({'w': torch.zeros(600)}, tmp_path / 'a.pt')
    whole = (tmp_path / 'a.pt').read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
      (tmp_path / 'cut.pt').write_bytes(whole[:length])
      with pytest.raises(UserError, match=r'cut\.pt'):
        checkpoints.open_checkpoint(tmp_path / 'cut.pt')

  def test_fp8_is_dequantised(self, torch, tmp_path):
    given = small_models.state_dict('dit', 'wan')
    state = {
      k: torch.tensor(v).to(torch.float8_e4m3fn) for k, v in given.items()
    }
    torch.save(state, tmp_path / 'a.pt')
    shapes = sizes.param_shapes(small_models.CONFIGS['dit'])
    tree = load_torch(tmp_path / 'a.pt', 'dit', shapes)
    expected = state['patch_embedding.bias'].float().numpy()
    np.testing.assert_array_equal(tree['patch_embedding']['bias'], expected)
    assert abs(expected - given['patch_embedding.bias']).max() > 0  # rounded

  def test_a_state_dict_and_its_file_give_the_same_tree(self, torch, tmp_path):
    given = small_models.state_dict('umt5', 'wan')
    state = {k: torch.tensor(v).to(torch.bfloat16) for k, v in given.items()}
    shapes = sizes.param_shapes(small_models.CONFIGS['umt5'])
    torch.save({'generator': state}, tmp_path / 'a.pt')
    expected = state['blocks.1.attn.q.weight'].float().numpy().T
    for source in (state, tmp_path / 'a.pt'):
      tree = load_torch(source, 'umt5', shapes)
      np.testing.assert_array_equal(tree['layer1']['q']['kernel'], expected)

  @pytest.mark.parametrize('dtype', ['keep', 'bfloat16'])
  def test_pytorch_loads_what_we_export(self, dtype, torch, tmp_path):
    """A Self-Forcing file, twice: the second call leaves it alone."""
    command = f'convert --model={model_folder.TINY} --to=self_forcing'
    command += f' --out={tmp_path} --dtype={dtype}'
    assert cli.main(command.split()) == 0
    path = tmp_path / 'student.pt'
    state = torch.load(path, weights_only=True, mmap=True)
    name = 'model.time_projection.1.weight'
    tensor = state['generator_ema'][name]
    assert torch.equal(tensor, state['generator'][name])
    wanted = {'keep': torch.float16, 'bfloat16': torch.bfloat16}[dtype]
    assert tensor.dtype == wanted and tensor.shape == (960, 160)
    before = path.stat().st_mtime_ns
    assert cli.main(command.split()) == 0
    assert path.stat().st_mtime_ns == before
    other = {'keep': 'float32', 'bfloat16': 'keep'}[dtype]
    assert cli.main([*command.split()[:-1], f'--dtype={other}']) == 2
