"""The plans that students are trained on, and how a rollout reads them."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.training.programs.builders import training_plans
from unitemp_jax.training.programs.rollout import PlanChoice

ORDERS = {'block': 3, 'anchors': 3, 'start': 3}


def plans_of(*names):
  weights = {name: 1.0 for name in names}
  return training_plans(ConfigDict({**ORDERS, 'weights': weights}), 9)


def test_ends_of_names_say_what_is_given():
  given = [
    plan.preloaded()[0].tolist()
    for plan in plans_of('forward', 'forward+last', 'inbetween+first+last')[0]
  ]
  assert given == [[], [8], [0, 8]]


def test_a_loop_with_overlap_sees_its_whole_first_block_behind_its_end():
  for name, wanted in (('loop', [8]), ('loop+overlap', [8, 9, 10])):
    (plan,), _ = plans_of(name)
    copies = [
      position
      for row in np.flatnonzero(plan.conditioning)
      for position, _ in plan.entries(row)
    ]
    assert copies == wanted


@pytest.mark.parametrize('name', ['sideways', 'forward+middle'])
def test_unknown_names_are_refused(name):
  with pytest.raises(UserError, match=r'config\.orders\.weights names'):
    plans_of(name)


def test_only_loops_are_drawn_as_loops():
  names = ('forward', 'backward+last', 'inbetween', 'loop', 'loop+overlap')
  choice = PlanChoice.create(*plans_of(*names), 9)
  assert choice.loops.tolist() == [False, False, False, True, True]
  draw = jax.jit(lambda key: choice.draw(key, 0.0)[1:])
  for seed in range(20):
    given, loops = draw(jax.random.key(seed))
    # What is given is not what is copied.
    assert not (bool(loops) and bool((given >= 0).any()))


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [('backward', [True, False, False]), ('backward+last', [False] * 3)],
)
def test_anchors_are_dropped_where_something_else_is_seen(name, wanted):
  plans, weights = plans_of(name)
  choice = PlanChoice.create(plans, weights, 9)
  made = ~plans[0].conditioning
  plan, _, _ = choice.draw(jax.random.key(0), 1.0)
  assert plan.anchor[made].tolist() == wanted
  assert not plan.start.any()
  plan, _, _ = choice.draw(jax.random.key(0), 0.0)
  assert plan.anchor[made].tolist() == [True, True, False]


def test_a_window_shows_a_row_one_block():
  (wide, small), _ = plans_of('backward', 'backward+window')
  assert wide.visible.max() == 6 and small.visible.max() == 3
  assert small.anchor.tolist() == wide.anchor.tolist()
