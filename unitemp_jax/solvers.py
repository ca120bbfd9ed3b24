"""Noise levels and the two update rules: Euler and few-step re-noise.

The teacher integrates the flow with Euler steps. The student predicts x0 at
each of its few levels and is re-noised to the next one with fresh noise
(facts section 5.3; method.md section 4).
"""

import numpy as np

from unitemp_jax import flow

STUDENT_TIMESTEPS = (1000, 750, 500, 250)


def student_levels(
  timesteps=STUDENT_TIMESTEPS, shift: float = 5.0
) -> np.ndarray:
  """Noise levels of the few-step student, float32 `[n + 1]`, last is 0.

  For shift 5 they are 1, .9375, .8333, .625 and 0 (facts section 0).
  """
  nominal = np.asarray(tuple(timesteps) + (0,), np.float64) / 1000.0
  return flow.shift_sigma(nominal, shift).astype(np.float32)


def euler_levels(num_steps: int, shift: float = 5.0) -> np.ndarray:
  """Noise levels of an Euler sampler, float32 `[num_steps + 1]`, 1 to 0."""
  nominal = np.linspace(1.0, 0.0, num_steps + 1)
  return flow.shift_sigma(nominal, shift).astype(np.float32)


def euler_step(x, v, sigma, sigma_next):
  """One Euler step of the flow; levels broadcast over `BF`."""
  return x + flow.per_frame(sigma_next - sigma, x) * v


def renoise(x0, noise, sigma_next):
  """Few-step update: puts the data estimate back at the next noise level."""
  return flow.interpolate(x0, noise, sigma_next)
