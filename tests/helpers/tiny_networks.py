"""Tiny networks with random weights, as several tests use them."""

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.vae3d import VAE, VAEConfig

# Latents of 2x4x4: two tokens per frame.
GRID = (2, 4)
CHANNELS = 4
TOKENS = 2
DIT = DiTConfig(
  dim=32,
  ffn_dim=64,
  num_heads=2,
  num_layers=2,
  channels=CHANNELS,
  text_dim=8,
  freq_dim=16,
  rope_theta=100.0,
)
VAE_CONFIG = VAEConfig(
  base_dim=4,
  dim_mult=(1, 1, 2),
  num_res_blocks=1,
  temporal_down=(True, True),
  z_dim=4,
  patch=2,
)


def noise(seed, *shape):
  """Standard normal numbers."""
  return jax.random.normal(jax.random.key(seed), shape)


def latents(seed, batch, frames):
  """Random latents `BFHWC`."""
  return noise(seed, batch, frames, *GRID, CHANNELS)


def random_params(init, *arguments, seed=0):
  """Random weights in the shapes that `init(key, *arguments)` would make.

  Nothing is compiled, and nothing is zero, as some weights are at their start.
  """
  shapes = jax.eval_shape(init, jax.random.key(0), *arguments)['params']
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    x = rng.standard_normal(leaf.shape, np.float32)
    name = path[-1].key
    if name in ('scale', 'gamma'):
      return jnp.asarray(1 + 0.1 * x)
    if name != 'kernel':
      return jnp.asarray(0.1 * x)
    # The last axis is what comes out; scanned layers lead.
    inside = leaf.shape[1:-1] if path[0].key == 'blocks' else leaf.shape[:-1]
    fan_in = int(np.prod(inside))
    return jnp.asarray(x * fan_in**-0.5)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def make_dit(config=DIT, seed=0):
  """Returns a transformer and its weights."""
  dit = DiT(config)
  params = random_params(
    lambda key: dit.init(
      key,
      jnp.zeros((1, 1, *GRID, config.channels)),
      jnp.zeros((1, 1)),
      jnp.arange(1),
      jnp.zeros((1, 2, config.text_dim)),
      method='init_all',
    ),
    seed=seed,
  )
  return dit, params


def make_vae(config=VAE_CONFIG, seed=0):
  """Returns a VAE for 16x16 pixels and its weights."""
  vae = VAE(config)
  frames = 1 + config.temporal_stride
  return vae, random_params(
    vae.init, jnp.zeros((1, frames, 16, 16, 3)), seed=seed
  )
