"""When prompts that switch are seen, by the rows of a plan."""

import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.generate import workflows
from unitemp_jax.plans import switches
from unitemp_jax.sampling import model_folder

CARD = model_folder.read_card(model_folder.TINY)


def asked(order, at, **settings):
  return order(17, prompts=((at, 1),), **settings)


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
  [(first, index)] = switches.on_time(asked(orders.forward, at), ((at, 1),))
  assert index == 1
  assert first == (at - late if at >= 3 + late else min(at, 3))
  # Backward later, but that it keeps a block.
  [(first, index)] = switches.on_time(asked(orders.backward, at), ((at, 1),))
  assert index == 1
  assert first == (min(at + late, max(at, 14)) if at >= 3 else at)
  if 3 <= at < 14:
    both = ((at, 1), (at + 3, 2))
    plan = orders.backward(17, prompts=both)
    last = min(at + 3 + late, max(at + 3, 14))
    first = min(at + late, max(at, last - 3))
    assert switches.on_time(plan, both) == ((first, 1), (last, 2))


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
