"""Tiny networks with random weights, as several tests use them."""

import jax
import jax.numpy as jnp

from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.vae3d import VAE, VAEConfig

# Latents of 2x4x4: two tokens per frame.
GRID = (2, 4)
CHANNELS = 4
TOKENS = 2
DIT = DiTConfig(
  width=32,
  ffn_width=64,
  heads=2,
  layers=2,
  channels=CHANNELS,
  text_width=8,
  freq_width=16,
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


def shake(params, seed, scale=0.1):
  """Moves every weight, so that nothing is zero at its start."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(
    tree,
    [
      leaf + scale * jax.random.normal(key, leaf.shape)
      for key, leaf in zip(keys, leaves, strict=True)
    ],
  )


def make_dit(config=DIT, seed=0):
  """Returns a transformer and its weights."""
  dit = DiT(config)

  def init(key):
    return dit.init(
      key,
      jnp.zeros((1, 1, *GRID, config.channels)),
      jnp.zeros((1, 1)),
      jnp.arange(1),
      jnp.zeros((1, 2, config.text_width)),
      method='init_all',
    )['params']

  return dit, shake(jax.jit(init)(jax.random.key(seed)), seed + 1)


def make_vae(config=VAE_CONFIG, seed=0):
  """Returns a VAE for 16x16 pixels and its weights."""
  vae = VAE(config)
  video = jnp.zeros((1, 5, 16, 16, 3))
  params = jax.jit(vae.init)(jax.random.key(seed), video)['params']
  return vae, shake(params, seed + 1, 0.05)
