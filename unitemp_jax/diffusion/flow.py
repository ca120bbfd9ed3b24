"""Flow matching: interpolant, conversions and the schedule shift.

Conventions (arXiv 2209.03003; Wan 2.1): sigma = 1 is noise, sigma = 0 is data,

  x_sigma = (1 - sigma) x0 + sigma eps          (interpolant)
  v       = eps - x0                            (velocity, network output)
  t       = 1000 sigma                          (what the network is told)

so that x0 = x - sigma v and eps = x + (1 - sigma) v. Latents are `BFHWC` and
sigma is per latent frame, `BF` (or anything that broadcasts to it).
"""

import jax
import jax.numpy as jnp

NUM_TRAIN_TIMESTEPS = 1000.0


def per_frame(sigma: jax.Array, x: jax.Array) -> jax.Array:
  """Appends axes to sigma `BF` until it has the rank of x `BF...`."""
  return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


def interpolate(x0: jax.Array, eps: jax.Array, sigma: jax.Array) -> jax.Array:
  """Noisy latents at level sigma: (1 - sigma) x0 + sigma eps."""
  s = per_frame(sigma, x0)
  return (1.0 - s) * x0 + s * eps


def velocity(x0: jax.Array, eps: jax.Array) -> jax.Array:
  """Regression target of the network: eps - x0."""
  return eps - x0


def to_x0(x: jax.Array, v: jax.Array, sigma: jax.Array) -> jax.Array:
  """Data estimate from noisy latents and velocity."""
  return x - per_frame(sigma, x) * v


def to_eps(x: jax.Array, v: jax.Array, sigma: jax.Array) -> jax.Array:
  """Noise estimate from noisy latents and velocity."""
  return x + (1.0 - per_frame(sigma, x)) * v


def to_velocity(x: jax.Array, x0: jax.Array, sigma: jax.Array) -> jax.Array:
  """Velocity from noisy latents and a data estimate; sigma must be > 0."""
  return (x - x0) / per_frame(sigma, x)


def shift_sigma(sigma, shift: float):
  """Warps noise levels towards noise: s sigma / (1 + (s - 1) sigma)."""
  return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def timestep(sigma: jax.Array) -> jax.Array:
  """What the network is told: 1000 sigma, not divided, in float32."""
  return jnp.asarray(sigma, jnp.float32) * NUM_TRAIN_TIMESTEPS
