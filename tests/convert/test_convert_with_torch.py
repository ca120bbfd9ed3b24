"""PyTorch's own networks load what we export."""

import json

import jax.numpy as jnp
import make_torch_file
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from unitemp_jax.cli import main as cli  # noqa: E402
from unitemp_jax.convert import checkpoints  # noqa: E402
from unitemp_jax.models import sizes, weights  # noqa: E402
from unitemp_jax.models.vae3d import VAE  # noqa: E402


def equal(tensor, array):
  """Whether PyTorch's tensor has the bits of an array."""
  width = {4: torch.int32, 2: torch.int16}[array.dtype.itemsize]
  ours = array.view(f'int{8 * array.dtype.itemsize}')
  return tensor.shape == array.shape and np.array_equal(
    tensor.contiguous().view(width).numpy(), ours
  )


def test_the_fixture_is_what_pytorch_writes_today(tmp_path):
  torch.save(make_torch_file.values(torch), tmp_path / 'now.pt')
  now = checkpoints.open_checkpoint(tmp_path / 'now.pt').tensors
  then = checkpoints.open_checkpoint(make_torch_file.PATH).tensors
  assert now.keys() == then.keys()
  for name, tensor in now.items():
    assert (tensor.shape, tensor.kind) == (then[name].shape, then[name].kind)
    if tensor.dtype is not None:
      np.testing.assert_array_equal(tensor.read(), then[name].read())


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """The shipped tiny model in the diffusers layout."""
  from unitemp_jax.sampling import model_folder

  out = tmp_path_factory.mktemp('exported')
  command = f'convert --model={model_folder.TINY} --to=diffusers --out={out}'
  names = '--networks=student,vae,text'
  assert cli.main([*command.split(), names, '--dtype=float32']) == 0
  return out


def test_diffusers_loads_the_exported_student(exported):
  diffusers = pytest.importorskip('diffusers')
  kind = diffusers.WanTransformer3DModel
  model = kind.from_config(kind.load_config(exported / 'transformer'))
  stored = checkpoints.open_checkpoint(exported / 'transformer').tensors
  state = {k: torch.tensor(t.read()) for k, t in stored.items()}
  # Its own `from_pretrained` does no more, but asks for one package more.
  model.load_state_dict(state, strict=True)
  assert all(equal(v, stored[k].read()) for k, v in model.state_dict().items())


def test_diffusers_decodes_with_the_exported_vae(exported):
  """The VAE has nothing that diffusers lacks: pixels must agree."""
  diffusers = pytest.importorskip('diffusers')
  from unitemp_jax.sampling import model_folder

  vae = diffusers.AutoencoderKLWan.from_pretrained(exported / 'vae')
  fields = json.loads((exported / 'vae' / 'config.json').read_text())
  shape = (1, 1, 1, 1, fields['z_dim'])
  mean = np.reshape(np.float32(fields['latents_mean']), shape)
  std = np.reshape(np.float32(fields['latents_std']), shape)
  rng = np.random.default_rng(0)
  z = rng.standard_normal((1, 3, 4, 4, fields['z_dim']), np.float32)
  with torch.no_grad():
    raw = torch.tensor(z * std + mean).permute(0, 4, 1, 2, 3)
    theirs = vae.decode(raw).sample.permute(0, 2, 3, 4, 1).numpy()
  card = model_folder.read_card(model_folder.TINY)
  params = weights.load(
    model_folder.TINY / 'vae.safetensors', sizes.param_shapes(card.vae)
  )
  ours, _ = VAE(card.vae).apply(
    {'params': params}, jnp.asarray(z), method='decode'
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_transformers_encodes_with_the_exported_text_encoder(exported):
  transformers = pytest.importorskip('transformers')
  from unitemp_jax.models.umt5 import TextEncoder
  from unitemp_jax.sampling import model_folder

  model, info = transformers.UMT5EncoderModel.from_pretrained(
    exported / 'text_encoder', output_loading_info=True
  )
  assert not info['missing_keys'] and not info['unexpected_keys']
  card = model_folder.read_card(model_folder.TINY)
  ids = np.random.default_rng(0).integers(2, 60, (2, 9))
  mask = np.arange(9) < np.array([[9], [5]])
  with torch.no_grad():
    theirs = model(
      torch.tensor(ids), attention_mask=torch.tensor(mask).long()
    ).last_hidden_state.numpy()
  params = weights.load(
    model_folder.TINY / 'text.safetensors', sizes.param_shapes(card.text)
  )
  ours = TextEncoder(card.text).apply(
    {'params': params}, jnp.asarray(ids), jnp.asarray(mask)
  )
  np.testing.assert_allclose(ours, theirs * mask[..., None], atol=1e-4)
