import dataclasses

import numpy as np
import pytest

from unitemp_jax.data import falling_digits
from unitemp_jax.data import falling_digits as fd
from unitemp_jax.errors import UserError

SPEC = fd.FallingDigitsSpec()


def ink_centre(frame: np.ndarray) -> np.ndarray:
  """Middle (y, x) of the bounding box of the bright pixels."""
  bright = frame.max(-1) > 0.55 * frame.max()
  rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
  return np.array(
    [(rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2]
  )


def test_clip_depends_on_seed_split_and_index_only():
  many = fd.sample_clips(SPEC, [0, 5, 9])
  one = fd.sample_clips(SPEC, [5])
  for name, values in one.items():
    np.testing.assert_array_equal(many[name][1], values[0], err_msg=name)
  for other in ({'seed': 1}, {'split': 'test'}):
    different = fd.sample_clips(dataclasses.replace(SPEC, **other), [5])
    assert not np.array_equal(different['video'], one['video'])
  assert not np.array_equal(many['video'][0], many['video'][1])


def test_shapes_and_longer_clip_continues():
  short = fd.sample_clips(SPEC, range(4))
  longer = fd.sample_clips(dataclasses.replace(SPEC, num_frames=41), range(4))
  assert short['video'].shape == (4, 33, 32, 32, 3)
  assert short['video'].dtype == np.uint8
  np.testing.assert_array_equal(longer['video'][:, :33], short['video'])


def test_splits_share_no_digit_image():
  train, test = fd.split_ids('train'), fd.split_ids('test')
  assert not set(train) & set(test)
  assert len(train) + len(test) == 1797
  for split, ids in (('train', train), ('test', test)):
    spec = dataclasses.replace(SPEC, split=split)
    drawn = fd.sample_states(spec, range(500))['digit_id']
    assert set(drawn) <= set(ids)
    assert len(set(drawn)) > 100


def test_state_matches_pixels():
  spec = dataclasses.replace(SPEC, trail=0.0)
  clips = fd.sample_clips(spec, range(24))
  whole, shifted = [], []
  for i in range(24):
    for t in range(spec.num_frames):
      place = clips['position'][i, t]
      if place[0] < clips['extent'][i, 0] / 2 + 0.5:
        continue  # partly above the frame
      found = ink_centre(clips['video'][i, t])
      whole.append(np.abs(found - place).max())
      # Negative control: the state of the next frame.
      after = clips['position'][i, min(t + 2, 32)]
      shifted.append(np.abs(found - after).max())
  assert len(whole) > 400
  assert np.max(whole) < 1.01
  assert np.mean(whole) < 0.4 < np.mean(shifted)


def test_digits_are_large_and_stay_in_the_frame():
  state = fd.sample_states(SPEC, range(500))
  y, x = np.moveaxis(state['position'], -1, 0)
  half = state['extent'] / 2
  assert (x - half[:, 1:]).min() >= -1e-6
  assert (x + half[:, 1:]).max() <= 32 + 1e-6
  assert (y + half[:, :1]).max() <= 32
  assert (y.max(1) - y[:, 0]).min() > 10
  assert 17 < state['extent'][:, 0].mean() < 20


def last_colours(clips):
  """The colour class nearest to the brightest pixel of each last frame."""
  last = clips['video'][:, -1].reshape(60, -1, 3).astype(float)
  brightest = last[np.arange(60), last.sum(-1).argmax(-1)]
  angle = brightest @ fd.COLOUR_RGB.T
  return (angle / np.linalg.norm(fd.COLOUR_RGB, axis=-1)).argmax(-1)


def test_colour_is_the_named_one():
  clips = fd.sample_clips(SPEC, range(60))
  np.testing.assert_array_equal(last_colours(clips), clips['colour'])


def arrow(video: np.ndarray) -> float:
  """Share of clips that look as if played forward.

  Ink lingers where the digit was: what a frame has and the next has not fades
  over several frames, but what is new appears at once.
  """
  light = video.max(-1).astype(float)
  step = np.diff(light, axis=1)
  gain = np.square(np.clip(step, 0, None)).sum((1, 2, 3))
  loss = np.square(np.clip(-step, 0, None)).sum((1, 2, 3))
  return float((gain > loss).mean())


def test_arrow_of_time_and_its_absence():
  video = fd.sample_clips(SPEC, range(64))['video']
  assert arrow(video) > 0.95
  assert arrow(video[:, ::-1]) < 0.05
  # Negative control: the same digits at constant speed, without a trail.
  clips = fd.sample_states(dataclasses.replace(SPEC, trail=0.0), range(64))
  path = clips['position'][:, :1].copy().repeat(33, 1)
  path[..., 0] = 20 - np.abs(np.arange(33) - 16) * 0.5
  symmetric = falling_digits.render(
    {**clips, 'position': path}, size=32, box=19.2, trail=0.0, decay=0.6
  )
  np.testing.assert_array_equal(symmetric, symmetric[:, ::-1])


def test_captions_are_true_and_varied():
  spec = dataclasses.replace(SPEC, size=16)
  clips = fd.sample_clips(spec, range(600))
  vocabulary = set(fd.vocabulary())
  wordings = set()
  for i, text in enumerate(clips['caption']):
    words = text.split()
    assert set(words) <= vocabulary
    assert len(words) <= 15
    colour = fd.COLOURS[clips['colour'][i]]
    digit = fd.DIGIT_NAMES[clips['digit'][i]]
    side = fd.SIDES[clips['side'][i]]
    assert colour in words
    assert digit in words
    assert not (set(fd.SIDES) - {side}) & set(words)
    if 'bounces' in words:
      assert clips['bounces'][i]
    if 'without' in words or 'stays' in words:
      assert not clips['bounces'][i]
    wordings.add(text.replace(colour, '').replace(digit, ''))
  assert len(wordings) > 40
  # Too short to see the ground: nothing is claimed about it.
  short = fd.sample_clips(dataclasses.replace(spec, num_frames=5), range(100))
  assert not any('bounce' in text for text in short['caption'])


def test_hops_close_a_loop_and_falls_do_not():
  def closure(**shares):
    spec = dataclasses.replace(SPEC, **shares)
    video = fd.sample_clips(spec, range(20))['video'].astype(float)
    steps = np.abs(np.diff(video, axis=1)).mean((2, 3, 4))
    back = np.abs(video[:, 0] - video[:, 32]).mean((1, 2, 3))
    return back / np.median(steps, axis=1)

  assert closure(hop_share=1.0).max() < 0.01
  assert np.median(closure()) > 2


def test_turns_end_as_the_digit_that_their_captions_name():
  spec = dataclasses.replace(SPEC, turn_share=1.0)
  clips = fd.sample_clips(spec, range(60))
  plain = fd.sample_clips(SPEC, range(60))
  np.testing.assert_array_equal(clips['video'][:, 0], plain['video'][:, 0])
  assert (clips['turned'][:, -1] == 1).all()
  np.testing.assert_array_equal(last_colours(clips), clips['colour_after'])
  assert (clips['colour_after'] != clips['colour']).all()
  vocabulary = set(fd.vocabulary())
  for i, text in enumerate(clips['caption']):
    before, after = text.split(' turns into ')
    assert fd.DIGIT_NAMES[clips['digit'][i]] in before.split()
    assert fd.DIGIT_NAMES[clips['digit_after'][i]] in after.split()
    assert fd.COLOURS[clips['colour_after'][i]] in after.split()
    assert set(text.split()) <= vocabulary
    assert len(text.split()) <= 18


def test_shares_of_scenes():
  spec = dataclasses.replace(SPEC, hop_share=0.2, turn_share=0.1)
  state = fd.sample_states(spec, range(2000))
  shares = np.bincount(state['scene'], minlength=3) / 2000
  np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.03)
  # The falls among them are those of a set without other scenes.
  falls = state['scene'] == 0
  plain = fd.sample_states(SPEC, range(2000))
  for name in ('position', 'digit_id', 'colour'):
    np.testing.assert_array_equal(state[name][falls], plain[name][falls])


def test_side_is_where_the_digit_starts():
  state = fd.sample_states(SPEC, range(300))
  room = 32 - state['extent'][:, 1]
  place = (state['position'][:, 0, 1] - state['extent'][:, 1] / 2) / room
  np.testing.assert_array_equal(np.digitize(place, [0.3, 0.7]), state['side'])


@pytest.mark.parametrize(
  'bad',
  [
    {'split': 'valid'},
    {'num_frames': 0},
    {'digit_size': 0.9},
    {'hop_share': -0.1},
    {'hop_share': 0.6, 'turn_share': 0.6},
  ],
)
def test_bad_spec(bad):
  with pytest.raises(UserError):
    fd.FallingDigitsSpec(**bad)


def test_negative_index():
  with pytest.raises(UserError):
    fd.sample_clips(SPEC, [-1])
