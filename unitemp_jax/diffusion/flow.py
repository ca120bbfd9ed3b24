"""Flow matching: interpolant, noise levels and the update rules of solvers.

Conventions (arXiv 2209.03003; Wan 2.1): sigma = 1 is noise, sigma = 0 is data,

  x_sigma = (1 - sigma) x0 + sigma eps          (interpolant)
  v       = eps - x0                            (velocity, network output)
  t       = 1000 sigma                          (what the network is told)

so that x0 = x - sigma v and eps = x + (1 - sigma) v. Latents are `BFHWC` and
sigma is per latent frame, `BF` (or anything that broadcasts to it).

The teacher integrates the flow with Euler steps or with UniPC. The student
predicts x0 at each of its few levels and is re-noised to the next one with
fresh noise, as in Self-Forcing (arXiv 2506.08009).

UniPC (Zhao et al., 2023) is used as Wan uses it: order 2, B(h) = e^h - 1, on
estimates of x0, first order in the last step. Every step corrects the sample
it got and then predicts the next one, and both are linear in what is known, so
that the solver is a table of coefficients, computed here in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
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


STUDENT_TIMESTEPS = (1000, 750, 500, 250)


def student_sigmas(
  timesteps=STUDENT_TIMESTEPS, shift: float = 5.0
) -> np.ndarray:
  """Noise levels of the few-step student, float32 `[n + 1]`, last is 0.

  For shift 5 they are 1, .9375, .8333, .625 and 0.
  """
  nominal = np.asarray(tuple(timesteps) + (0,), np.float64) / 1000.0
  return shift_sigma(nominal, shift).astype(np.float32)


def euler_sigmas(num_steps: int, shift: float = 5.0) -> np.ndarray:
  """Noise levels of an Euler sampler, float32 `[num_steps + 1]`, 1 to 0."""
  nominal = np.linspace(1.0, 0.0, num_steps + 1)
  return shift_sigma(nominal, shift).astype(np.float32)


def _unipc_sigmas(num_steps: int, shift: float) -> np.ndarray:
  # The first one is a float32 in Wan's scheduler; the rest is float64.
  nominal = np.linspace(np.float64(np.float32(0.999)), 0.0, num_steps + 1)
  return shift_sigma(nominal, shift)


def unipc_sigmas(num_steps: int, shift: float = 5.0) -> np.ndarray:
  """Noise levels of Wan's UniPC sampler, float32 `[num_steps + 1]`.

  They start below 1, where the solver's logarithm would not end, and fall to
  0: .999 (1 - i / n), then the shift (Wan-Video/Wan2.1,
  `wan/utils/fm_solvers_unipc.py`).
  """
  return _unipc_sigmas(num_steps, shift).astype(np.float32)


def unipc_timesteps(num_steps: int, shift: float = 5.0) -> np.ndarray:
  """The levels that Wan's UniPC tells the network, float32 `[num_steps]`.

  They are whole timesteps / 1000, cut off from the levels in float64.
  """
  whole = np.floor(NUM_TRAIN_TIMESTEPS * _unipc_sigmas(num_steps, shift)[:-1])
  return (whole / NUM_TRAIN_TIMESTEPS).astype(np.float32)


def euler_step(x, v, sigma, sigma_next):
  """One Euler step of the flow; levels broadcast over `BF`."""
  return x + per_frame(sigma_next - sigma, x) * v


def renoise(x0, noise, sigma_next):
  """Few-step update: puts the data estimate back at the next noise level."""
  return interpolate(x0, noise, sigma_next)


def _log_snr(sigma: float) -> float:
  """log(alpha / sigma) of the flow; infinite at sigma 0."""
  with np.errstate(divide='ignore'):
    return float(np.log1p(-sigma) - np.log(sigma))


def _unipc_row(
  levels: np.ndarray, start: int, order: int, corrects: bool
) -> np.ndarray:
  """Coefficients that carry a sample from level `start` to the next one.

  Returns:
    Of the sample, and of the x0 estimates at levels start + 1 (zero unless
    `corrects`), start and start - 1.
  """
  sigma, target = float(levels[start]), float(levels[start + 1])
  here = _log_snr(sigma)
  h = _log_snr(target) - here
  shrink = np.expm1(-h)  # of the part of x that is not x0
  ratio = 1.0
  if order == 2:
    ratio = (_log_snr(float(levels[start - 1])) - here) / h
  slope_before = slope_next = 0.0
  if corrects:
    first = -shrink / h - 1.0
    second = -first / h - 0.5
    slope_next = 0.5
    if order == 2:
      matrix = np.array([[1.0, 1.0], [ratio, 1.0]])
      moments = np.array([first, 2.0 * second]) / shrink
      slope_before, slope_next = np.linalg.solve(matrix, moments)
  elif order == 2:
    slope_before = 0.5
  slope_before /= ratio
  scale = -(1.0 - target) * shrink
  now = scale * (1.0 - slope_before - slope_next)
  known = [scale * slope_next, now, scale * slope_before]
  return np.array([target / sigma, *known])


def unipc_table(levels: np.ndarray) -> np.ndarray:
  """The coefficients of every step, float32 `[steps, 8]`.

  Args:
    levels: falling from below 1 to 0, `[steps + 1]`.

  Returns:
    Per step i the four of the corrector, then the four of the predictor, each
    of: the sample that it starts from, and the x0 estimates that are newest,
    before it, and before that. The corrector starts from the last corrected
    sample; in step 0 there is nothing to correct. Apply with `unipc_step`.
  """
  steps = len(levels) - 1
  order = [min(2, steps - i, i + 1) for i in range(steps)]
  table = np.zeros((steps, 8))
  for i in range(steps):
    if i:
      table[i, :4] = _unipc_row(levels, i - 1, order[i - 1], True)
    start, _, now, before = _unipc_row(levels, i, order[i], False)
    table[i, 4:] = [start, now, before, 0.0]
  return table.astype(np.float32)


def unipc_step(row, first, x, x0, state):
  """One UniPC step.

  Args:
    row: of `unipc_table`.
    first: bool, whether this is step 0.
    x: the sample the network was shown.
    x0: its estimate of the data there.
    state: (last corrected sample, x0 before, x0 before that); any in step 0.

  Returns:
    The next sample and state.
  """
  last, x0_1, x0_2 = state
  fixed = row[0] * last + row[1] * x0 + row[2] * x0_1 + row[3] * x0_2
  fixed = (1.0 - first) * fixed + first * x
  following = row[4] * fixed + row[5] * x0 + row[6] * x0_1
  return following, (fixed, x0, x0_1)
