"""When prompts that switch are seen, by the rows of a plan."""

import functools

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.generate import workflows
from unitemp_jax.plans import switches
from unitemp_jax.sampling import model_folder

CARD = model_folder.read_card(model_folder.TINY)


def asked(order, at, **settings):
  return order(17, prompts=((at, 1),), **settings)


def on_time(order, *wanted):
  return switches.on_time(lambda prompts: order(17, prompts=prompts), wanted)


def test_rows_that_see_what_comes_before_are_late():
  late = switches.LATE
  for order, lag in (
    (orders.forward, late),
    (orders.inbetween, late - 1),  # It sees what is given at the end, too.
    (orders.backward, -late),
    (lambda n, **o: orders.inbetween(n, side='future', **o), -late),
  ):
    plan = asked(order, 8)
    [found] = switches.switches(plan)
    assert found == (8, 1, lag)
    assert found.frames(plan) == (29, 29 + 4 * lag)
  sunk = orders.long(17, sinks='both', span=9, prompts=((8, 1),))
  assert switches.switches(sunk)[0].lag == late - 1
  assert switches.switches(orders.forward(17)) == []


@pytest.mark.parametrize('at', range(1, 17))
def test_a_prompt_takes_over_when_it_shows_on_time(at):
  late = switches.LATE
  [(first, index)] = on_time(orders.forward, (at, 1))
  assert index == 1
  assert first == (at - late if at >= 3 + late else min(at, 3))
  # Backward later, but that it keeps a block.
  [(first, index)] = on_time(orders.backward, (at, 1))
  assert index == 1
  assert first == (min(at + late, max(at, 14)) if at >= 3 else at)
  if 3 <= at < 14:
    last = min(at + 3 + late, max(at + 3, 14))
    first = min(at + late, max(at, last - 3))
    both = on_time(orders.backward, (at, 1), (at + 3, 2))
    assert both == ((first, 1), (last, 2))


def test_requests_switch_early_forward_and_late_backward():
  def prompts(request):
    plan = request.plan
    found = {
      position: int(plan.prompt[row])
      for row in range(plan.num_rows)
      for position, _ in plan.entries(row)
    }
    return [found[position] for position in sorted(found)]

  texts = {0: 'a', 24: 'b'}
  for direction, sinks, first in (
    ('forward', 'none', 4),
    ('forward', 'both', 5),
    ('backward', 'none', 8),
    ('backward', 'both', 8),
  ):
    request = workflows.long_video(CARD, texts, 49, direction, sinks)
    np.testing.assert_array_equal(prompts(request), np.arange(13) >= first)
  # Given frames keep their prompt, and the first prompt a block.
  clip = np.zeros((21, 32, 32, 3), np.uint8)
  grown = workflows.extend(CARD, clip, {0: 'a', 24: 'b'}, after=24)
  assert prompts(grown) == [0] * 6 + [1] * 6


@pytest.mark.parametrize(
  # Moved by what they see as asked, they would show at 11 and 7.
  ('at', 'first', 'shows'),
  [(8, 8, 6), (10, 10, 11)],
)
def test_what_is_moved_is_judged_where_it_went(at, first, shows):
  order = functools.partial(orders.inbetween, side='middle_out')
  assert on_time(order, (at, 1)) == ((first, 1),)
  [found] = switches.switches(asked(order, first))
  assert first + found.lag == shows


def test_a_prompt_of_given_frames_alone_is_told_to_do_nothing():
  clip = np.zeros((21, 32, 32, 3), np.uint8)
  texts = {0: 'a', 8: 'b', 16: 'c'}
  grown = workflows.extend(CARD, clip, texts, after=24)
  unread = [note for note in grown.remarks if 'given' in note]
  assert [note.split(' has')[0] for note in unread] == [
    f'the prompt {text!r}' for text in 'ab'
  ]
  assert grown.plan.prompt[~grown.plan.conditioning].min() == 2
