"""What sets of clips are said to take, against what was compiled."""

import pathlib

import pytest

from unitemp_jax.aot import clips, memory_report
from unitemp_jax.aot.serving import Serving
from unitemp_jax.aot.steps import serving_of
from unitemp_jax.aot.topology import CHIPS
from unitemp_jax.generate import memory
from unitemp_jax.models import flops
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
KNOWN = CONFIGS / 'aot' / 'results' / 'sampler-v5e-1x1.json'


@pytest.fixture(scope='module')
def wan() -> Serving:
  config = load_config(str(CONFIGS / 'wan_1p3b_distill.py'), [])
  return serving_of(config, make_mesh({'data': 1}))


def test_numbers_are_those_of_the_compiled_sampler(wan):
  (step,) = memory_report.read(KNOWN).steps
  own = clips.clip_flops(wan.card, wan.plan).total
  own -= flops.vae_decode(wan.card.vae, 21, *wan.grid).total
  assert own / 1e12 == pytest.approx(step.tflops, rel=0.001)
  weights = step.arguments['student'] + step.resident['vae']
  measured = (step.peak_gib - weights) * 2**30
  cache = memory.clip_bytes(wan.card, wan.plan)
  assert measured == pytest.approx(memory._BESIDE_CACHE * cache, rel=0.1)


def test_batches_fit_the_memory(wan):
  fits = {
    name: memory.batch_that_fits(wan.card, wan.plan, chip.gib * 2**30)
    for name, chip in CHIPS.items()
  }
  assert fits['v5e'] == 1 and fits['v6e'] == 2 and fits['v5p'] == 8
  assert memory.batch_that_fits(wan.card, wan.plan, None, 5) == 5
  text = '\n'.join(clips.estimates(wan.card, {'forward': wan.plan}, 9460))
  assert 'v5e: batches of 1 a chip, ' in text and 'chip-hours' in text
  # Control: nobody is told about a model that runs anywhere.
  tiny = model_folder.read_card(model_folder.TINY)
  assert clips.estimates(tiny, {'forward': wan.plan}, 9460) == []
