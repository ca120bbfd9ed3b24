"""Latents to pixels in windows, with a decoder that remembers all its past."""

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.plans import decoding
from unitemp_jax.sampling import decode as sampling

N, P = 9, 3
RNG = np.random.default_rng(0)
LATENTS = RNG.standard_normal((2, N, 1, 1, 1))


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


def decoded(plan, latents, anchors, mode, decode=causal):
  """The pieces of a finished plan."""
  chunk = sampling.remembering(decode)
  schedule = decoding.schedule(plan, mode)
  return list(sampling.run(chunk, plan, schedule, latents, anchors))


def video(plan, latents, anchors, mode, decode=causal):
  return sampling.compose(decoded(plan, latents, anchors, mode, decode))


def test_forward_streaming_equals_joint_decoding():
  plan = orders.forward(N, anchors=P)
  pieces = decoded(plan, LATENTS, anchors_of(plan), 'stream')
  assert [piece.first for piece in pieces] == [0, 9, 21]
  np.testing.assert_allclose(sampling.compose(pieces), WHOLE)
  np.testing.assert_array_equal(
    video(plan, LATENTS, anchors_of(plan), 'joint'), WHOLE
  )


def test_backward_streaming_decodes_after_the_anchors():
  plan = orders.backward(N, anchors=P)
  anchors = anchors_of(plan) + 0.1  # Anchors are not the final latents.
  pieces = decoded(plan, LATENTS, anchors, 'stream')
  assert [piece.first for piece in pieces] == [21, 9, 0]
  shown = sampling.compose(pieces)
  assert shown.shape == WHOLE.shape
  for row, first in ((0, 6), (1, 3)):
    window = np.concatenate([anchors[row], LATENTS[:, first : first + 3]], 1)
    start = 4 * first - 3
    np.testing.assert_allclose(
      shown[:, start : start + 12], causal(window)[:, -12:]
    )
  np.testing.assert_allclose(shown[:, :9], WHOLE[:, :9])
  # The seam that true latents in the anchors' place would lessen.
  true = video(plan, LATENTS, anchors - 0.1, 'stream')
  bare = orders.backward(N, anchors=0, given_last=1)
  buffer = np.concatenate([LATENTS, LATENTS[:, -1:]], axis=1)
  none = video(bare, buffer, np.repeat(anchors[:1], 4, axis=0), 'stream')
  error = [np.abs(v - WHOLE)[:, 21].max() for v in (true, shown, none)]
  assert error[0] < error[1] < error[2]
  # Without a past, the first latent gives one frame, which is held.
  for frame in range(22, 25):
    np.testing.assert_array_equal(none[:, frame], none[:, 21])
  assert np.abs(none[:, 25] - none[:, 21]).max() > 0.01


def short_memory(latents, length):
  """Each latent mixes with the `length` before it, and nothing else."""
  frames = []
  for k in range(latents.shape[1]):
    own = [
      latents[:, j] / (1 + k - j) for j in range(max(k - length, 0), k + 1)
    ]
    frames += [sum(own)[:, None] + 0.01 * i for i in range(4 if k else 1)]
  return np.concatenate(frames, axis=1)


@pytest.mark.parametrize('name', list(orders.ORDERS))
def test_lag_is_joint_decoding_where_its_window_is_the_whole_memory(name):
  """One block of memory: whatever the anchors are, and whatever is before."""
  length = N + (name == 'loop')
  plan = orders.ORDERS[name](length, anchors=P)
  buffer = RNG.standard_normal((2, plan.num_latents, 1, 1, 1))
  anchors = RNG.standard_normal((plan.num_rows, 2, P, 1, 1, 1))

  def shown(mode, memory):
    return video(plan, buffer, anchors, mode, lambda x: short_memory(x, memory))

  joint = shown('joint', 3)
  np.testing.assert_allclose(shown('lag', 3), joint, atol=1e-12)
  # The controls: the stream lacks it, and so does a longer memory.
  needed = decoding.needs_lag(plan)
  assert needed == (name not in ('forward', 'inbetween'))
  assert (np.abs(shown('stream', 3) - joint).max() > 0.1) == needed
  if name == 'backward':
    apart = np.abs(shown('lag', 4) - shown('joint', 4)).max()
    assert apart > 0.1
    # Anchors that are the true past hold as much more.
    anchors[:] = anchors_of(plan, buffer)
    np.testing.assert_allclose(shown('lag', 6), shown('joint', 6), atol=1e-12)


def test_orders_without_previews_say_that_they_need_no_lag():
  plans = {name: orders.ORDERS[name](N) for name in ('forward', 'backward')}
  (note,) = decoding.lag_notes(plans)
  assert note.startswith('forward: ') and 'needs no lag' in note


def test_a_block_is_shown_at_once_and_again_when_the_one_before_is_there():
  plan = orders.backward(N, anchors=P)
  pieces = decoded(plan, LATENTS, anchors_of(plan), 'lag')
  assert [(p.first, p.last, p.refines) for p in pieces] == [
    (21, 32, False), (9, 20, False), (21, 32, True), (0, 8, False),
    (9, 20, True),
  ]  # fmt: skip
  rows = decoding.schedule(plan, 'lag')
  assert [row.row for row in rows] == [0, 1, 1, 2, 2]
  # Nine latents a block: the preview's six, and the block once more.
  assert [len(row.latents) + P * (row.anchors >= 0) for row in rows[1:3]] == [
    6, 3,
  ]  # fmt: skip


@pytest.mark.parametrize(
  'name', [name for name in orders.ORDERS if name != 'loop']
)
def test_every_order_fills_the_timeline_once(name):
  plan = orders.ORDERS[name](N, anchors=P)
  buffer = np.concatenate([LATENTS, LATENTS[:, :2] + 5], axis=1)
  pieces = decoded(plan, buffer, anchors_of(plan), 'stream')
  spans = sorted((piece.first, piece.last) for piece in pieces)
  assert spans == [(0, 8), (9, 20), (21, 32)]
  blocks = [int(t[0]) for t in plan.target[~plan.conditioning]]
  assert [piece.first for piece in pieces] == [
    max(4 * b - 3, 0) for b in blocks
  ]
  # Nothing of the given images beside the timeline is shown.
  assert np.abs(sampling.compose(pieces)).max() < 4.5


def rolled(video, by):
  """A playing loop, which shows its first frame once, entered later."""
  return np.roll(video[:, 1:], -by, axis=1)


def test_a_loop_is_decoded_as_if_it_had_always_been_playing():
  plan = orders.loop(N, anchors=P)
  buffer, anchors = LATENTS[:, :8], anchors_of(plan)
  shown = video(plan, buffer, anchors, 'joint')
  assert shown.shape[1] == 33
  np.testing.assert_array_equal(shown[:, 0], shown[:, -1])
  # Wherever the circle is entered, it looks the same.
  other = video(plan, np.roll(buffer, -3, axis=1), anchors, 'joint')[:, 1:]
  forgotten = 0.5**8 * 10  # of what was before the first round
  np.testing.assert_allclose(rolled(shown, 12), other, atol=forgotten)
  # The control: decoded once only, it begins with the memory of its anchors.
  once = causal(np.concatenate([anchors[plan.opening], buffer], axis=1))
  assert np.abs(once[:, -32:] - shown[:, 1:]).max() > 10 * forgotten


def test_a_loop_streams_its_last_frames_with_its_first():
  plan = orders.loop(N, anchors=P)
  pieces = decoded(plan, LATENTS[:, :8], anchors_of(plan), 'stream')
  assert [(piece.first, piece.last) for piece in pieces] == [
    (0, 8), (29, 32), (17, 28), (9, 16),
  ]  # fmt: skip
  shown = sampling.compose(pieces)
  np.testing.assert_array_equal(shown[:, 0], shown[:, -1])


@pytest.mark.parametrize('given', [1, 3])
def test_a_loop_that_is_given_its_beginning_plays_from_its_end_to_it(given):
  plan = orders.loop(N, anchors=P, given_first=given)
  buffer = np.concatenate([LATENTS, LATENTS[:, :1] + 5], axis=1)
  (row,) = decoding.joint(plan)
  assert row.latents == (*range(9), *range(1, 9))
  shown = video(plan, buffer, anchors_of(plan), 'joint')
  assert shown.shape[1] == 33
  np.testing.assert_array_equal(shown[:, 0], shown[:, -1])


def test_blocks_cover_all_frames_whatever_the_start():
  def blocks(plan):
    return decoding.describe_blocks(plan)['generation_order']

  loop = blocks(orders.loop(N, anchors=P))
  assert loop[:2] == [[0, 1, 2], [8]]
  assert sorted(p for own in loop for p in own) == list(range(9))
  short = blocks(orders.backward(6, anchors=P, open_start=True))
  assert short == [[3, 4, 5], [0, 1, 2]]
  closed = blocks(orders.backward(6, anchors=P))
  assert closed[1] == [0, 1, 2]


def test_an_open_start_begins_with_the_last_frame_of_its_anchors():
  plan = orders.backward(6, anchors=P, open_start=True)
  buffer, anchors = LATENTS[:, :5], anchors_of(plan) + 0.1
  whole = np.concatenate([anchors[plan.opening], buffer], axis=1)
  shown = video(plan, buffer, anchors, 'joint')
  np.testing.assert_array_equal(shown, causal(whole)[:, -21:])
  pieces = decoded(plan, buffer, anchors, 'stream')
  assert [(piece.first, piece.last) for piece in pieces] == [(9, 20), (0, 8)]
  np.testing.assert_allclose(sampling.compose(pieces)[:, :9], shown[:, :9])


def test_a_given_clip_comes_first_and_is_the_past_of_what_follows():
  plan = orders.forward(N, anchors=P, given_first=3)
  pieces = decoded(plan, LATENTS, anchors_of(plan), 'stream')
  assert pieces[0].first == 0
  np.testing.assert_allclose(sampling.compose(pieces), WHOLE)


@pytest.mark.parametrize('window', [None, 3])
@pytest.mark.parametrize('mode', ['stream', 'joint'])
def test_a_given_clip_is_decoded_from_its_own_image_latent(window, mode):
  """Whatever grows from it forward too, and in whatever order rows read it."""
  plan = orders.extend(5, before=5, after=4, anchors=P, window=window)
  clip = causal(LATENTS[:, :5])
  positions, entries = plan.preloaded()
  buffer = np.full((2, plan.num_latents, 1, 1, 1), 9.0)
  for position, entry in zip(positions, entries, strict=True):
    buffer[:, entry] = LATENTS[:, position]
  pieces = sampling.run(
    sampling.remembering(causal),
    plan,
    decoding.schedule(plan, mode),
    buffer,
    anchors_of(plan),
  )
  pieces = list(sampling.by_time(pieces, plan.num_frames))
  shown = sampling.compose(pieces)
  assert shown.shape[1] == 1 + 4 * 13
  np.testing.assert_allclose(shown[:, 21:37], clip[:, 1:])
  # The frames behind it have the clip as their past.
  made = np.full((2, 4, 1, 1, 1), 9.0)
  whole = causal(np.concatenate([LATENTS[:, :5], made], axis=1))
  np.testing.assert_allclose(shown[:, 37:], whole[:, 17:])
  # The control: with the frames before as their past they would differ.
  other = causal(np.concatenate([buffer[:, :6], LATENTS[:, 1:5]], axis=1))
  assert np.abs(other[:, 21:37] - clip[:, 1:]).max() > 0.1


def test_nothing_is_kept_that_no_later_row_reads():
  plan = orders.long(40, direction='backward', anchors=P, sinks='both', span=17)
  schedule = decoding.schedule(plan, 'lag')
  decoder = sampling.Decoder(sampling.remembering(causal), plan, schedule)
  zeros = np.zeros((1, P, 1, 1, 1))
  for row in range(plan.num_rows):
    count = int(plan.count[row])
    if count:
      list(decoder.add(row, zeros[:, :count], zeros))
    # The preview of one block, and those beside sinks.
    assert len(decoder._latents) <= 3 * plan.block
    assert len(decoder._memory) <= 3
  assert not decoder._latents and not decoder._memory and not decoder._anchors
