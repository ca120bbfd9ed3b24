"""A model folder with random weights, for tests of what uses a whole model.

Its size is that of 'configs/tiny_distill.py:test'. It generates noise, quickly.
"""

import atexit
import functools
import math
import pathlib
import shutil
import tempfile

import jax
import numpy as np

from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs.builders import model_card

ROOT = pathlib.Path(__file__).parents[2]


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
  """Returns the networks of a card; drawn, since initialisers compile long."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape)
    if path[-1].key in ('gamma', 'scale'):
      return 1 + 0.1 * noise
    # Kernels keep the scale of what they are given, as initialisers do.
    inputs = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
    return noise / math.sqrt(inputs)

  shapes = model_folder.param_shapes(card)
  return jax.tree_util.tree_map_with_path(draw, shapes)
