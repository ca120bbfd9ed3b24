"""Trajectories of a teacher, and the regression on them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.objectives import ode_init, student_init, teacher_forcing
from unitemp_jax.sampling import teacher
from unitemp_jax.sampling.teacher import TeacherSettings

LEVELS = flow.student_sigmas()
SETTINGS = TeacherSettings(steps=48, shift=5.0, guidance_scale=3.0)
BATCH, FRAMES = 3, 9
GRID = (2, 2, 4)


def noise(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def conditional(x, sigma):
  return jnp.tanh(x) + flow.per_frame(sigma, x)


def unconditional(x, sigma):
  return 0.5 * x


def test_states_are_on_the_way_of_the_teachers_euler():
  assert teacher.places(LEVELS, SETTINGS) == [0, 12, 24, 36, 48]
  start = noise(0, BATCH, FRAMES, *GRID)
  velocity = teacher.guided(conditional, unconditional, SETTINGS.guidance_scale)
  states = teacher.sample_trajectory(velocity, start, SETTINGS, LEVELS)
  assert states.shape == (len(LEVELS), *start.shape)
  np.testing.assert_array_equal(states[0], start)
  whole = teacher.sample_teacher(velocity, start, SETTINGS)
  np.testing.assert_allclose(states[-1], whole, atol=1e-5)
  # From each state on, the rest of the way leads to the same clip.
  grid = flow.euler_sigmas(SETTINGS.steps, SETTINGS.shift)
  x = states[2]
  for now, then in itertools.pairwise(grid[24:]):
    sigma = jnp.full(x.shape[:2], now)
    v = unconditional(x, sigma)
    v = v + SETTINGS.guidance_scale * (conditional(x, sigma) - v)
    x = flow.euler_step(x, v, sigma, jnp.full_like(sigma, then))
  np.testing.assert_allclose(x, whole, atol=1e-4)
  assert jnp.abs(states[1] - states[2]).max() > 1e-2  # Control.


@pytest.mark.parametrize(
  'settings',
  [
    TeacherSettings(50, 5.0, 3.0),
    TeacherSettings(48, 8.0, 3.0),
    TeacherSettings(48, 5.0, 3.0, 'unipc'),
  ],
)
def test_a_way_that_misses_the_students_levels_is_refused(settings):
  with pytest.raises(UserError, match='do not meet the timesteps'):
    teacher.places(LEVELS, settings)


@pytest.fixture(scope='module')
def batch():
  clean = noise(1, BATCH, FRAMES, *GRID)
  return {
    'latents': clean,
    'trajectory': noise(2, BATCH, len(LEVELS) - 1, FRAMES, *GRID),
    'last_image': noise(3, BATCH, 1, *GRID),
    'anchors': jnp.stack([clean[:, k - 3 : k] for k in (3, 6)], axis=1),
  }


@pytest.mark.parametrize('draft_from', [0, 1])
def test_only_the_teachers_own_way_is_followed(batch, draft_from):
  """A network that knows where each state leads has no loss."""
  plans = [orders.forward(9), orders.backward(9, anchors=3, start=3)]
  layout = teacher_forcing.Layout(FRAMES, 3, 3)
  masks = [teacher_forcing.plan_mask(plan, layout) for plan in plans]
  table = student_init.plan_table(masks, [0.5, 0.5])
  clean = student_init.training_sequence(batch)
  end = layout.noisy(FRAMES)
  seen = []

  def knows(params, x, sigma, positions, mask):
    # Noisy frames are states of the trajectory at the level that is told.
    noisy = jnp.asarray(LEVELS[:-1])[None, None]
    level = jnp.abs(sigma[:, :, None] - noisy).argmin(-1)
    own = ode_init.at_sigmas(batch['trajectory'], level[:, end - FRAMES : end])
    seen.append(jnp.abs(x[:, end - FRAMES : end] - own).max())
    if not draft_from:
      places = layout.positions()[end:]
      states = batch['trajectory'][:, :, places]
      states = ode_init.at_sigmas(states, level[:, end:])
      seen.append(jnp.abs(x[:, end:] - states).max())
    context = slice(0, end - FRAMES)
    np.testing.assert_array_equal(x[:, context], clean[:, context])
    scale = flow.per_frame(jnp.maximum(sigma, 1e-3), x)
    return params * (x - clean) / scale

  def run(params, seed):
    return ode_init.loss(
      params,
      batch,
      jax.random.key(seed),
      denoise=knows,
      layout=layout,
      table=table,
      sigmas=LEVELS,
      start=3,
      anchor_drop=0.3,
      draft_share=0.5,
      draft_from=draft_from,
    )[0]

  assert max(float(run(1.0, seed)) for seed in range(4)) < 1e-9
  assert float(max(seen)) == 0.0
  assert float(run(0.5, 0)) > 0.1  # Control.
