"""Distribution matching distillation on a composed timeline.

DMD (arXiv 2311.18828, 2405.14867) as Self-Forcing has it (arXiv 2506.08009,
`model/dmd.py`): diffuse the student's sample to a random level, ask teacher
(with guidance) and critic for their data estimates, and move the sample along
their difference, normalised by the distance to the teacher's.
"""

import jax
import jax.numpy as jnp

from unitemp_jax.diffusion import flow
from unitemp_jax.objectives.flow_match import draw_sigma
from unitemp_jax.shapes import Latents


def guided(
  conditional: jax.Array, unconditional: jax.Array, guidance_scale: float
) -> jax.Array:
  """Returns u + w (c - u), summed from c so that w = 1 is c exactly."""
  return conditional + (guidance_scale - 1.0) * (conditional - unconditional)


def gradient(
  latents: Latents,
  rng: jax.Array,
  *,
  real_x0,
  fake_x0,
  shift: float,
  sigma_range: tuple[float, float],
) -> Latents:
  """The DMD gradient at a batch of clean samples, no gradient through it.

  Args:
    latents: samples `BFHWC` in temporal order.
    rng: key.
    real_x0: (x, sigma `BF`) -> the teacher's data estimate, guidance included.
    fake_x0: (x, sigma `BF`) -> the critic's.
    shift: of the noise levels towards noise.
    sigma_range: levels are clipped to it.

  Returns:
    (fake - real) / mean |x - real| per sample, `BFHWC`.
  """
  latents = jax.lax.stop_gradient(latents)
  key_sigma, key_noise = jax.random.split(rng)
  batch, frames = latents.shape[:2]
  sigma = jnp.clip(draw_sigma(key_sigma, batch, shift), *sigma_range)
  sigma = jnp.broadcast_to(sigma, (batch, frames))
  noise = jax.random.normal(key_noise, latents.shape, latents.dtype)
  x = flow.interpolate(latents, noise, sigma)
  real, fake = real_x0(x, sigma), fake_x0(x, sigma)
  axes = tuple(range(1, latents.ndim))
  distance = jnp.abs(latents - real).mean(axes, keepdims=True)
  return jax.lax.stop_gradient((fake - real) / jnp.maximum(distance, 1e-6))


def surrogate(
  latents: Latents, grad: Latents, mask: jax.Array | None = None
) -> jax.Array:
  """A loss whose gradient is `grad / size`: 0.5 mean |x - sg(x - g)|^2.

  The mean is over the frames of `mask`, bool `[F]`, or all.
  """
  target = jax.lax.stop_gradient(latents - grad)
  error = (latents - target) ** 2
  if mask is None:
    return 0.5 * error.mean()
  per_frame = error.mean(axis=(0, *range(2, error.ndim)))
  return 0.5 * (per_frame * mask).sum() / mask.sum()
