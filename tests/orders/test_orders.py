"""Every order is lawful, complete and in the order that its name says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lawful import made

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.plans import DATA_FIELDS, check, text


def generated(plan):
  """The positions of the generated rows, in order of generation."""
  return [
    [position for position, _ in plan.entries(row)]
    for row in np.flatnonzero(~plan.conditioning)
  ]


def anchored(plan):
  return plan.anchor[~plan.conditioning].tolist()


def broken_laws(plan, length):
  """An independent reading of what an order must do; empty when all is well."""
  found = []
  known, cached, carried = set(), 0, None
  made = sorted(position for block in generated(plan) for position in block)
  kept = sorted(
    position
    for row in np.flatnonzero(plan.conditioning)
    for position, _ in plan.entries(row)
    if position not in made
  )
  if sorted(made + kept) != list(range(length)):
    found.append('each position once')
  for row in range(plan.num_rows):
    places = [position for position, _ in plan.entries(row)]
    if not places:
      continue
    first = places[0]
    wants = (
      plan.num_anchors > 0
      and not plan.conditioning[row]
      and first > 0
      and first - 1 not in known
    )
    if not (
      plan.conditioning[row]
      or plan.anchor[row]
      or plan.visible[row]
      or not first
    ):
      found.append(f'row {row} is made from nothing')
    if plan.anchor[row] != wants:
      found.append(f'anchors of row {row}')
    if plan.anchor[row] and first - plan.num_anchors < 0:
      found.append(f'anchors of row {row} before the video')
    whole = len(places) == plan.num_anchors == plan.block
    starts = carried == first and whole
    if (plan.start[row] > 0) != (starts and not plan.conditioning[row]):
      found.append(f'start of row {row}')
    if plan.anchor[row]:
      carried = first - plan.num_anchors
    if plan.visible[row] != cached:
      found.append(f'context of row {row}')
    if plan.write[row][: len(places)].tolist() != list(
      range(cached, cached + len(places))
    ):
      found.append(f'slots of row {row}')
    cached += len(places)
    known |= set(places)
  return found


@st.composite
def requests(draw):
  block = draw(st.integers(1, 5))
  first, last = draw(st.integers(0, 5)), draw(st.integers(0, 5))
  least = max(first if first > 1 else 0, 0) + max(last - 1, 0) + 1
  return {
    'num_latents': draw(st.integers(max(least, last + 1, 2), 24)),
    'block': block,
    'anchors': draw(st.integers(0, block)),
    'given_first': first,
    'given_last': last,
    'start': 2,
  }


@settings(max_examples=300, deadline=None)
@given(
  requests(),
  st.sampled_from([name for name in orders.ORDERS if name != 'loop']),
)
def test_every_order_obeys_the_laws(request, name):
  request = dict(request)
  if name.startswith('inbetween'):
    request['given_first'] = max(request['given_first'], 1)
    request['given_last'] = max(request['given_last'], 1)
  plan = made(orders.ORDERS[name], **request)
  check(plan)
  assert broken_laws(plan, request['num_latents']) == []


@settings(max_examples=150, deadline=None)
@given(requests(), st.sampled_from(orders.SIDES))
def test_every_side_of_inbetween_obeys_the_laws(request, side):
  request = {**request, 'side': side}
  for name in ('given_first', 'given_last'):
    request[name] = max(request[name], 1)
  plan = orders.inbetween(**request)
  assert broken_laws(plan, request['num_latents']) == []


def test_the_independent_reading_can_fail():
  plan = orders.backward(9, start=2)
  assert broken_laws(plan, 9) == []
  for field, row, value in (
    ('anchor', 1, False),
    ('anchor', 2, True),
    ('start', 1, 0),
    ('visible', 2, 3),
    ('write', 1, [4, 3, 5]),
    ('target', 2, [1, 2, 3]),
  ):
    array = getattr(plan, field).copy()
    array[row] = value
    assert broken_laws(dataclasses.replace(plan, **{field: array}), 9)


@pytest.mark.parametrize('block', [1, 2, 3, 4, 5])
def test_anchors_never_begin_before_the_video(block):
  for length in range(2, 4 * block + 2):
    for anchors in range(block + 1):
      for side in orders.SIDES:
        plan = orders.inbetween(length, side=side, block=block, anchors=anchors)
        with_anchors = plan.target[plan.anchor, 0]
        assert all(with_anchors >= anchors), (length, anchors, side)


def test_a_short_head_would_push_the_anchors_out():
  # The plain partition [0], [1..3], ... is what the rule above avoids.
  plan = orders.backward(10, anchors=1)
  assert generated(plan) == [[7, 8, 9], [4, 5, 6], [1, 2, 3], [0]]
  with pytest.raises(UserError, match=r'row 2: has anchors at -2\.\.0'):
    check(dataclasses.replace(plan, num_anchors=3, num_slots=99))
  assert generated(orders.backward(10)) == [
    [7, 8, 9],
    [4, 5, 6],
    [3],
    [0, 1, 2],
  ]


def test_forward_and_backward():
  plan = orders.forward(9, start=2)
  assert generated(plan) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
  assert anchored(plan) == [False] * 3 and plan.start.tolist() == [0] * 3
  plan = orders.backward(9, start=2)
  assert generated(plan) == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
  assert anchored(plan) == [True, True, False]
  assert plan.start.tolist() == [0, 2, 2]
  plan = orders.backward(9, anchors=0, given_last=1)
  assert anchored(plan) == [False] * 3


@pytest.mark.parametrize('order', ['backward', 'loop', 'story', 'json', 'long'])
def test_what_would_be_made_from_nothing_is_refused(order):
  with pytest.raises(UserError, match=r'from nothing.*--last=PICTURE'):
    if order == 'loop':  # its middle is too far from what is there
      orders.loop(30, side='middle_out', span=9, anchors=0)
    elif order == 'story':
      orders.story([orders.Scene(6), orders.Scene(6)], anchors=0)
    elif order == 'long':
      orders.long(30, sinks='future', span=9, anchors=0)
    elif order == 'json':
      plan = orders.backward(9)
      bare = {'anchor': np.zeros(3, bool), 'start': np.zeros(3, np.int32)}
      text.from_json(text.to_json(dataclasses.replace(plan, **bare)))
    else:
      orders.backward(9, anchors=0)
  # The controls: something to see, anchors, or the head of the video.
  orders.backward(9, anchors=0, given_last=1)
  orders.backward(9, anchors=0, given_first=1)
  orders.backward(9, anchors=1)
  orders.forward(9, anchors=0)


def test_the_short_block_comes_last():
  assert generated(orders.forward(8))[-1] == [6, 7]
  assert generated(orders.backward(8, anchors=2))[-1] == [0, 1]
  assert generated(orders.inbetween(11, side='outside_in')) == [
    [0, 1, 2], [8, 9, 10], [3, 4, 5], [6, 7],
  ]  # fmt: skip
  assert generated(orders.forward(2)) == [[0, 1]]


def test_inbetween_from_each_side():
  expected = {
    'past': [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]],
    'future': [[9, 10, 11], [6, 7, 8], [3, 4, 5], [0, 1, 2]],
    'outside_in': [[0, 1, 2], [9, 10, 11], [3, 4, 5], [6, 7, 8]],
    'middle_out': [[6, 7, 8], [3, 4, 5], [9, 10, 11], [0, 1, 2]],
  }
  anchors = {
    'past': [False] * 4,
    'future': [True, True, True, False],
    'outside_in': [False, True, False, False],
    'middle_out': [True, True, False, False],
  }
  for side, blocks in expected.items():
    plan = orders.inbetween(12, side=side)
    assert generated(plan) == blocks
    assert anchored(plan) == anchors[side]
    assert plan.conditioning.tolist() == [True] * 2 + [False] * 4
    assert plan.target[:2, 0].tolist() == [0, 11]
    assert plan.latent[:2, 0].tolist() == [12, 13]
    assert plan.preloaded()[1].tolist() == [12, 13]


def test_inbetween_from_the_past_is_forward_with_both_ends():
  left, right = (
    orders.inbetween(9),
    orders.forward(9, given_first=1, given_last=1),
  )
  for name in DATA_FIELDS:
    assert np.array_equal(getattr(left, name), getattr(right, name))


def test_loop():
  plan = orders.loop(9)
  assert generated(plan) == [[0, 1, 2], [5, 6, 7], [3, 4]]
  assert plan.conditioning.tolist() == [False, True, False, True, False]
  assert plan.entries(1) == [(8, 0), (9, 1), (10, 2)]
  assert plan.anchor.tolist() == [True, False, True, False, False]
  assert (plan.num_latents, plan.preloaded()[1].size) == (8, 0)
  plan = orders.loop(9, given_first=1)
  assert generated(plan) == [[0, 1, 2], [6, 7, 8], [3, 4, 5]]
  # The image is seen at both ends, and so is what follows it.
  assert plan.entries(0) == [(0, 9)] and plan.entries(1) == [(8, 9)]
  assert plan.entries(3) == [(9, 1), (10, 2)]
  plan = orders.loop(9, given_first=4)
  assert generated(plan) == [[6, 7, 8], [4, 5]]
  assert plan.preloaded()[1].tolist() == [0, 1, 2, 3]


def test_given_clips():
  plan = orders.backward(12, given_first=4, given_last=3)
  assert plan.entries(0) == [(0, 0), (1, 1), (2, 2)]
  assert plan.entries(1) == [(3, 3)]
  # The clip's image latent is context at 9, and 9 itself is generated.
  assert plan.entries(2) == [(9, 12), (10, 10), (11, 11)]
  assert generated(plan) == [[7, 8, 9], [4, 5, 6]]
  assert anchored(plan) == [True, False]
  assert plan.num_latents == 13
  assert plan.timeline()[1].tolist() == list(range(12))


def test_rows_pads():
  plans = [make(9, rows=6) for make in orders.ORDERS.values()]
  for plan in plans:
    assert plan.num_rows == 6
    check(plan)
  with pytest.raises(UserError, match='at least 5'):
    orders.inbetween(9, rows=4)


@pytest.mark.parametrize(
  ('make', 'settings'),
  [
    (orders.forward, {'num_latents': 0}),
    (orders.forward, {'num_latents': 9, 'block': 0}),
    (orders.forward, {'num_latents': 9, 'anchors': 4}),
    (orders.forward, {'num_latents': 9, 'anchors': -1}),
    (orders.forward, {'num_latents': 9, 'start': -1}),
    (orders.forward, {'num_latents': 9, 'given_first': -1}),
    (orders.forward, {'num_latents': 9, 'given_first': 9}),
    (orders.backward, {'num_latents': 9, 'given_last': 9}),
    (orders.backward, {'num_latents': 9, 'given_first': 5, 'given_last': 5}),
    (orders.inbetween, {'num_latents': 9, 'given_last': 0}),
    (orders.inbetween, {'num_latents': 9, 'given_first': 0}),
    (orders.inbetween, {'num_latents': 1}),
    (orders.inbetween, {'num_latents': 9, 'side': 'left'}),
    (orders.loop, {'num_latents': 2}),
    (orders.loop, {'num_latents': 9, 'given_last': 1}),
    (orders.loop, {'num_latents': 5, 'given_first': 5}),
    (orders.loop, {'num_latents': 9, 'side': 'left'}),
  ],
)
def test_impossible_orders_are_refused(make, settings):
  with pytest.raises(UserError, match=r'use|give') as error:
    make(**settings)
  assert 'latent' not in str(error.value)
