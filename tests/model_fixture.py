"""A model folder with random weights, for tests of what uses a whole model.

Its size is that of 'configs/tiny_distill.py:test'. It generates noise, quickly.
"""

import atexit
import functools
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.cli.config_args import load_config
from unitemp_jax.generate import model_folder
from unitemp_jax.models import text_to_video, weights
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.models.vae3d import VAE, latent_grid, num_latents
from unitemp_jax.training.program_card import model_card

ROOT = pathlib.Path(__file__).parent.parent


@functools.cache
def random_model() -> pathlib.Path:
  """Returns a folder, written once per session; treat it as read-only."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='unitemp_model_'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return write_random_model(folder)


def write_random_model(folder, seed=0, arg='test'):
  """Writes a model folder of the tiny config and returns its path."""
  spec = str(ROOT / 'configs' / 'tiny_distill.py') + (f':{arg}' if arg else '')
  config = load_config(spec, [])
  channels = config.model.vae.z_dim
  index = {'latent_mean': (0.0,) * channels, 'latent_std': (1.0,) * channels}
  card = model_card(config, index, {})
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for name, params in random_params(card, seed).items():
    weights.save(folder / f'{name}.safetensors', params)
  tokenizer = model_folder.TINY / 'tokenizer.json'
  shutil.copyfile(tokenizer, folder / 'tokenizer.json')
  model_folder.write_card(folder, card)
  return folder


def random_params(card, seed=0):
  """Returns the networks of a card; no layer is left at zero."""
  keys = iter(jax.random.split(jax.random.key(seed), 8))
  video = jnp.zeros((1, card.frames, card.height, card.width, 3))
  size = (
    num_latents(card.frames, card.vae.temporal_stride),
    *latent_grid(card.vae, card.height, card.width),
  )
  dit, text = DiT(card.dit), TextEncoder(card.text)
  teacher = text_to_video.init_teacher(dit, text, next(keys), *size)
  student = text_to_video.init_teacher(dit, text, next(keys), *size)
  trees = {
    'vae': VAE(card.vae).init(next(keys), video)['params'],
    'student': student['dit'],
    'text': teacher['text'],
    'teacher': teacher['dit'],
  }
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: leaf + 0.02 * rng.normal(size=leaf.shape), trees
  )
