"""Sampling the bidirectional teacher: Euler steps with guidance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from unitemp_jax import solvers


def sample_teacher(
  conditional: Callable[[jax.Array, jax.Array], jax.Array],
  unconditional: Callable[[jax.Array, jax.Array], jax.Array],
  noise: jax.Array,
  *,
  num_steps: int,
  shift: float,
  guidance: float,
) -> jax.Array:
  """Integrates the flow from noise to data.

  Args:
    conditional: (x `BFHWC`, sigma `BF`) -> velocity with the prompt.
    unconditional: the same without.
    noise: `BFHWC`.
    num_steps: Euler steps.
    shift: of the noise levels towards noise.
    guidance: standard scale w in u + w (c - u); 1 is no guidance.

  Returns:
    Latents `BFHWC`.
  """
  levels = jnp.asarray(solvers.euler_levels(num_steps, shift))

  def body(x, pair):
    sigma = jnp.full(x.shape[:2], pair[0])
    with_text, without = conditional(x, sigma), unconditional(x, sigma)
    v = without + guidance * (with_text - without)
    return solvers.euler_step(x, v, sigma, jnp.full_like(sigma, pair[1])), None

  pairs = jnp.stack([levels[:-1], levels[1:]], axis=1)
  return jax.lax.scan(body, noise, pairs)[0]
