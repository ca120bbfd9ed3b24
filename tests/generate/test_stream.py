"""Rows one by one: what the scan makes, pixels as they exist, resuming."""

import dataclasses

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.generate import workflows

# The scan and the single rows are different programs of the same arithmetic.
# XLA may fuse and contract them differently, and each pass feeds the next; 1e-4
# is what batches of other sizes are allowed too. Measured on a CPU: nothing.
TOLERANCE = 1e-4
SEED = 7
RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def clip(pipeline):
  """A clip of smooth noise, that no model has made."""
  shape = (33, pipeline.card.height // 8, pipeline.card.width // 8, 3)
  coarse = RNG.integers(0, 256, shape, np.uint8)
  return coarse.repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope='module')
def requests(pipeline, clip):
  """Two workflows: rows of every kind; sinks. Their windows are of one size."""
  card = pipeline.card
  return {
    'extend': workflows.extend(
      card,
      clip[:5],
      {0: 'a red one', 8: 'a blue two'},
      before=20,
      after=12,
      window=3,
    ),
    'long': workflows.long_video(
      card, 'a red one', 81, 'backward', 'both', seed=SEED
    ),
  }


@pytest.fixture(scope='module')
def rows(pipeline, requests):
  """All rows of every request, by name."""
  return {name: list(pipeline.rows(one)) for name, one in requests.items()}


def generated(request, rows):
  """The rows that a run keeps on disk."""
  return {m.row: m for m in rows if not request.plan.conditioning[m.row]}


def timeline_of(request, rows):
  """Latents in temporal order."""
  held = {
    entry: made.latents[0, k]
    for made in rows
    for k, (_, entry) in enumerate(request.plan.entries(made.row))
  }
  return np.stack([held[entry] for entry in request.plan.timeline()[1]])


def same(one, other):
  return all(
    a.row == b.row
    and np.array_equal(a.latents, b.latents)
    and np.array_equal(a.anchors, b.anchors)
    for a, b in zip(one, other, strict=True)
  )


@pytest.mark.parametrize('name', ['extend', 'long'])
def test_rows_are_what_the_scan_makes(pipeline, requests, rows, name):
  request = requests[name]
  given = None
  if request.conditioning:
    given = pipeline.encode(request.conditioning[0].video[None])
  made = pipeline.generate(
    [request.prompts], [request.seed], request.plan, given
  )
  timeline = timeline_of(request, rows[name])
  np.testing.assert_allclose(made.timeline[0], timeline, atol=TOLERANCE)
  for row in rows[name]:
    if request.plan.anchor[row.row]:
      np.testing.assert_allclose(
        made.anchors[row.row], row.anchors, atol=TOLERANCE
      )
  # The control: another seed is another video.
  other = dataclasses.replace(request, seed=request.seed + 1)
  first = next(r for r in pipeline.rows(other) if r.fresh)
  mine = next(r for r in rows[name] if r.fresh)
  assert np.abs(first.latents - mine.latents).max() > 0.1


@pytest.mark.parametrize('name', ['extend', 'long'])
@pytest.mark.parametrize('kept', [1, 3])
def test_a_run_that_continues_is_the_same_bit_for_bit(
  pipeline, requests, rows, name, kept
):
  request = requests[name]
  finished = dict(list(generated(request, rows[name]).items())[:kept])
  again = list(pipeline.rows(request, finished))
  assert same(again, rows[name])
  assert [r.row for r in again if not r.fresh and r.row in finished] == list(
    finished
  )


def test_a_row_that_was_tampered_with_changes_what_follows(
  pipeline, requests, rows
):
  """The control: what is stored of a finished row does matter."""
  request = requests['extend']
  finished = dict(list(generated(request, rows['extend']).items())[:1])
  row = next(iter(finished))
  off = dataclasses.replace(finished[row], latents=finished[row].latents + 1e-3)
  again = list(pipeline.rows(request, {row: off}))
  assert not same(again[-1:], rows['extend'][-1:])


def test_pieces_fill_the_timeline_once_with_the_given_frames_in_place(
  pipeline, requests
):
  for request in requests.values():
    size = (request.height, request.width)
    video = np.zeros((request.num_frames, *size, 3), np.uint8)
    times = np.zeros(request.num_frames, int)
    seconds = []
    for piece in pipeline.run(request):
      span = slice(piece.first, piece.first + len(piece.frames))
      video[span] = piece.frames
      times[span] += 1
      seconds.append(piece.seconds)
    assert (times == 1).all()
    assert seconds == sorted(seconds)
    np.testing.assert_array_equal(request.paste(0, video), video)


def test_pixels_of_a_batch_are_those_of_a_single_video(pipeline, clip):
  card = pipeline.card
  made = {
    'loop': workflows.loop(card, 'a red one', 33),
    'loop of a picture': workflows.loop(card, 'a red one', 33, clip[:1]),
    'open start': workflows.text_to_video(card, 'a red one', 21, 'backward'),
    'closed start': workflows.text_to_video(card, 'a red one', 33, 'backward'),
  }
  assert made['open start'].plan.opening is not None
  assert made['closed start'].plan.opening is None
  for name, request in made.items():
    given = None
    if request.conditioning:
      given = pipeline.encode(request.conditioning[0].video[None])
    batch = pipeline.generate(
      [request.prompts], [request.seed], request.plan, given
    )
    video = request.paste(0, pipeline.pixels(batch)[0]).astype(int)
    # Chunks and the whole clip are different programs; bytes may round apart.
    single = pipeline.video(request)
    assert len(single) == len(video) == request.num_frames, name
    assert np.abs(single - video).max() <= 1, name
    if 'loop' in name:
      np.testing.assert_array_equal(single[0], single[-1])


def test_growing_forward_streams_the_joint_decoding(pipeline):
  request = workflows.text_to_video(pipeline.card, 'a red one', 45)
  pieces = list(pipeline.run(request))
  assert [piece.first for piece in pieces] == [0, 9, 21, 33]
  streamed = np.concatenate([piece.frames for piece in pieces]).astype(int)
  timeline = timeline_of(request, pipeline.rows(request))
  joint = pipeline.decode(timeline[None])[0]
  # Chunks and the whole clip are different programs; bytes may round apart.
  assert np.abs(streamed - joint).max() <= 1
  assert np.abs(pipeline.video(request) - streamed).max() <= 1
  # The control: without memory the second piece would look different.
  alone, _ = pipeline.decode_chunk(timeline[None, 3:6], None)
  assert np.abs(alone[0, -4:].astype(int) - streamed[17:21]).max() > 1


def test_long_clips_are_encoded_piece_by_piece(pipeline, clip):
  longer = np.concatenate([clip, clip[::-1]])
  for count in (1, 21, 37):
    whole = pipeline.encode(longer[None, :count])
    parts = pipeline.encode_clip(longer[:count])
    np.testing.assert_allclose(parts, whole, atol=TOLERANCE)
  assert np.abs(whole[:, -1] - whole[:, -2]).max() > 100 * TOLERANCE


def test_the_cache_of_a_window_does_not_grow(pipeline):
  def slots(length):
    request = workflows.long_video(pipeline.card, 'x', length, window=4)
    return request.plan.num_slots

  assert slots('10s') == slots('120s')
  assert orders.forward(49).num_slots < orders.forward(97).num_slots


@pytest.mark.slow
def test_other_sizes_run(pipeline, clip):
  wide = clip[:1].repeat(2, 2)
  request = workflows.image_to_video(pipeline.card, wide, 'a', length=13)
  assert (request.height, request.width) == (16, 32)
  video = pipeline.video(request)
  assert video.shape == (13, 16, 32, 3)
  np.testing.assert_array_equal(video[0], wide[0])
