"""From what users have to requests: lengths, sizes, schedules, refusals."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate import workflows
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.sound import RATE, read_sound
from unitemp_jax.video.write import open_video, write_video

CARD = model_folder.read_card(model_folder.TINY)
TINY_WORDS = model_folder.TINY / 'tokenizer.json'
RNG = np.random.default_rng(0)


def frames(count, height=32, width=32):
  return RNG.integers(0, 256, (count, height, width, 3), np.uint8)


CLIP = frames(33)


def made_frames(request):
  """Frames of the timeline that are not given."""
  given = {
    clip.frame + k
    for clip in request.conditioning
    for k in range(len(clip.video))
  }
  return sorted(set(range(request.num_frames)) - given)


def test_an_extended_clip_stays_where_it_is_put():
  request = workflows.extend(CARD, CLIP, 'a', before=24, after='2s', seed=5)
  assert (request.plan.begin, request.num_frames, request.seed) == (-6, 81, 5)
  assert made_frames(request) == [*range(24), *range(57, 81)]
  np.testing.assert_array_equal(request.conditioning[0].video, CLIP)


@pytest.mark.parametrize(
  ('at', 'frame'), [(0, 0), (-1, 32), (16, 16), ('1s', 12), ('32', 32)]
)
def test_a_picture_stands_at_its_time(at, frame):
  request = workflows.image_to_video(CARD, CLIP[0], 'a', at=at)
  assert [clip.frame for clip in request.conditioning] == [frame]
  assert request.num_frames == CARD.frames


def test_keyframes_that_count_from_the_end_end_there():
  keys = {0: CLIP[0], '24': CLIP[:5], -1: CLIP[:9]}
  request = workflows.fill(CARD, keys, 'a', length=65)
  assert [clip.frame for clip in request.conditioning] == [0, 24, 56]
  # Without a length the video ends with the last of them.
  request = workflows.fill(CARD, {0: CLIP[0], 60: CLIP[0]}, 'a')
  assert request.num_frames == 61
  assert workflows.fill(CARD, {8: CLIP[0]}, 'a').num_frames == CARD.frames


@given(st.integers(1, 27), st.integers(0, 26))
@settings(max_examples=60)
def test_a_span_is_made_anew_and_nothing_more_than_latents_need(low, more):
  high = min(low + more, 27)
  request = workflows.regenerate(CARD, CLIP, (low, high), 'a')
  made = made_frames(request)
  assert made == list(range(made[0], made[-1] + 1))
  assert low - 3 <= made[0] <= low <= high <= made[-1] <= high + 3
  for clip in request.conditioning:
    kept = CLIP[clip.frame : clip.frame + len(clip.video)]
    np.testing.assert_array_equal(clip.video, kept)


def test_prompts_switch_where_the_schedule_says():
  request = workflows.text_to_video(CARD, {0: 'a', '1s': 'b', 24: 'c'})
  assert request.prompts == ('a', 'b', 'c')
  plan = request.plan
  of = {
    position: int(plan.prompt[row])
    for row in range(plan.num_rows)
    for position, _ in plan.entries(row)
  }
  assert [of[p] for p in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  grown = workflows.extend(CARD, CLIP, {0: 'a', 12: 'b'}, before=24)
  rows = np.flatnonzero(~grown.plan.conditioning)
  begins = grown.plan.target[rows, 0].tolist()
  # What grows backward shows its prompt earlier than it begins.
  assert begins == [-1, -3, -6]
  assert grown.plan.prompt[rows].tolist() == [1, 0, 0]


def test_stories_and_long_videos_are_as_long_as_asked():
  scenes = [('a', '2s'), ('b', 24), ('c', 36)]
  request = workflows.story(CARD, scenes, connections=12, loop=True)
  assert request.num_frames == 1 + 24 + 24 + 36 + 3 * 12
  assert workflows.story(CARD, scenes, connections=12).num_frames == 109
  for direction in ('forward', 'backward'):
    request = workflows.long_video(CARD, 'a', '20s', direction)
    assert request.num_frames == 241
    assert (
      request.plan.num_slots
      == workflows.long_video(CARD, 'a', '60s', direction).plan.num_slots
    )  # the cache does not grow


BAD = [
  ('clip of 30', lambda: workflows.extend(CARD, CLIP[:30], 'a', after=4), '29'),
  ('adds nothing', lambda: workflows.extend(CARD, CLIP, 'a'), 'as --after=24'),
  ('6 frames', lambda: workflows.extend(CARD, CLIP, 'a', after=6), '4 .* or 8'),
  ('order', lambda: workflows.text_to_video(CARD, 'a', order='x'), "'x'"),
  ('setting', lambda: workflows.loop(CARD, 'a', hieght=32), "'hieght'"),
  ('size', lambda: workflows.loop(CARD, 'a', height=40), '40x32'),
  ('level', lambda: workflows.loop(CARD, 'a', start=9), 'start level 9'),
  ('span', lambda: workflows.regenerate(CARD, CLIP, (0, 9), 'a'), r'1\.\.27'),
  *(
    ('no keys', functools.partial(workflows.fill, CARD, keys, 'a'), 'by time')
    for keys in ({}, [CLIP[0]], None)
  ),
  *(
    (
      'no span',
      functools.partial(workflows.regenerate, CARD, CLIP, span, 'a'),
      'two frames',
    )
    for span in (5, '9:', None, (5,), (1, 2, 3))
  ),
  ('order', lambda: workflows.text_to_video(CARD, 'a', order=[]), 'no order'),
  ('trim', lambda: workflows.loop(CARD, 'a', trim='no'), 'True or False'),
  ('side', lambda: workflows.loop(CARD, 'a', side=np.zeros(2)), 'side is'),
  ('model', lambda: workflows.loop(None, 'a'), r'unitemp_jax\.load'),
  ('plan', lambda: workflows.from_plan(CARD, 'plan.json', 'a'), 'plan is'),
  *(
    ('scenes', functools.partial(workflows.story, CARD, scenes), r'\(prompt, ')
    for scenes in (5, None, 'ab', ['ab', 'cd'], [('a', 12), ('b',)])
  ),
  (
    'loop',
    lambda: workflows.story(CARD, [('a', 12), ('b', 12)], loop='no'),
    'True or False',
  ),
  (
    'sinks',
    lambda: workflows.long_video(CARD, 'a', 61, sink_latents='x'),
    'no whole',
  ),
  ('late', lambda: workflows.fill(CARD, {36: CLIP[0]}, 'a', length=33), '36'),
  (
    'too long',
    lambda: workflows.image_to_video(CARD, CLIP, 'a', length=17),
    'at least 33',
  ),
  (
    'before',
    lambda: workflows.fill(CARD, {-1: CLIP}, 'a', length=17),
    'before',
  ),
  ('schedule', lambda: workflows.loop(CARD, {12: 'a'}), 'at frame 0'),
  (
    'one latent',
    lambda: workflows.loop(CARD, {0: 'a', 5: 'b', 6: 'c'}),
    'apart',
  ),
  ('prompt', lambda: workflows.loop(CARD, ' '), 'empty'),
  *(
    ('prompt', functools.partial(workflows.loop, CARD, prompt), 'give a text')
    for prompt in (None, 5, b'x', {0: None})
  ),
  ('prompts', lambda: workflows.loop(CARD, ['a', 'b']), '2 prompts are given'),
  *(
    ('number', functools.partial(workflows.loop, CARD, 'a', **own), 'no whole')
    for own in (
      *({'seed': 1.7}, {'seed': None}, {'height': '32'}, {'window': 1.5}),
      *({'anchors': '3'}, {'start': 1.5}, {'width': 32.0}),
    )
  ),
]


@pytest.mark.parametrize(('call', 'what'), [row[1:] for row in BAD])
def test_what_cannot_be_made_is_refused_in_one_sentence(call, what):
  with pytest.raises(UserError, match=what) as error:
    call()
  assert '\n' not in str(error.value)


def test_a_clip_is_trimmed_where_the_video_does_not_go_on():
  clip = CLIP[:31]

  def given(make, *arguments, **fields):
    request = make(CARD, *arguments, **fields, trim=True)
    assert any('2 of 31 frames were cut' in r for r in request.remarks)
    return [own.video for own in request.conditioning]

  def same(found, wanted):
    np.testing.assert_array_equal(found, wanted)

  same(given(workflows.extend, clip, 'a', after=8)[0], CLIP[2:31])
  same(given(workflows.extend, clip, 'a', before=8)[0], CLIP[:29])
  ends = given(workflows.transition, clip, clip, 'a', 81)
  same(ends[0], CLIP[2:31])
  same(ends[1], CLIP[:29])
  same(given(workflows.image_to_video, clip, 'a', 61)[0], CLIP[2:31])
  same(given(workflows.image_to_video, clip, 'a', 61, -1)[0], CLIP[:29])
  keyframes = given(workflows.fill, {0: clip, '-1': clip}, 'a', 81)
  same(keyframes[0], CLIP[2:31])
  same(keyframes[1], CLIP[:29])


def loud_clip(path, second=0.5):
  """Writes CLIP with a tone from a second on; silent before."""
  sound = np.zeros((2, round(len(CLIP) / CARD.fps * RATE)), np.float32)
  first = round(second * RATE)
  tone = np.sin(np.arange(sound.shape[1] - first) * 0.06) / 2
  sound[:, first:] = tone
  with open_video(path, CARD.fps, kind='mkv', sound=sound) as append:
    append(CLIP)
  return path


def onset(sound):
  """Second in which the sound begins."""
  return np.flatnonzero(abs(sound[0]) > 0.05)[0] / RATE


def test_sound_that_is_dropped_and_unknown_words_are_said(tmp_path):
  loud = loud_clip(tmp_path / 'with sound.mkv')
  model = workflows.Model(CARD, Tokenizer.from_file(TINY_WORDS))
  request = workflows.image_to_video(model, loud, 'a cat falls', length=65)
  assert request.sound is None
  assert request.remarks[0] == f'{loud} has sound; the video will have none'
  assert request.remarks[1].startswith('the model does not know "cat"')


def test_sound_keeps_its_place(tmp_path):
  loud = loud_clip(tmp_path / 'loud.mkv')
  silent = tmp_path / 'silent.mp4'
  write_video(silent, CLIP, CARD.fps)
  assert workflows.extend(CARD, silent, 'a', after=8).sound is None
  for before, after in ((0, 8), (24, 0), (12, 12)):
    request = workflows.extend(CARD, loud, 'a', before=before, after=after)
    sound, shift = request.sound, before / CARD.fps
    assert sound.shape == (2, round(request.num_frames / CARD.fps * RATE))
    np.testing.assert_allclose(onset(sound), 0.5 + shift, atol=0.01)
    end = round((before + len(CLIP)) / CARD.fps * RATE)
    assert not sound[:, end + 9 :].any()  # silence where there was none
    assert abs(sound[:, end - 2400 : end]).max() > 0.3
    assert not request.remarks
  long = tmp_path / 'long.mkv'
  with open_video(long, CARD.fps, kind='mkv', sound=read_sound(loud)) as append:
    append(CLIP)
    append(CLIP[-2:])
  # What is cut off the clip's start is cut off its sound.
  request = workflows.extend(CARD, long, 'a', after=8, trim=True)
  np.testing.assert_allclose(
    onset(request.sound), 0.5 - 2 / CARD.fps, atol=0.01
  )
  request = workflows.regenerate(CARD, loud, (9, 12), 'a')
  np.testing.assert_allclose(onset(request.sound), 0.5, atol=0.01)
  assert request.sound.shape[1] == round(len(CLIP) / CARD.fps * RATE)


WIDE = dataclasses.replace(CARD, height=480, width=832)


@given(st.floats(0.3, 3.3))
@settings(max_examples=100)
def test_sizes_keep_shape_and_area(aspect):
  height, width = WIDE.best_size(aspect)
  step = WIDE.size_step
  assert height % step == 0 and width % step == 0
  assert abs(np.log(height / width / aspect)) < 0.05
  assert abs(np.log(height * width / (480 * 832))) < 0.1
  assert WIDE.best_size(480 / 832) == (480, 832)


def test_given_frames_decide_the_size_unless_the_user_does():
  wide = frames(1, 40, 80)
  for card, fields, size in (
    (WIDE, {}, WIDE.best_size(0.5)),
    (WIDE, {'height': 160}, (160, 320)),
    (WIDE, {'width': 160}, (80, 160)),
    (WIDE, {'height': 64, 'width': 64}, (64, 64)),
  ):
    request = workflows.image_to_video(card, wide, 'a', **fields)
    assert (request.height, request.width) == size
    assert request.conditioning[0].video.shape[1:3] == size
  assert workflows.loop(WIDE, 'a').width == 832
