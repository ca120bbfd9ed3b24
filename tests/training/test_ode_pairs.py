"""`unitemp ode_pairs` writes what the objective `ode_init` reads."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from unitemp_jax.cli import ode_pairs
from unitemp_jax.data import latents
from unitemp_jax.data.video_folder_builder import PreparedVideos
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.training import encode
from unitemp_jax.training.build import build_loader
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.builders import latent_shape

pytestmark = pytest.mark.devices(2)

ROOT = Path(__file__).parents[2]
PROMPTS = ['a red 7 falls', 'a blue 3 falls', 'a green 5 falls']
CONFIG = """
from configs import tiny_student_init

def get_config(arg=None):
  config = tiny_student_init.get_config('test')
  config.objective = 'ode_init'
  config.loss = {'anchor_drop': 0.2, 'draft_share': 0.5}
  return config
"""


@pytest.fixture(scope='module')
def setup(tmp_path_factory):
  """(arguments of the command, config, folder) with random weights."""
  folder = tmp_path_factory.mktemp('ode')
  (folder / 'ode.py').write_text(CONFIG)
  (folder / 'prompts.txt').write_text('\n'.join(PROMPTS))
  config = load_config(str(folder / 'ode.py'), [])
  rng = np.random.default_rng(0)
  model = config.model

  def save(name, shapes):
    tree = jax.tree.map(
      lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes
    )
    weights.save(folder / f'{name}.safetensors', tree)

  dit = sizes.param_shapes(builders.dit_config(model))
  text = sizes.param_shapes(builders.text_config(model))
  save('teacher', {'dit': dit, 'text': text})
  save('vae', sizes.param_shapes(builders.vae_config(model)))
  z = model.vae.z_dim
  known = {'latent_mean': [0.5] * z, 'latent_std': [2.0] * z}
  (folder / 'clips').mkdir()
  (folder / 'clips' / latents.INDEX).write_text(
    json.dumps({**known, 'shards': 1})
  )
  flags = {
    'teacher': folder / 'teacher.safetensors',
    'latents.vae': folder / 'vae.safetensors',
    'latents.dir': folder / 'clips',
    'latents.tokenizer': ROOT / config.latents.tokenizer,
    'mesh.data': 2,
  }
  arguments = [
    *(str(folder / 'prompts.txt'), f'--config={folder / "ode.py"}'),
    *('--steps=4', f'--out={folder / "pairs"}'),
    *(f'--config.{name}={value}' for name, value in flags.items()),
  ]
  return arguments, config, folder


def test_own_videos_are_encoded_in_the_same_form(setup, monkeypatch):
  """Clip by clip, with the statistics that the VAE comes with."""
  _, config, folder = setup
  config = config.copy_and_resolve_references().unlock()
  rng = np.random.default_rng(1)
  shape = (config.data.num_frames, 16, 16, 3)
  clips = [
    {
      'video': rng.integers(low, low + 50, shape, np.uint8),
      'caption': caption,
    }
    for low, caption in zip((0, 200), PROMPTS, strict=False)
  ]
  prepared = PreparedVideos('', clips, [])
  monkeypatch.setattr(
    encode.video_folder_builder, 'prepare', lambda *_, **__: prepared
  )
  config.data = {
    **{'name': 'video_folder', 'dir': '', 'videos': str(folder), 'fps': 12},
    **{'height': 16, 'width': 16, 'num_frames': shape[0], 'captions': ''},
  }
  z = config.model.vae.z_dim
  config.model.vae.latent_mean, config.model.vae.latent_std = (
    (0.5,) * z,
    (2,) * z,
  )
  config.latents.vae = str(folder / 'vae.safetensors')
  config.latents.tokenizer = str(ROOT / config.latents.tokenizer)
  out = folder / 'videos'
  encode.encode(config, out)
  source = latents.LatentSource(out)
  vae = VAE(builders.vae_config(config.model))
  params = weights.load(config.latents.vae, sizes.param_shapes(vae.config))
  whole = vae.apply(
    {'params': params},
    clips[1]['video'][None] / np.float32(127.5) - 1,
    method='encode',
  )[0][0]
  np.testing.assert_allclose(source[1]['latents'], whole, atol=1e-3)
  assert np.abs(source[0]['latents'] - whole).max() > 1e-2  # Control.
  assert source[1]['anchors'].shape[:2] == (2, 3)
  config.data.fps = 24
  with pytest.raises(UserError, match='another VAE or data set'):
    encode.encode(config, out)


def test_what_is_written_is_read(setup, capsys):
  arguments, config, folder = setup
  assert ode_pairs.main([*arguments, '--dry_run']) == 0
  assert not (folder / 'pairs').exists()
  with pytest.raises(UserError, match='do not meet the timesteps'):
    ode_pairs.main([*arguments, '--steps=5'])
  assert ode_pairs.main(arguments) == 0
  source = latents.LatentSource(folder / 'pairs')
  assert len(source) == len(PROMPTS)
  frames, *grid = latent_shape(config)
  shape = (frames, *grid, config.model.vae.z_dim)
  first, second = source[0], source[1]
  assert first['latents'].shape == shape
  assert first['trajectory'].shape == (4, *shape)
  assert first['anchors'].shape == (2, 3, *shape[1:])
  # The way starts from noise as the teacher knows it, not as it is stored.
  start = np.stack([first['trajectory'][0], second['trajectory'][0]])
  assert abs(start.mean()) < 0.1 and abs(start.std() - 1.0) < 0.1
  assert source.index['latent_std'] == [2.0] * config.model.vae.z_dim
  assert np.abs(first['latents'] - second['latents']).max() > 0.1
  capsys.readouterr()
  assert ode_pairs.main(arguments) == 0
  assert 'nothing to do' in capsys.readouterr().out
  with pytest.raises(UserError, match='choose another --out'):
    ode_pairs.main([*arguments, '--seed=1'])
  # The loader hands it on; clips without a trajectory are refused.
  config.latents.dir, config.batch_size = str(folder / 'pairs'), 2
  batch = next(build_loader(config, [0, 1]))
  assert batch['trajectory'].shape == (2, 4, *shape)
  plain = {k: v for k, v in first.items() if k != 'trajectory'}
  bare = folder / 'bare'
  bare.mkdir()
  latents.write_shard(latents.shard_path(bare, 0), [plain, plain])
  latents.write_index(bare, 1, {})
  config.latents.dir = str(bare)
  with pytest.raises(UserError, match='unitemp ode_pairs'):
    next(build_loader(config, [0, 1]))
