import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap


def test_interval_has_the_width_of_the_normal_theory():
  values = np.random.default_rng(0).normal(3, 2, 400)
  found = bootstrap.mean(values)
  half = 1.96 * values.std() / 20
  assert found.value == pytest.approx(values.mean())
  assert found.low == pytest.approx(values.mean() - half, abs=0.03)
  assert found.high == pytest.approx(values.mean() + half, abs=0.03)
  assert found.n == 400


def test_interval_covers_the_truth_about_as_often_as_it_says():
  rng = np.random.default_rng(1)
  hits = []
  for seed in range(100):
    found = bootstrap.mean(rng.normal(0, 1, 50), seed=seed)
    hits.append(found.low <= 0 <= found.high)
  assert 0.85 <= np.mean(hits) <= 1


def test_same_seed_same_interval():
  values = np.random.default_rng(2).random(30)
  assert bootstrap.mean(values, seed=5) == bootstrap.mean(values, seed=5)
  assert bootstrap.mean(values, seed=5) != bootstrap.mean(values, seed=6)


def test_pairing_removes_what_clips_share():
  rng = np.random.default_rng(3)
  shared = rng.normal(0, 10, 200)
  a, b = shared + rng.normal(1, 0.1, 200), shared
  paired = bootstrap.paired('mean', a, b)
  assert 0.9 < paired.low < paired.high < 1.1
  unpaired = bootstrap.paired('mean', rng.permutation(a), b)
  assert unpaired.high - unpaired.low > 1


def test_ratios_are_geometric():
  assert bootstrap.pooled('geometric', [1.0, 4.0]).value == pytest.approx(2)
  ratio = bootstrap.paired('geometric', [2.0, 8.0], [1.0, 2.0])
  assert ratio.value == pytest.approx(np.sqrt(8))
  same = bootstrap.paired('geometric', [2.0, 6.0], [1.0, 3.0])
  assert same.low == pytest.approx(same.high)


def test_bad_samples_are_refused():
  with pytest.raises(UserError, match='one value per clip'):
    bootstrap.paired('mean', np.ones(3), np.ones(4))
  with pytest.raises(UserError, match='finite'):
    bootstrap.mean([1.0, np.nan])
