"""How costs grow: blocks, clips of a batch, devices of a training step."""

import pytest
from model_fixture import random_model

from unitemp_jax.bench import growth
from unitemp_jax.bench.measure import Context


@pytest.mark.slow
def test_rows_of_blocks_clips_and_devices(monkeypatch):
  monkeypatch.setattr(growth, 'BATCHES', (1, 4))
  monkeypatch.setattr(growth, 'DEVICES', (1, 2))
  context = Context(random_model(), 2, 40, lambda line: None)
  (section,) = growth.run(context).sections
  rows = {(row.metric, row.group): row.value for row in section.rows}
  assert rows['time of a block', 'block 10'] > 0
  assert rows['memory', 'block 10'] == rows['memory', 'block 30'] > 0
  # Control: more clips take more.
  assert rows['scratch', 'batch 4'] > 2 * rows['scratch', 'batch 1'] > 0
  alone, two = (rows['sent', f'{n} devices, a clip each'] for n in (1, 2))
  assert alone == 0 < two
