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
from jax.typing import ArrayLike

from unitemp_jax.shapes import AnyArray, Same

NUM_TRAIN_TIMESTEPS = 1000.0


def per_frame(sigma: AnyArray, x: AnyArray) -> AnyArray:
  """Appends axes to sigma `BF` until it has the rank of x `BF...`."""
  return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


def interpolate(x0: Same, eps: Same, sigma: AnyArray) -> Same:
  """Noisy latents at level sigma: (1 - sigma) x0 + sigma eps."""
  s = per_frame(sigma, x0)
  return (1.0 - s) * x0 + s * eps


def velocity(x0: Same, eps: Same) -> Same:
  """Regression target of the network: eps - x0."""
  return eps - x0


def to_x0(x: Same, v: Same, sigma: AnyArray) -> Same:
  """Data estimate from noisy latents and velocity."""
  return x - per_frame(sigma, x) * v


def to_eps(x: Same, v: Same, sigma: AnyArray) -> Same:
  """Noise estimate from noisy latents and velocity."""
  return x + (1.0 - per_frame(sigma, x)) * v


def to_velocity(x: Same, x0: Same, sigma: AnyArray) -> Same:
  """Velocity from noisy latents and a data estimate; sigma must be > 0."""
  return (x - x0) / per_frame(sigma, x)


def shift_sigma(sigma, shift: float):
  """Warps noise levels towards noise: s sigma / (1 + (s - 1) sigma)."""
  return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def timestep(sigma: ArrayLike) -> jax.Array:
  """What the network is told: 1000 sigma, not divided, in float32."""
  return jnp.asarray(sigma, jnp.float32) * NUM_TRAIN_TIMESTEPS
