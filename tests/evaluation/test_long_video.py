"""Drift: errors that add up are found in the order in which they were made."""

import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import long_video

N, WINDOWS = 16, 10


def real(seed=0, trend=1.0):
  """Courses with a trend that belongs to the data, and a spread."""
  rng = np.random.default_rng(seed)
  time = np.linspace(0, trend, WINDOWS)[None, :, None]
  own = rng.normal(size=(N, 1, 6))
  return 5 + time + 0.3 * own + 0.05 * rng.normal(size=(N, WINDOWS, 6))


def test_windows_of_a_clip_look_as_they_are():
  frames = np.zeros((2, 20, 8, 8, 3), np.uint8)
  frames[:, 10:, :, :, 0] = 200
  course = long_video.courses(frames, 2)
  assert course.shape == (2, 2, 6)
  looks = dict(zip(long_video.LOOKS, course[0].T, strict=True))
  np.testing.assert_allclose(looks['brightness'], [0, 0.299 * 200 / 255], 1e-5)
  np.testing.assert_allclose(looks['saturation'], [0, 200 / 255], 1e-5)
  # The change between the windows belongs to the frame that it leads to.
  np.testing.assert_allclose(looks['motion'], [0, 200 / 255 / 30], 1e-5)
  np.testing.assert_allclose(looks['contrast'], 0, atol=1e-6)
  with pytest.raises(UserError, match='at least 21'):
    long_video.courses(frames, 7)


def test_a_trend_of_real_clips_is_no_growth():
  reference = long_video.Reference.of(real(0))
  forward = list(range(WINDOWS))
  for order in (forward, forward[::-1]):
    grown = long_video.growth(real(1), reference, order)
    assert abs(grown.mean()) < 0.2
  assert long_video.ends_apart(real(1), reference.spread).mean() > 1
  # Negative control: without the trend the ends are alike.
  flat = long_video.Reference.of(real(0, trend=0.0))
  assert long_video.ends_apart(real(1, trend=0.0), flat.spread).mean() < 0.5


@pytest.mark.parametrize('backward', [False, True])
def test_growth_follows_the_order_of_generation(backward):
  reference = long_video.Reference.of(real(0))
  error = np.linspace(0, 3, WINDOWS)[None, :, None]
  order = list(range(WINDOWS))
  if backward:
    order, error = order[::-1], error[:, ::-1]
  spoilt = real(1) + error
  assert long_video.growth(spoilt, reference, order).mean() > 1
  # The other way round the errors heal.
  assert long_video.growth(spoilt, reference, order[::-1]).mean() < -1


def test_windows_in_the_order_of_their_blocks():
  spans = [(9, 20), (0, 8), (21, 32)]
  assert long_video.window_order(33, 3, spans) == [1, 0, 2]
  assert long_video.window_order(33, 3, spans[1:2] + spans[:1]) != [1, 0, 2]
  blocks = [(12 * k, 12 * k + 11) for k in range(10)]
  assert long_video.window_order(120, 5, blocks[::-1]) == [4, 3, 2, 1, 0]
