"""Our networks against what PyTorch made of the same numbers.

The outputs are in `fixtures`, so that these tests need no PyTorch; the script
that wrote them is `make_fixtures.py`.
"""

import pathlib

import cases
import fixture_cases
import numpy as np
import our_side
import parity_numbers
import pytest

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
# Relative errors in float32 of whole networks, and of samplers' arithmetic.
LIMIT = {'dit': 1e-5, 'vae': 1e-5, 'umt5': 1e-5, 'student': 1e-5}
SAMPLERS = 2e-5


def read(name):
  with np.load(FOLDER / f'{name}.npz') as file:
    return {k: file[k] for k in file.files}


def relative(ours, theirs):
  ours, theirs = np.float64(ours), np.float64(theirs)
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def names(function=None):
  for name, case in fixture_cases.CASES.items():
    if function in (None, case.function):
      marks = [pytest.mark.slow] if case.slow else []
      yield pytest.param(name, marks=marks)


@pytest.mark.parametrize('name', names())
def test_outputs_are_those_of_pytorch(name):
  fixture, case = read(name), fixture_cases.CASES[name]
  if 'digest' in fixture:
    kind = 'dit' if case.function == 'student' else case.function
    digest = cases.digest(kind, case.arguments['config'])
    assert digest == fixture['digest'], 'made for other names or shapes'
  for part, ours in our_side.make(name).items():
    ours, theirs = cases.sampled(ours), fixture[part]
    assert ours.shape == theirs.shape
    assert relative(ours, theirs) < LIMIT.get(case.function, SAMPLERS)
    largest = np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * largest)


def test_a_student_is_the_same_in_one_masked_pass():
  fixture = read('student')
  made = our_side.student_masked(cases.DIT_TINY)
  assert set(made) == {f'level{i}' for i in range(4)}
  for part, ours in made.items():
    assert relative(cases.sampled(ours), fixture[part]) < LIMIT['student']
    other = fixture['level0' if part != 'level0' else 'level3']
    assert relative(cases.sampled(ours), other) > 0.01


def broken(name, change, monkeypatch):
  """Relative error of a case when one weight is changed on our side."""
  honest = cases.state_dict

  def spoiled(kind, config):
    state = honest(kind, config)
    change(state)
    return state

  monkeypatch.setattr(cases, 'state_dict', spoiled)
  fixture = read(name)
  return max(
    relative(cases.sampled(ours), fixture[part])
    for part, ours in our_side.make(name).items()
  )


@pytest.mark.parametrize(
  ('name', 'weight', 'other'),
  [
    # Each pair is what a port confuses easily: same shape, other meaning.
    (
      'dit_tiny',
      'blocks.1.attn1.norm_q.weight',
      'blocks.1.attn1.norm_k.weight',
    ),
    (
      'umt5_tiny',
      *(
        f'encoder.block.0.layer.1.DenseReluDense.wi_{i}.weight' for i in (0, 1)
      ),
    ),
  ],
)
def test_swapped_weights_are_seen(name, weight, other, monkeypatch):
  def swap(state):
    state[weight], state[other] = state[other], state[weight]

  assert broken(name, swap, monkeypatch) > 1e-3


def test_one_zeroed_bias_is_seen(monkeypatch):
  def zero(state):
    state['blocks.0.attn2.to_k.bias'] *= 0

  assert broken('dit_tiny', zero, monkeypatch) > 1e-4


@pytest.mark.parametrize(
  ('kind', 'config'),
  [
    ('dit', cases.DIT_TINY),
    ('vae', cases.VAE_NARROW),
    ('umt5', cases.UMT5_TINY),
  ],
)
def test_no_weight_is_zero_or_one(kind, config):
  """Else a missing bias, gate or norm would change nothing."""
  state = cases.state_dict(kind, config)
  assert len(state) > 30
  for name, array in state.items():
    assert (array != 0).all(), name
    assert array.std() > 0.02, name
    if array.ndim == 1:
      assert np.abs(array - 1).max() > 0.1, name


def test_numbers_are_the_same_on_every_machine():
  x = parity_numbers.uniform('a name', (3, 5))
  first = np.float32([-0.49414298, 0.41496170, -0.37077239])
  np.testing.assert_array_equal(x[0, :3], first)
  assert abs(parity_numbers.uniform('more', (1000, 100)).std() - 1) < 0.01


def test_fixtures_are_small():
  total = sum(path.stat().st_size for path in FOLDER.iterdir())
  assert total < 3e6
  assert {p.stem for p in FOLDER.iterdir()} == set(fixture_cases.CASES)
