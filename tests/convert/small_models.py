"""Small networks of every kind, as state dicts of random numbers."""

import ml_dtypes
import numpy as np
import published_names
import safetensors.numpy

from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

CONFIGS = {
  'dit': DiTConfig(
    dim=16,
    ffn_dim=40,
    num_heads=2,
    num_layers=3,
    channels=4,
    text_dim=24,
    freq_dim=8,
  ),
  'vae': VAEConfig(
    base_dim=4,
    dim_mult=(1, 2, 2),
    num_res_blocks=1,
    temporal_down=(True, True),
    z_dim=2,
  ),
  'umt5': TextConfig(
    vocab=24, dim=16, num_heads=2, head_dim=4, ffn_dim=40, num_layers=2
  ),
}
DTYPES = {
  'float32': np.dtype(np.float32),
  'float16': np.dtype(np.float16),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
}


def names(kind, layout):
  """Name -> shape of the small network of a kind."""
  if kind == 'dit':
    sizes = {'d': 16, 'ffn': 40, 'layers': 3, 'text': 24, 'freq': 8}
    return published_names.dit(layout, channels=4, **sizes)
  if kind == 'vae':
    sizes = {'base': 4, 'mult': (1, 2, 2), 'z': 2, 'down': (1, 1), 'blocks': 1}
    return published_names.vae(layout, **sizes)
  sizes = {'vocab': 24, 'd': 16, 'ffn': 40, 'layers': 2, 'heads': 2, 'k': 4}
  return published_names.umt5(layout, **sizes)


def state_dict(kind, layout, dtype='float32', seed=0):
  """Random tensors, none zero."""
  rng = np.random.default_rng(seed)
  return {
    name: rng.standard_normal(shape).astype(DTYPES[dtype])
    for name, shape in names(kind, layout).items()
  }


def write(path, values):
  """Writes nested dicts of arrays as safetensors and returns the path.

  Nested names are joined by dots, as they are when a `.pt` is read.
  """
  flat = {}

  def visit(value, prefix):
    for name, inner in value.items():
      if isinstance(inner, dict):
        visit(inner, f'{prefix}{name}.')
      else:
        flat[prefix + name] = np.ascontiguousarray(inner)

  visit(values, '')
  safetensors.numpy.save_file(flat, path)
  return path
