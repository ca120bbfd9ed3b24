"""A training that is disturbed at random equals an undisturbed one.

At the size of the command in tests/helpers/soak.py: UNITEMP_SOAK=20000.
"""

import os

import kill_harness
import pytest
import soak

STEPS = int(os.environ.get('UNITEMP_SOAK', '600'))


@pytest.mark.slow
def test_a_soak_leaves_no_trace(tmp_path):
  made = soak.Soak(tmp_path, STEPS, STEPS // 50, kills=max(STEPS // 2000, 1))
  made.undisturbed()
  assert made.disturb(float('inf'))
  assert {leg['kind'] for leg in made.done()} == {*soak.KINDS, 'kill'}
  assert made.complaints() == []
  # The control: a run of other data is told from them.
  made.parts = tmp_path / 'other'
  words = ['--config.seed=1', f'--config.num_steps={STEPS}']
  assert soak.run([*made.words, *words])[0] == 0
  assert kill_harness.differences(made.whole, made.parts)
