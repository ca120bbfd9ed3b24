"""Sampling the bidirectional teacher: Euler or UniPC, with guidance."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.diffusion import flow, guidance
from unitemp_jax.errors import UserError
from unitemp_jax.models import umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.sampling.model_folder import ModelCard

MOST_STEPS = 1000  # as many as there are timesteps in training
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
  """How a teacher is sampled."""

  steps: int  # of the solver
  shift: float  # of the timesteps towards noise
  guidance_scale: float  # w in u + w (c - u); 1 is no guidance
  solver: str = 'euler'  # 'euler' or 'unipc'

  def __post_init__(self):
    if self.solver not in SOLVERS:
      raise UserError(
        f'there is no solver {self.solver!r}; use {" or ".join(SOLVERS)}.'
      )
    if not 1 <= self.steps <= MOST_STEPS:
      raise UserError(
        f'a sampler takes 1..{MOST_STEPS} steps, not {self.steps}.'
      )
    if not 0 < self.shift <= 1e6:
      raise UserError(f'the shift is {self.shift}; use more than 0, up to 1e6.')
    if not 0 <= self.guidance_scale <= 1000:
      raise UserError(
        f'the guidance scale must lie in 0..1000, not {self.guidance_scale:g}; '
        '1 is no guidance.'
      )


def settings_of(
  card: ModelCard,
  num_steps: int = 50,
  solver: str = 'euler',
  *,
  shift: float | None = None,
  guidance_scale: float | None = None,
  **_: Any,
) -> TeacherSettings:
  """How a teacher is sampled: as asked for, else as its card says."""
  return TeacherSettings(
    steps=num_steps,
    shift=card.teacher_shift if shift is None else shift,
    guidance_scale=(
      card.guidance_scale if guidance_scale is None else guidance_scale
    ),
    solver=solver,
  )


Velocity = Callable[[jax.Array, jax.Array], jax.Array]


def velocity_of(dit: DiT, params: Any, text: jax.Array) -> Velocity:
  """(x `BFHWC`, sigma `BF`) -> velocity with these embeddings `[B, E, Dt]`."""
  context = umt5.text_context(dit, params, text)
  return lambda x, sigma: umt5.bidirectional(dit, params, x, sigma, context)


def guided(
  conditional: Velocity, unconditional: Velocity, guidance_scale: float
) -> Velocity:
  """(x `BFHWC`, one sigma for all) -> velocity with guidance."""

  def velocity(x, sigma):
    sigma = jnp.full(x.shape[:2], sigma)
    with_text = conditional(x, sigma)
    if guidance_scale == 1.0:
      return with_text
    return guidance.guide(with_text, unconditional(x, sigma), guidance_scale)

  return velocity


def sample_teacher(
  velocity: Velocity, noise: jax.Array, settings: TeacherSettings
) -> jax.Array:
  """Integrates the flow from noise to data."""
  if settings.solver == 'unipc':
    return _unipc(velocity, noise, settings)
  sigmas = flow.euler_sigmas(settings.steps, settings.shift)
  return _euler(velocity, noise, sigmas)


def _euler(velocity, noise, sigmas):
  def body(x, pair):
    sigma = jnp.full(x.shape[:2], pair[0])
    step = jnp.full_like(sigma, pair[1])
    return flow.euler_step(x, velocity(x, pair[0]), sigma, step), None

  pairs = np.stack([sigmas[:-1], sigmas[1:]], axis=1)
  return jax.lax.scan(body, noise, jnp.asarray(pairs))[0]


def _unipc(velocity, noise, settings):
  levels = flow.unipc_sigmas(settings.steps, settings.shift)
  rows = {
    'table': flow.unipc_table(levels),
    'sigma': levels[:-1],
    'told': flow.unipc_timesteps(settings.steps, settings.shift),
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


def places(sigmas: np.ndarray, settings: TeacherSettings) -> list[int]:
  """After how many Euler steps each of the student's sigmas is reached."""
  grid = flow.euler_sigmas(settings.steps, settings.shift)
  found = [int(np.abs(grid - sigma).argmin()) for sigma in sigmas]
  off = max(abs(grid[i] - v) for i, v in zip(found, sigmas, strict=True))
  if off > 1e-5 or settings.solver != 'euler':
    raise UserError(
      f'{settings.steps} steps of {settings.solver} with shift '
      f'{settings.shift:g} do not meet the timesteps of the student; use '
      "Euler, the student's shift and a multiple of its steps, such as 48."
    )
  return found


def sample_trajectory(
  velocity: Velocity,
  noise: jax.Array,
  settings: TeacherSettings,
  sigmas: np.ndarray,
) -> jax.Array:
  """States at the student's sigmas, `[sigmas, B, F, h, w, C]`.

  Students that take few steps are initialised on these states (CausVid, arXiv
  2412.07772): their sigmas are among those of the teacher's Euler steps.
  """
  grid = flow.euler_sigmas(settings.steps, settings.shift)
  states = [noise]
  for first, end in itertools.pairwise(places(sigmas, settings)):
    states.append(_euler(velocity, states[-1], grid[first : end + 1]))
  return jnp.stack(states)


def sample_guided(
  dit: DiT,
  params: Any,
  prompt: jax.Array,
  negative: jax.Array,
  noise: jax.Array,
  settings: TeacherSettings,
) -> jax.Array:
  """Samples a teacher with guidance, from embeddings `[B, E, Dt]` on."""
  conditional, unconditional = (
    velocity_of(dit, params, text) for text in (prompt, negative)
  )
  velocity = guided(conditional, unconditional, settings.guidance_scale)
  return sample_teacher(velocity, noise, settings)
