"""Our side and PyTorch's of every case that is timed make the same."""

import json

import numpy as np
import pytest

pytest.importorskip('diffusers')
pytest.importorskip('torch')
pytest.importorskip('transformers')

from unitemp_jax.bench import pytorch
from unitemp_jax.bench.measure import Context

SMALL = pytorch.cases(small=True)


@pytest.mark.parametrize('name', SMALL)
def test_both_sides_make_the_same(name):
  made = {
    who: np.asarray(make()())
    for who, make in pytorch.sides(SMALL[name]).items()
  }
  ours, theirs = made['ours'], made['PyTorch']
  assert ours.shape == theirs.shape and np.isfinite(theirs).all()
  size = np.linalg.norm(theirs)
  assert np.linalg.norm(ours - theirs) < 1e-4 * size
  # Control: another output is another number.
  assert np.linalg.norm(np.roll(ours, 1, axis=1) - theirs) > 1e-2 * size


@pytest.mark.slow
def test_the_table_has_times_ratios_and_memory(tmp_path, monkeypatch):
  name = next(name for name in SMALL if name.startswith('UMT5'))
  monkeypatch.setattr(pytorch, 'cases', lambda small: {name: SMALL[name]})
  outcome = pytorch.run(Context(tmp_path, 2, 0), small=True)
  (section,) = outcome.sections
  metrics = {row.metric for row in section.rows}
  assert metrics == {'time', 'PyTorch / ours', 'difference', 'memory'}
  assert json.dumps(outcome.series)
