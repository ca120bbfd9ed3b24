"""What a teacher passes on its way from noise to a clip.

Students that take few steps are initialised on these states (CausVid, arXiv
2412.07772): the levels of the student are among those of the teacher's Euler
steps.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.diffusion import guidance, solvers
from unitemp_jax.errors import UserError
from unitemp_jax.sampling.teacher import TeacherSettings, Velocity


def places(levels: np.ndarray, settings: TeacherSettings) -> list[int]:
  """After how many Euler steps each of the student's levels is reached.

  Args:
    levels: of the student, decreasing, the last one 0.
    settings: of the teacher.

  Raises:
    UserError: the teacher's steps do not meet them all.
  """
  grid = solvers.euler_levels(settings.steps, settings.shift)
  found = [int(np.abs(grid - level).argmin()) for level in levels]
  off = max(abs(grid[i] - v) for i, v in zip(found, levels, strict=True))
  if off > 1e-5 or settings.solver != 'euler':
    raise UserError(
      f'{settings.steps} steps of {settings.solver} with shift '
      f'{settings.shift:g} do not meet the levels of the student; use Euler, '
      "the student's shift and a multiple of its steps, such as 48."
    )
  return found


def sample(
  conditional: Velocity,
  unconditional: Velocity,
  noise: jax.Array,
  settings: TeacherSettings,
  levels: np.ndarray,
) -> jax.Array:
  """States at the student's levels, `[levels, B, F, h, w, C]`.

  Args:
    conditional: (x `BFHWC`, sigma `BF`) -> velocity with the prompt.
    unconditional: the same with what guidance leads away from.
    noise: `BFHWC`, the first state.
    settings: of the teacher.
    levels: of the student; the last one is 0, the clip itself.

  Raises:
    UserError: see `places`.
  """
  grid = solvers.euler_levels(settings.steps, settings.shift)

  def body(x, pair):
    sigma = jnp.full(x.shape[:2], pair[0])
    v = conditional(x, sigma)
    if settings.guidance_scale != 1.0:
      v = guidance.guide(v, unconditional(x, sigma), settings.guidance_scale)
    return solvers.euler_step(x, v, sigma, jnp.full_like(sigma, pair[1])), None

  stops = places(levels, settings)
  states = [noise]
  for first, end in itertools.pairwise(stops):
    pairs = np.stack([grid[first:end], grid[first + 1 : end + 1]], axis=1)
    x, _ = jax.lax.scan(body, states[-1], jnp.asarray(pairs))
    states.append(x)
  return jnp.stack(states)
