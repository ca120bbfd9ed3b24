"""Requests: what is given must fit the plan, the picture and the timeline."""

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Conditioning, Request, places
from unitemp_jax.plans.decoding import describe_blocks

SIZE = (16, 32)


def frames(count, value=7, size=SIZE):
  return np.full((count, *size, 3), value, np.uint8)


def between(*given, **fields):
  plan = fields.pop('plan', orders.inbetween(9, given_last=3))
  settings = {'prompts': ('a',), 'seed': 0, **fields}
  return Request(
    'x', plan, height=SIZE[0], width=SIZE[1], conditioning=given, **settings
  )


def test_given_frames_are_pasted_pixel_for_pixel_wherever_a_piece_begins():
  request = between(
    Conditioning(0, frames(1, 1)), Conditioning(24, frames(9, 2))
  )
  assert request.num_frames == 33
  whole = request.paste(0, frames(33, 0))
  assert whole[:, 0, 0, 0].tolist() == [1] + [0] * 23 + [2] * 9
  for first in (0, 5, 24, 27, 30):
    piece = request.paste(first, frames(3, 0))
    np.testing.assert_array_equal(piece, whole[first : first + 3])
  # Nothing else is touched, neither outside nor in what was handed in.
  made = frames(4, 9)
  np.testing.assert_array_equal(request.paste(10, made), made)
  request.paste(0, made)
  assert (made == 9).all()


def test_timelines_may_begin_before_the_given_clip():
  plan = orders.extend(3, before=6, after=0)
  request = between(Conditioning(24, frames(9)), plan=plan)
  assert (request.plan.begin, request.num_frames) == (-6, 33)


def test_latents_are_found_by_position_in_whatever_order():
  given = (Conditioning(24, frames(9)), Conditioning(0, frames(1)))
  assert places(orders.inbetween(9, given_last=3), given) == [
    (1, 0),
    (0, 0),
    (0, 1),
    (0, 2),
  ]


@pytest.mark.parametrize('window', [None, 1, 3, 4])
def test_a_given_clip_is_one_block_however_rows_read_it(window):
  plan = orders.regenerate(12, 4, 3, window=window)
  blocks = describe_blocks(plan)['generation_order']
  assert sorted(blocks) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]]
  assert blocks[-1] == [4, 5, 6]
  plan = orders.backward(9, window=window)
  assert describe_blocks(plan)['generation_order'] == [
    [6, 7, 8],
    [3, 4, 5],
    [0, 1, 2],
  ]


def test_seams_are_counted_from_the_first_frame():
  """Also where a given clip meets what is made."""
  plain = orders.forward(9, block=3, anchors=3)
  facts = describe_blocks(plain)
  blocks = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
  assert facts == {'generation_order': blocks, 'boundary_frames': [8, 20]}
  back = describe_blocks(orders.backward(9, block=3, anchors=3))
  assert back['generation_order'] == blocks[::-1]
  ends = orders.inbetween(9, block=3, anchors=3, given_first=1, given_last=1)
  assert describe_blocks(ends) == facts
  clip = orders.forward(9, block=3, anchors=3, given_first=4)
  assert describe_blocks(clip) == {
    'generation_order': [[0, 1, 2, 3], [4, 5, 6], [7, 8]],
    'boundary_frames': [12, 24],
  }
  # A loop ends with the first frames of its first block.
  assert describe_blocks(orders.loop(9, block=3, anchors=3)) == {
    'generation_order': [[0, 1, 2], [8], [5, 6, 7], [3, 4]],
    'boundary_frames': [8, 16, 28],
  }


BAD = [
  ('another size', [Conditioning(0, frames(1, size=(16, 16)))], '16, 16'),
  (
    'not 1 + 4k',
    [Conditioning(0, frames(1)), Conditioning(24, frames(8))],
    r'24\.\.31',
  ),
  (
    'not at a latent',
    [Conditioning(0, frames(1)), Conditioning(23, frames(9))],
    r'24\.\.32',
  ),
  (
    'overlap',
    [Conditioning(0, frames(25)), Conditioning(24, frames(9))],
    'overlap',
  ),
  (
    'behind the end',
    [Conditioning(0, frames(1)), Conditioning(28, frames(9))],
    'after the',
  ),
  ('nothing given', [], 'give those at 0, 24, 28, 32'),
  ('one end', [Conditioning(24, frames(9))], r'give those at 0\.'),
]


@pytest.mark.parametrize(('given', 'what'), [row[1:] for row in BAD])
def test_given_frames_that_do_not_fit_are_refused(given, what):
  with pytest.raises(UserError, match=what):
    between(*given)


def test_prompts_and_seeds_that_do_not_fit_are_refused():
  given = (Conditioning(0, frames(1)), Conditioning(24, frames(9)))
  assert between(*given).seed == 0
  plan = orders.forward(9, prompts=((6, 1),))
  with pytest.raises(UserError, match='asks for 2 prompts'):
    between(plan=plan)
  with pytest.raises(UserError, match='prompt is empty'):
    between(plan=plan, prompts=('a', ' '))
  with pytest.raises(UserError, match='seed'):
    between(*given, seed=2**32)
