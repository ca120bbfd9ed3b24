import numpy as np
import pytest
from generation_batch import PROMPTS, SEEDS
from model_fixture import random_model

from unitemp_jax import orders, plans
from unitemp_jax.generate.pipeline import Pipeline


@pytest.fixture(scope='module')
def pipeline():
  """A random model; batches of 4 are compiled once for all tests."""
  return Pipeline.load(random_model())


@pytest.fixture(scope='module')
def made_plans(pipeline):
  """All orders of the model's length, in one shape, by name."""
  names = [*orders.ORDERS, 'forward+first', 'backward+last']
  made = []
  for name in names:
    order, *given = name.split('+')
    made.append(
      orders.ORDERS[order](
        pipeline.num_latents,
        anchors=pipeline.card.anchors,
        start=pipeline.card.start,
        **{f'given_{side}': 1 for side in given},
      )
    )
  # Slots to spare, so that tests can let a row see one more.
  aligned = plans.align(*made)
  slots = aligned[0].num_slots + 1
  return {
    name: plan.pad(num_slots=slots)
    for name, plan in zip(names, aligned, strict=True)
  }


@pytest.fixture(scope='module')
def generate(pipeline):
  """(plan, prompts, seeds, given) -> what a batch of 4 makes."""

  def run(plan, prompts=PROMPTS, seeds=SEEDS, given=None):
    count = len(plan.preloaded()[0])
    if given is None and count:
      shape = (4, count, *pipeline.noise_shape[1:])
      rng = np.random.default_rng(0)
      given = rng.standard_normal(shape, np.float32)
    return pipeline.generate(prompts, seeds, plan, given)

  return run
