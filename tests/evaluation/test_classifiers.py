import pathlib

import numpy as np
import pytest

import unitemp_jax
from unitemp_jax.data import falling_digits
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.classifiers import arrow_of_time, classifier
from unitemp_jax.evaluation.classifiers import digits as digits_module
from unitemp_jax.evaluation.classifiers.arrow_of_time import ArrowOfTime
from unitemp_jax.evaluation.classifiers.classifier import spoil
from unitemp_jax.evaluation.classifiers.digits import DigitClassifier

TINY = pathlib.Path(unitemp_jax.__file__).parent / 'assets' / 'tiny'


@pytest.fixture(scope='module')
def held_out():
  spec = falling_digits.FallingDigitsSpec(split='test', seed=11)
  return falling_digits.sample_clips(spec, range(120))


@pytest.fixture(scope='module')
def digits():
  return DigitClassifier.load(TINY / 'oracle.npz')


@pytest.fixture(scope='module')
def arrow():
  return ArrowOfTime.load(TINY / 'arrow.npz')


def blurred(video, sigma):
  n, length = video.shape[:2]
  planes = np.moveaxis(video, -1, 2).reshape(-1, *video.shape[2:4]) / 255
  count = len(planes)
  planes = spoil(
    planes.astype(np.float32),
    np.full(count, sigma),
    np.full(count, 0.03),
    np.random.default_rng(0),
  )
  planes = planes.reshape(n, length, 3, *video.shape[2:4])
  return np.moveaxis(planes, 2, -1)


def constant_speed(n, seed):
  """Glyphs between elastic walls at constant speed: no arrow of time."""
  rng = np.random.default_rng(seed)
  size, glyph, length = 32, 12, 33
  video = np.zeros((n, length, size, size, 3), np.uint8)
  speed = rng.uniform(0.5, 2.5, (n, 2)) * rng.choice([-1, 1], (n, 2))
  place = rng.uniform(0, 40, (n, 2))
  room = size - glyph
  for i in range(n):
    ink = (rng.random((glyph, glyph, 1)) > 0.4) * np.uint8(240)
    for t in range(length):
      y, x = room - np.abs((place[i] + speed[i] * t) % (2 * room) - room)
      y, x = int(y), int(x)
      video[i, t, y : y + glyph, x : x + glyph] = ink
  return video


def test_reads_held_out_clips(digits, held_out):
  digit, colour, log_prob = digits.read(held_out['video'])
  assert (digit == held_out['digit']).mean() >= 0.99
  assert (colour == held_out['colour']).mean() >= 0.99
  assert log_prob.shape == (120, 10)
  np.testing.assert_array_equal(log_prob.argmax(1), digit)


def test_reads_blurred_clips_and_other_sizes(digits, held_out):
  digit, colour, _ = digits.read(blurred(held_out['video'][:50], 1.0))
  assert (digit == held_out['digit'][:50]).mean() >= 0.95
  assert (colour == held_out['colour'][:50]).mean() >= 0.99
  spec = falling_digits.FallingDigitsSpec(split='test', size=64, num_frames=9)
  large = falling_digits.sample_clips(spec, range(50))
  digit, colour, _ = digits.read(large['video'])
  assert (digit == large['digit']).mean() >= 0.94
  assert (colour == large['colour']).all()


def test_fails_on_noise_and_on_another_clip(digits, held_out):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (80, 9, 32, 32, 3), dtype=np.uint8)
  digit, colour, _ = digits.read(noise)
  assert (digit == held_out['digit'][:80]).mean() < 0.25
  assert (colour == held_out['colour'][:80]).mean() < 0.35
  digit, _, _ = digits.read(np.roll(held_out['video'], 1, axis=0))
  assert (digit == held_out['digit']).mean() < 0.3


def test_colour_is_that_of_most_of_the_clip(digits, held_out):
  clip = held_out['video'][:1]
  other = np.roll(clip, 1, axis=-1)
  mostly = np.concatenate([clip[:, :22], other[:, 22:]], axis=1)
  assert digits.read(mostly)[1][0] == held_out['colour'][0]
  assert digits.read(other)[1][0] != held_out['colour'][0]


def test_digits_round_trip(digits, held_out, tmp_path):
  path = tmp_path / 'oracle.npz'
  digits.save(path)
  again = DigitClassifier.load(path)
  for a, b in zip(
    digits.read(held_out['video'][:5]),
    again.read(held_out['video'][:5]),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  assert path.stat().st_size < 1_000_000
  assert [file.name for file in tmp_path.iterdir()] == ['oracle.npz']


def test_wrong_files_are_refused(tmp_path):
  path = tmp_path / 'oracle.npz'
  for load in (DigitClassifier.load, ArrowOfTime.load):
    with pytest.raises(UserError, match='There is no file'):
      load(path)
  path.write_text('nothing')
  for load in (DigitClassifier.load, ArrowOfTime.load):
    with pytest.raises(UserError, match='fit it again'):
      load(path)
  np.savez(path, other=np.ones(3))
  for load in (DigitClassifier.load, ArrowOfTime.load):
    with pytest.raises(UserError, match='not a fitted'):
      load(path)


def test_arrow_knows_forward_from_reversed(arrow, held_out):
  video = held_out['video'][:100]
  assert (arrow.read(video) > 0.5).mean() >= 0.99
  assert (arrow.read(video[:, ::-1]) > 0.5).mean() <= 0.01
  assert (arrow.read(blurred(video, 1.0)) > 0.5).mean() >= 0.98


def test_arrow_is_at_chance_where_there_is_none(arrow):
  called = arrow.read(constant_speed(150, seed=0)) > 0.5
  # Within 3.5 standard deviations of one half.
  assert abs(called.mean() - 0.5) < 3.5 * 0.5 / np.sqrt(150)


def test_arrow_is_undecided_on_a_mirror_in_time(arrow, held_out):
  video = held_out['video'][:10]
  mirror = np.concatenate([video, video[:, -2::-1]], axis=1)
  np.testing.assert_allclose(arrow.read(mirror), 0.5, atol=1e-3)
  both = arrow.read(video) + arrow.read(video[:, ::-1])
  np.testing.assert_allclose(both, 1, atol=1e-6)


def test_classifier_learns_what_no_line_can_separate():
  rng = np.random.default_rng(0)
  features = rng.uniform(-1, 1, (2000, 2)).astype(np.float32)
  labels = (features[:, 0] * features[:, 1] > 0).astype(int)
  settings = dict(hidden=(32,), epochs=60, seeds=(0,), decay=0.0)
  (fitted,) = classifier.train(lambda _: features, labels, **settings)
  assert (fitted.log_prob(features).argmax(1) == labels).mean() > 0.9
  # Negative control. What one network makes of noise agrees with four
  # quadrants by chance, so several shuffles are averaged.
  agreed = []
  for _ in range(4):
    shuffled = rng.permutation(labels)
    (lost,) = classifier.train(lambda _: features, shuffled, **settings)
    agreed.append((lost.log_prob(features).argmax(1) == labels).mean())
  assert np.mean(agreed) < 0.65


@pytest.mark.slow
def test_fitting_again_gives_as_good_classifiers(held_out, monkeypatch):
  """Of the three members one, in half of the time."""
  monkeypatch.setattr(digits_module, '_MEMBERS', 1)
  monkeypatch.setattr(digits_module, '_EPOCHS', 10)
  monkeypatch.setattr(arrow_of_time, '_CLIPS', 150)
  digit, _, _ = DigitClassifier.fit(1).read(held_out['video'])
  assert (digit == held_out['digit']).mean() >= 0.98
  assert (ArrowOfTime.fit(1).read(held_out['video']) > 0.5).mean() >= 0.99
