"""Frames, latents and seconds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitemp_jax import timeline
from unitemp_jax.errors import UserError


@given(st.integers(1, 200))
def test_latents_and_frames_are_inverse_and_cover_the_video(latents):
  frames = timeline.num_frames(latents)
  assert timeline.num_latents(frames) == latents
  owners = [timeline.latent_of(frame) for frame in range(frames)]
  for latent in range(latents):
    own = [frame for frame, owner in enumerate(owners) if owner == latent]
    first = timeline.first_frame(latent)
    assert own == list(range(first, timeline.last_frame(latent) + 1))


def test_other_numbers_of_frames_have_no_latents():
  for frames in (0, -3, 2, 32):
    with pytest.raises(ValueError, match=r'1 \+ 4k'):
      timeline.num_latents(frames)


@given(st.integers(-50, 400), st.sampled_from([8, 12, 16, 24]))
@settings(max_examples=200)
def test_a_number_of_frames_is_taken_as_it_is_or_refused(count, fps):
  for fit, offset, least in (
    (lambda n: timeline.length(n, fps, 'x'), 1, 5),
    (lambda n: timeline.fit(n, 'x', fps), 0, 0),
  ):
    if count >= least and (count - offset) % 4 == 0:
      assert fit(count) == fit(str(count)) == count
    else:
      with pytest.raises(UserError, match='use ') as error:
        fit(count)
      # Whatever the sentence offers is allowed, and one of it is near.
      words = str(error.value).split('; use ')[1].split()
      offered = [int(word) for word in words if word.isdigit()]
      assert len(offered) == 2 and [fit(n) for n in offered] == offered
      assert min(abs(n - count) for n in offered) < max(4, least - count + 1)


@given(st.floats(0, 60), st.sampled_from([8, 12, 16, 24]))
@settings(max_examples=100)
def test_seconds_become_the_nearest_length(seconds, fps):
  made = timeline.length(f'{seconds:.3f}s', fps)
  assert made % 4 == 1
  assert abs(made - seconds * fps) <= max(2.1, 5 - seconds * fps)


def test_seconds_that_must_fit():
  fit = lambda value: timeline.fit(value, 'x', 12, rounded=False)  # noqa: E731
  assert (fit('2s'), fit('2.333s'), fit('28')) == (24, 28, 28)
  with pytest.raises(UserError, match=r'use 20 \(1.67s\) or 24 \(2.00s\)'):
    fit('1.9s')


BAD = ['x', '', '2 minutes', '1e3', True, None, 'inf', 'nan', '--4', '2ss']


@pytest.mark.parametrize('bad', BAD)
def test_what_is_no_time_is_refused(bad):
  with pytest.raises(UserError, match='frames such as 24'):
    timeline.length(bad, 12)


LARGE = ['9' * 5000, 10**5000, '9' * 5000 + 's', 1_000_001, '1000001', '1e9s']


@pytest.mark.parametrize('large', LARGE, ids=range(len(LARGE)))
def test_what_is_too_large_is_refused_at_once(large):
  with pytest.raises(UserError) as error:
    timeline.length(large, 12)
  assert len(str(error.value)) < 100


def test_seconds_need_a_rate():
  with pytest.raises(UserError, match='give frames'):
    timeline.length('2s', None)
  with pytest.raises(UserError, match='use 29 or 33'):
    timeline.length(32, None)


@pytest.mark.parametrize(
  ('value', 'index'),
  [(0, 0), (-1, 32), ('1s', 12), ('-1s', 20), ('2.7s', 32), ('32', 32)],
)
def test_moments(value, index):
  assert timeline.moment(value, 12, 33, 'x') == index


@pytest.mark.parametrize('value', [33, -34, '3s', '-4s', 10])
def test_moments_outside_or_within_a_latent_are_refused(value):
  with pytest.raises(UserError, match=r'outside|multiple of 4'):
    timeline.moment(value, 12, 33, 'x')
  if value == 10:
    assert timeline.frame(value, 12, 33, 'x') == 10
