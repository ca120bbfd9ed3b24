"""Sampling the bidirectional teacher: Euler or UniPC, with guidance."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.diffusion import flow, guidance
from unitemp_jax.errors import UserError

SOLVERS = ('euler', 'unipc')

# What Wan's own sampling leads away from (Wan-Video/Wan2.1,
# `wan/configs/shared_config.py`). It ends with "walking backwards".
WAN_NEGATIVE_PROMPT = (
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，'
  '整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，'
  '画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，'
  '静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走'
)


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
  """How a teacher is sampled.

  Attributes:
    steps: of the solver.
    shift: of the noise levels towards noise.
    guidance_scale: w in u + w (c - u); 1 is no guidance.
    solver: 'euler' or 'unipc'.
  """

  steps: int
  shift: float
  guidance_scale: float
  solver: str = 'euler'

  def __post_init__(self):
    """Refuses what no sampler can do; UserError."""
    if self.solver not in SOLVERS:
      raise UserError(
        f'there is no solver {self.solver!r}; use {" or ".join(SOLVERS)}.'
      )
    if self.steps < 1:
      raise UserError(f'a sampler takes at least 1 step, not {self.steps}.')
    if not self.shift > 0:
      raise UserError(f'the shift must be above 0, not {self.shift}.')


Velocity = Callable[[jax.Array, jax.Array], jax.Array]


def sample_teacher(
  conditional: Velocity,
  unconditional: Velocity,
  noise: jax.Array,
  settings: TeacherSettings,
) -> jax.Array:
  """Integrates the flow from noise to data.

  Args:
    conditional: (x `BFHWC`, sigma `BF`) -> velocity with the prompt.
    unconditional: the same with the negative prompt.
    noise: `BFHWC`.
    settings: solver, steps, shift and guidance.

  Returns:
    Latents `BFHWC`.
  """

  def velocity(x, level):
    sigma = jnp.full(x.shape[:2], level)
    with_text = conditional(x, sigma)
    if settings.guidance_scale == 1.0:
      return with_text
    without = unconditional(x, sigma)
    return guidance.guide(with_text, without, settings.guidance_scale)

  run = {'euler': _euler, 'unipc': _unipc}[settings.solver]
  return run(velocity, noise, settings)


def _euler(velocity, noise, settings):
  levels = jnp.asarray(flow.euler_levels(settings.steps, settings.shift))

  def body(x, pair):
    sigma = jnp.full(x.shape[:2], pair[0])
    step = jnp.full_like(sigma, pair[1])
    return flow.euler_step(x, velocity(x, pair[0]), sigma, step), None

  pairs = jnp.stack([levels[:-1], levels[1:]], axis=1)
  return jax.lax.scan(body, noise, pairs)[0]


def _unipc(velocity, noise, settings):
  levels = flow.unipc_levels(settings.steps, settings.shift)
  rows = {
    'table': flow.unipc_table(levels),
    'sigma': levels[:-1],
    'told': flow.whole_timesteps(levels[:-1]),
    'first': (np.arange(settings.steps) == 0).astype(np.float32),
  }

  def body(carry, row):
    x, state = carry
    sigma = jnp.full(x.shape[:2], row['sigma'])
    x0 = flow.to_x0(x, velocity(x, row['told']), sigma)
    return flow.unipc_step(row['table'], row['first'], x, x0, state), None

  state = (noise, jnp.zeros_like(noise), jnp.zeros_like(noise))
  carry, _ = jax.lax.scan(body, (noise, state), jax.tree.map(jnp.asarray, rows))
  return carry[0]


def places(levels: np.ndarray, settings: TeacherSettings) -> list[int]:
  """After how many Euler steps each of the student's levels is reached.

  Args:
    levels: of the student, decreasing, the last one 0.
    settings: of the teacher.

  Raises:
    UserError: the teacher's steps do not meet them all.
  """
  grid = flow.euler_levels(settings.steps, settings.shift)
  found = [int(np.abs(grid - level).argmin()) for level in levels]
  off = max(abs(grid[i] - v) for i, v in zip(found, levels, strict=True))
  if off > 1e-5 or settings.solver != 'euler':
    raise UserError(
      f'{settings.steps} steps of {settings.solver} with shift '
      f'{settings.shift:g} do not meet the levels of the student; use Euler, '
      "the student's shift and a multiple of its steps, such as 48."
    )
  return found


def sample_trajectory(
  conditional: Velocity,
  unconditional: Velocity,
  noise: jax.Array,
  settings: TeacherSettings,
  levels: np.ndarray,
) -> jax.Array:
  """States at the student's levels, `[levels, B, F, h, w, C]`.

  Students that take few steps are initialised on these states (CausVid, arXiv
  2412.07772): the levels of the student are among those of the teacher's Euler
  steps.

  Args:
    conditional: (x `BFHWC`, sigma `BF`) -> velocity with the prompt.
    unconditional: the same with what guidance leads away from.
    noise: `BFHWC`, the first state.
    settings: of the teacher.
    levels: of the student; the last one is 0, the clip itself.

  Raises:
    UserError: see `places`.
  """
  grid = flow.euler_levels(settings.steps, settings.shift)

  def body(x, pair):
    sigma = jnp.full(x.shape[:2], pair[0])
    v = conditional(x, sigma)
    if settings.guidance_scale != 1.0:
      v = guidance.guide(v, unconditional(x, sigma), settings.guidance_scale)
    return flow.euler_step(x, v, sigma, jnp.full_like(sigma, pair[1])), None

  stops = places(levels, settings)
  states = [noise]
  for first, end in itertools.pairwise(stops):
    pairs = np.stack([grid[first:end], grid[first + 1 : end + 1]], axis=1)
    x, _ = jax.lax.scan(body, states[-1], jnp.asarray(pairs))
    states.append(x)
  return jnp.stack(states)
