import numpy as np
import pytest

from unitemp_jax.data import falling_digits
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import arrow_of_time
from unitemp_jax.evaluation.metrics import curves


def odd(clips):
  """What the direction is read from, of thumbnails."""
  return np.stack([arrow_of_time.odd_features(clip) for clip in clips])


@pytest.fixture(scope='module')
def falling():
  spec = falling_digits.FallingDigitsSpec(split='train', seed=0)
  clips = falling_digits.sample_clips(spec, range(40))['video']
  return [curves.thumbnails(clip / np.float32(255)) for clip in clips]


def test_a_reversed_clip_is_called_reversed(falling):
  classifier = arrow_of_time.Direction.fit(odd(falling[:28]))
  forward = classifier.read(odd(falling[28:]))
  backward = classifier.read(odd([clip[::-1] for clip in falling[28:]]))
  assert (forward > 0.5).all() and (backward < 0.5).all()
  np.testing.assert_allclose(forward + backward, 1, atol=1e-9)


def test_real_clips_are_classified_by_what_has_not_seen_them(falling):
  names = [str(i // 2) for i in range(len(falling))]
  read = odd(falling)
  assert (arrow_of_time.held_out(read, names) > 0.5).mean() > 0.9
  with pytest.raises(UserError, match='two files'):
    arrow_of_time.held_out(read, ['one'] * len(falling))


def test_what_has_no_direction_is_called_at_random():
  """Negative control: dots at constant speed look the same backward."""
  rng = np.random.default_rng(0)
  clips = []
  for _ in range(48):
    start, speed = rng.uniform(0, 16, 2), rng.uniform(-0.7, 0.7, 2)
    clip = np.zeros((17, 16, 16), np.uint8)
    for t in range(17):
      y, x = np.abs((start + speed * t + 15) % 30 - 15).astype(int)
      clip[t, y, x] = 255
    clips.append(clip)
  answers = arrow_of_time.held_out(odd(clips), [str(i) for i in range(48)])
  assert 0.2 < (answers > 0.5).mean() < 0.8


def test_a_still_and_a_palindrome_have_no_direction(falling):
  classifier = arrow_of_time.Direction.fit(odd(falling[:20]))
  still = np.repeat(falling[0][:1], 17, axis=0)
  there = np.concatenate([falling[0], falling[0][-2::-1]])
  np.testing.assert_allclose(classifier.read(odd([still])), 0.5, atol=1e-6)
  np.testing.assert_allclose(classifier.read(odd([there])), 0.5, atol=1e-3)
