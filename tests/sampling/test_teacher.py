import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.diffusion import guidance
from unitemp_jax.errors import UserError
from unitemp_jax.sampling import teacher
from unitemp_jax.sampling.teacher import TeacherSettings

MEAN, STD = 1.5, 0.4


def exact_velocity(mean):
  """The exact one of data ~ N(mean, STD^2)."""

  def of(x, sigma):
    s = sigma[..., None, None, None]
    variance = (1 - s) ** 2 * STD**2 + s**2
    return (s - (1 - s) * STD**2) / variance * (x - (1 - s) * mean) - mean

  return of


def sample(settings, unconditional=None):
  noise = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 4))
  velocity = teacher.guided(
    exact_velocity(MEAN),
    unconditional or exact_velocity(-MEAN),
    settings.guidance_scale,
  )
  run = jax.jit(lambda x: teacher.sample_teacher(velocity, x, settings))
  return noise, run(noise)


@pytest.mark.parametrize(
  ('solver', 'steps', 'error'), [('euler', 300, 0.04), ('unipc', 20, 0.02)]
)
def test_noise_is_carried_to_the_data(solver, steps, error):
  noise, made = sample(TeacherSettings(steps, 1.0, 1.0, solver))
  assert jnp.abs(made - (MEAN + STD * noise)).max() < error


def test_euler_is_far_off_where_unipc_is_not():
  noise, made = sample(TeacherSettings(20, 1.0, 1.0, 'euler'))
  assert jnp.abs(made - (MEAN + STD * noise)).max() > 0.05


def test_guidance_leads_away_from_the_negative_prompt():
  scale = 1.5
  _, plain = sample(TeacherSettings(20, 5.0, 1.0))
  _, guided = sample(TeacherSettings(20, 5.0, scale))
  _, unguided = sample(
    TeacherSettings(20, 5.0, scale), unconditional=exact_velocity(MEAN)
  )
  assert (guided > plain).mean() > 0.9
  np.testing.assert_allclose(unguided, plain, atol=1e-5)


def test_former_names_of_the_scale_are_read():
  c, u = jnp.asarray(2.0), jnp.asarray(0.5)
  fields = [
    {'guidance_scale': 6.0},
    {'guidance': 6.0},
    {'extra_guidance': 5.0, 'guidance': None},
  ]
  assert [guidance.read_scale(f, 'a test') for f in fields] == [6.0] * 3
  assert guidance.guide(c, u, 6.0) == u + 6 * (c - u) == c + 5 * (c - u)
  assert guidance.guide(c, u, 1.0) == c


@pytest.mark.parametrize(
  'fields', [{}, {'guidance_scale': 1.0, 'extra_guidance': 0.0}]
)
def test_no_scale_and_two_are_refused(fields):
  with pytest.raises(UserError, match='must give one guidance_scale'):
    guidance.read_scale(fields, 'a test')


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'solver': 'ddim'}, 'no solver'),
    ({'steps': 0}, '1..1000 steps'),
    ({'shift': 0.0}, 'use more than 0'),
  ],
)
def test_settings_that_no_sampler_has_are_refused(changes, words):
  values = {'steps': 5, 'shift': 5.0, 'guidance_scale': 6.0}
  with pytest.raises(UserError, match=words):
    TeacherSettings(**{**values, **changes})
