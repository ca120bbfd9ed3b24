"""Falls read from pixels, against the exact state that drew them."""

import numpy as np
import pytest

from unitemp_jax.data import falling_digits
from unitemp_jax.evaluation.metrics import falls

SPEC = falling_digits.FallingDigitsSpec(split='test', seed=0)


@pytest.fixture(scope='module')
def clips():
  return falling_digits.sample_clips(SPEC, range(24))


def off(path):
  """From where it begins on average."""
  return path - path.mean(axis=1, keepdims=True)


def test_paths_of_pixels_are_those_of_the_state(clips):
  path = falls.paths(clips['video'])
  apart = off(path) - off(clips['position'])
  assert np.abs(apart).mean() < 0.2
  # Negative control: the path of another clip.
  assert np.abs(off(path) - off(np.roll(clips['position'], 1, 0))).mean() > 1


def test_what_breaks_the_law_is_far_from_it(clips):
  train = falling_digits.sample_states(
    falling_digits.FallingDigitsSpec(split='train'), range(2000)
  )['position'][..., 0]
  y = falls.paths(clips['video'])[..., 0]
  lawful = falls.distance_from_law(y, train)
  assert lawful.mean() < 0.5
  # Where it begins does not matter; played backwards it is no fall.
  moved = falls.distance_from_law(y + 3, train)
  np.testing.assert_allclose(moved, lawful, atol=1e-5)
  assert falls.distance_from_law(y[:, ::-1], train).mean() > 4 * lawful.mean()


def test_landing_and_bounce_are_those_of_the_state(clips):
  found = falls.events(clips['position'][..., 0], SPEC.size)
  early = found['landing'] - clips['landing']
  assert np.abs(early).mean() < 1.5
  bounces = clips['bounces']
  assert found['bounce'][bounces].min() > found['bounce'][~bounces].max()
  assert found['contact'][~bounces].min() > found['contact'][bounces].mean()
