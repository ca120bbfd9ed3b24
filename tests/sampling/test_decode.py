"""Latents to pixels in windows, with a decoder that remembers all its past."""

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.sampling import decode

N, P = 9, 3
LATENTS = np.random.default_rng(0).standard_normal((2, N, 1, 1, 1))


def causal(latents):
  """Each latent mixes with half of all that came before it."""
  state, frames = 0.0, []
  for k in range(latents.shape[1]):
    state = latents[:, k] + 0.5 * state
    own = [state + 0.01 * i for i in range(4 if k else 1)]
    frames.append(np.stack(own, axis=1))
  return np.concatenate(frames, axis=1)


WHOLE = causal(LATENTS)


def anchors_of(plan, source=LATENTS):
  """For every row, what stands before its block in `source`."""
  rows = []
  for row in range(plan.num_rows):
    first = max(int(plan.target[row, 0]), P)
    rows.append(source[:, first - P : first])
  return np.stack(rows)


def test_window_keeps_the_blocks_own_frames():
  made = decode.window(causal, LATENTS[:, :3], LATENTS[:, 3:6])
  np.testing.assert_allclose(made, WHOLE[:, 9:21])
  short = decode.window(causal, LATENTS[:, 2:3], LATENTS[:, 3:6])
  assert short.shape == made.shape
  assert np.abs(short - made).max() > 0.01


def test_window_without_past_holds_its_image_latent_for_four_frames():
  made = decode.window(causal, LATENTS[:, :0], LATENTS[:, 3:6])
  assert made.shape[1] == 12
  for frame in range(1, 4):
    np.testing.assert_array_equal(made[:, frame], made[:, 0])
  assert np.abs(made[:, 4] - made[:, 0]).max() > 0.01


def test_forward_streaming_equals_joint_decoding():
  plan = orders.forward(N, anchors=P)
  pieces = decode.stream(causal, plan, LATENTS, anchors_of(plan))
  assert [first for first, _ in pieces] == [0, 9, 21]
  np.testing.assert_allclose(decode.compose(pieces), WHOLE)


def test_backward_streaming_decodes_after_the_anchors():
  plan = orders.backward(N, anchors=P)
  anchors = anchors_of(plan) + 0.1  # Anchors are not the final latents.
  pieces = decode.stream(causal, plan, LATENTS, anchors)
  assert [first for first, _ in pieces] == [21, 9, 0]
  video = decode.compose(pieces)
  assert video.shape == WHOLE.shape
  for row, first in ((0, 6), (1, 3)):
    window = np.concatenate([anchors[row], LATENTS[:, first : first + 3]], 1)
    start = 4 * first - 3
    np.testing.assert_allclose(
      video[:, start : start + 12], causal(window)[:, -12:]
    )
  np.testing.assert_allclose(video[:, :9], WHOLE[:, :9])
  # The seam that true latents in the anchors' place would lessen.
  true = decode.compose(decode.stream(causal, plan, LATENTS, anchors - 0.1))
  bare = orders.backward(N, anchors=0, given_last=1)
  buffer = np.concatenate([LATENTS, LATENTS[:, -1:]], axis=1)
  none = decode.compose(
    decode.stream(causal, bare, buffer, np.repeat(anchors[:1], 4, axis=0))
  )
  error = [np.abs(v - WHOLE)[:, 21].max() for v in (true, video, none)]
  assert error[0] < error[1] < error[2]


@pytest.mark.parametrize(
  'name', [name for name in orders.ORDERS if name != 'loop']
)
def test_every_order_fills_the_timeline_once(name):
  plan = orders.ORDERS[name](N, anchors=P)
  buffer = np.concatenate([LATENTS, LATENTS[:, :2] + 5], axis=1)
  anchors = anchors_of(plan)
  pieces = decode.stream(causal, plan, buffer, anchors)
  spans = sorted((first, first + f.shape[1]) for first, f in pieces)
  assert spans == [(0, 9), (9, 21), (21, 33)]
  made = [first for first, _ in pieces]
  blocks = [int(t[0]) for t in plan.target[~plan.given]]
  assert made == [max(4 * b - 3, 0) for b in blocks]
  # Nothing of the given images beside the timeline is shown.
  assert np.abs(decode.compose(pieces)).max() < 4.5


def rolled(video, by):
  """A playing loop, which shows its first frame once, entered later."""
  return np.roll(video[:, 1:], -by, axis=1)


def test_a_loop_is_decoded_as_if_it_had_always_been_playing():
  plan = orders.loop(N, anchors=P)
  buffer, anchors = LATENTS[:, :8], anchors_of(plan)
  latents = decode.sequence(plan, buffer, anchors)
  assert latents.shape[1] == P + 8 + 8 + 1
  video = decode.shown(plan, causal(latents))
  assert video.shape[1] == 33
  np.testing.assert_array_equal(video[:, 0], video[:, -1])
  # Wherever the circle is entered, it looks the same.
  other = decode.sequence(plan, np.roll(buffer, -3, axis=1), anchors)
  other = decode.shown(plan, causal(other))[:, 1:]
  forgotten = 0.5**8 * 10  # of what was before the first round
  np.testing.assert_allclose(rolled(video, 12), other, atol=forgotten)
  # The control: decoded once only, it begins with the memory of its anchors.
  once = causal(np.concatenate([anchors[plan.opening], buffer], axis=1))
  assert np.abs(once[:, -32:] - video[:, 1:]).max() > 10 * forgotten


def test_a_loop_streams_its_last_frames_with_its_first():
  plan = orders.loop(N, anchors=P)
  pieces = decode.stream(causal, plan, LATENTS[:, :8], anchors_of(plan))
  assert [(first, f.shape[1]) for first, f in pieces] == [
    (0, 9), (29, 4), (17, 12), (9, 8),
  ]  # fmt: skip
  video = decode.compose(pieces)
  np.testing.assert_array_equal(video[:, 0], video[:, -1])


@pytest.mark.parametrize('given', [1, 3])
def test_a_loop_that_is_given_its_beginning_plays_from_its_end_to_it(given):
  plan = orders.loop(N, anchors=P, given_first=given)
  buffer = np.concatenate([LATENTS, LATENTS[:, :1] + 5], axis=1)
  latents = decode.sequence(plan, buffer, anchors_of(plan))
  np.testing.assert_array_equal(latents[:, :9], LATENTS)
  np.testing.assert_array_equal(latents[:, 9:], LATENTS[:, 1:])
  video = decode.shown(plan, causal(latents))
  assert video.shape[1] == 33
  np.testing.assert_array_equal(video[:, 0], video[:, -1])


def test_blocks_cover_all_frames_whatever_the_start():
  loop = orders.loop(N, anchors=P)
  assert decode.with_ends(loop, [[0, 1, 2], [5, 6, 7], [3, 4]]) == [
    [0, 1, 2], [8], [5, 6, 7], [3, 4],
  ]  # fmt: skip
  short = orders.backward(6, anchors=P, open_start=True)
  assert decode.with_ends(short, [[3, 4, 5], [1, 2]]) == [[3, 4, 5], [0, 1, 2]]
  closed = orders.backward(6, anchors=P)
  assert decode.with_ends(closed, [[3, 4, 5], [0, 1, 2]])[1] == [0, 1, 2]


def test_an_open_start_begins_with_the_last_frame_of_its_anchors():
  plan = orders.backward(6, anchors=P, open_start=True)
  buffer, anchors = LATENTS[:, :5], anchors_of(plan) + 0.1
  latents = decode.sequence(plan, buffer, anchors)
  whole = np.concatenate([anchors[plan.opening], buffer], axis=1)
  np.testing.assert_array_equal(latents, whole)
  video = decode.shown(plan, causal(latents))
  np.testing.assert_array_equal(video, causal(whole)[:, -21:])
  pieces = decode.stream(causal, plan, buffer, anchors)
  assert [(first, f.shape[1]) for first, f in pieces] == [(9, 12), (0, 9)]
  np.testing.assert_allclose(decode.compose(pieces)[:, :9], video[:, :9])


def test_a_given_clip_comes_first_and_is_the_past_of_what_follows():
  plan = orders.forward(N, anchors=P, given_first=3)
  pieces = decode.stream(causal, plan, LATENTS, anchors_of(plan))
  assert pieces[0][0] == 0
  np.testing.assert_allclose(decode.compose(pieces), WHOLE)


def test_delayed_decoding_needs_the_blocks_before():
  np.testing.assert_allclose(decode.delayed(causal, LATENTS, N, 3), WHOLE)
  near = np.abs(decode.delayed(causal, LATENTS, 3, 3) - WHOLE).max()
  far = np.abs(decode.delayed(causal, LATENTS, 0, 3) - WHOLE).max()
  assert 1e-3 < near < far


@pytest.mark.parametrize('window', [None, 3])
def test_a_given_clip_is_decoded_from_its_own_image_latent(window):
  """Whatever grows from it forward too, and in whatever order rows read it."""
  plan = orders.extend(5, before=5, after=4, anchors=P, window=window)
  clip = causal(LATENTS[:, :5])
  positions, entries = plan.preloaded()
  buffer = np.full((2, plan.num_latents, 1, 1, 1), 9.0)
  for position, entry in zip(positions, entries, strict=True):
    buffer[:, entry] = LATENTS[:, position]
  pieces = decode.stream(causal, plan, buffer, anchors_of(plan))
  video = decode.compose(pieces)
  assert video.shape[1] == 1 + 4 * 13
  np.testing.assert_allclose(video[:, 21:37], clip[:, 1:])
  # The frames behind it have the clip as their past.
  made = np.full((2, 4, 1, 1, 1), 9.0)
  whole = causal(np.concatenate([LATENTS[:, :5], made], axis=1))
  np.testing.assert_allclose(video[:, 37:], whole[:, 17:])
  # The control: with the frames before as their past they would differ.
  other = causal(np.concatenate([buffer[:, :6], LATENTS[:, 1:5]], axis=1))
  assert np.abs(other[:, 21:37] - clip[:, 1:]).max() > 0.1
