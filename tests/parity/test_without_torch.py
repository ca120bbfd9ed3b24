"""A machine without PyTorch: the verb says so, the arithmetic still works."""

import sys

import numpy as np
import pytest

from unitemp_jax.convert import parity, parity_torch
from unitemp_jax.errors import UserError


@pytest.mark.parametrize('name', ['torch', 'diffusers', 'transformers'])
def test_what_is_missing_is_named_with_its_remedy(name, monkeypatch):
  for other in ('diffusers', 'torch', 'transformers'):
    monkeypatch.setitem(sys.modules, other, sys if other != name else None)
  with pytest.raises(UserError, match=rf'{name} is not.*pip install'):
    parity_torch.require()


def test_errors_are_measured_against_pytorchs_norm():
  theirs = np.full((10, 10), 2.0)
  ours = theirs.copy()
  ours[0, 0] += 0.2
  row = parity_torch.compare('blocks.3', 'float32', ours, theirs)
  assert row.max_error == pytest.approx(0.2)
  assert row.relative_error == pytest.approx(0.01)
  assert not row.passed
  assert parity_torch.compare('blocks.3', 'bfloat16', ours, theirs).passed
  assert 'FAILS' in parity.format_rows([row])


def test_nan_and_other_shapes_never_pass():
  theirs = np.ones(3)
  assert not parity_torch.compare(
    'x', 'float32', theirs * np.nan, theirs
  ).passed
  assert parity_torch.compare('x', 'float32', theirs, theirs).passed
  with pytest.raises(ValueError, match='in PyTorch'):
    parity_torch.compare('x', 'float32', np.ones((3, 1)), theirs)


def test_a_whole_network_may_differ_more_than_a_module():
  ours, theirs = np.full(4, 1 + 5e-5), np.ones(4)
  assert parity_torch.compare('network', 'float32', ours, theirs).passed
  assert not parity_torch.compare('blocks.0', 'float32', ours, theirs).passed
