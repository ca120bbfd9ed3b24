"""Flow matching: the loss of teacher and critic (arXiv 2209.03003)."""

import jax
import jax.numpy as jnp

from unitemp_jax.diffusion import flow
from unitemp_jax.shapes import Latents


def draw_sigma(rng: jax.Array, batch: int, shift: float) -> jax.Array:
  """One noise level per sample, uniform before the shift warp, `[B, 1]`."""
  return flow.shift_sigma(jax.random.uniform(rng, (batch, 1)), shift)


def loss(
  params,
  latents: Latents,
  rng: jax.Array,
  *,
  denoise,
  shift: float,
  sigma_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Squared error of the velocity at one random level per clip.

  Args:
    params: whatever `denoise` wants.
    latents: clean latents `BFHWC`.
    rng: key.
    denoise: (params, x `BFHWC`, sigma `BF`) -> velocity.
    shift: of the noise levels towards noise.
    sigma_range: levels are clipped to it; all are inside the default.

  Returns:
    The mean squared error and metrics.
  """
  key_sigma, key_noise = jax.random.split(rng)
  batch, frames = latents.shape[:2]
  sigma = draw_sigma(key_sigma, batch, shift)
  if sigma_range != (0.0, 1.0):
    sigma = jnp.clip(sigma, *sigma_range)
  sigma = jnp.broadcast_to(sigma, (batch, frames))
  noise = jax.random.normal(key_noise, latents.shape, latents.dtype)
  x = flow.interpolate(latents, noise, sigma)
  v = denoise(params, x, sigma)
  error = ((v - flow.velocity(latents, noise)) ** 2).mean()
  return error, {'loss': error}
