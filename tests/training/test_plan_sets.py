"""The plans that students are trained on."""

import pytest
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.training.plan_sets import training_plans

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


@pytest.mark.parametrize('name', ['sideways', 'forward+middle', 'loop'])
def test_unknown_names_are_refused(name):
  with pytest.raises(UserError, match=r'config\.orders\.weights names'):
    plans_of(name)
