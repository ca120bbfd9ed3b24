import io
import zipfile

import numpy as np
import pytest
from scipy import linalg

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import tables
from unitemp_jax.evaluation.metrics import frechet
from unitemp_jax.evaluation.metrics.frechet import Features


def exact_gaussian(mean, scale, n=60, seed=0):
  """Features whose sample mean and covariance diag(scale**2) are exact."""
  rng = np.random.default_rng(seed)
  values = rng.standard_normal((n, len(mean)))
  values -= values.mean(axis=0)
  whiten = np.linalg.inv(np.linalg.cholesky(np.cov(values.T))).T
  return values @ whiten * np.asarray(scale) + np.asarray(mean)


def test_distance_of_two_gaussians_is_the_closed_form():
  one = exact_gaussian([0, 1, 2], [1, 2, 3])
  two = exact_gaussian([1, 1, 0], [2, 2, 1], n=90, seed=1)
  expected = (1 + 0 + 4) + ((1 - 2) ** 2 + 0 + (3 - 1) ** 2)
  assert frechet.frechet_distance(one, two) == pytest.approx(expected)
  assert frechet.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
  moved = frechet.frechet_distance(one, one + [3, 0, 0])
  assert moved == pytest.approx(9)


def test_distance_is_that_of_the_matrix_root_singular_or_not():
  rng = np.random.default_rng(2)
  one, two = rng.standard_normal((2, 40, 6)) @ rng.standard_normal((6, 6))
  first, second = np.cov(one.T), np.cov(two.T)
  root = linalg.sqrtm(first @ second).real
  apart = one.mean(0) - two.mean(0)
  expected = apart @ apart + np.trace(first + second - 2 * root)
  found = frechet.frechet_distance(one, two)
  assert found == pytest.approx(expected, rel=1e-6)
  # More features than clips: padding with zeros changes nothing.
  wide = np.pad(one, [(0, 0), (0, 50)]), np.pad(two, [(0, 0), (0, 50)])
  assert frechet.frechet_distance(*wide) == pytest.approx(expected, rel=1e-6)


def test_the_interval_holds_the_value_and_the_floor_is_below():
  one = exact_gaussian([0, 0], [1, 1])
  two = exact_gaussian([2, 0], [1, 1], seed=3)
  apart = frechet.frechet_interval(one, two)
  assert apart.low < apart.value < apart.high
  floor = frechet.floor_interval(one)
  assert floor.high < apart.low


def test_it_is_called_fvd_only_with_i3d_features():
  values = exact_gaussian([0, 0], [1, 1], n=12)

  def name(network):
    features = Features(values, network)
    section = tables.frechet_section('ours', features, features, 'how')
    return section.rows[0].metric

  for network in ('', 'random projection', 'VideoMAE'):
    assert 'FVD' not in name(network) and 'Frechet' in name(network)
  assert name('I3D, Kinetics-400').startswith('FVD')
  with pytest.raises(UserError, match='one network'):
    tables.frechet_section(
      'ours', Features(values, 'I3D'), Features(values, 'DINO'), 'how'
    )


def test_features_are_read_and_bad_ones_named(tmp_path):
  values = exact_gaussian([0, 0], [1, 1], n=8)
  np.save(tmp_path / 'a.npy', values)
  np.savez(tmp_path / 'b.npz', features=values, network='I3D')
  assert frechet.read_features(tmp_path / 'a.npy').network == ''
  assert frechet.read_features(tmp_path / 'b.npz').network == 'I3D'
  np.savez(tmp_path / 'c.npz', other=values)
  np.save(tmp_path / 'd.npy', values[0])
  np.save(tmp_path / 'e.npy', np.full((3, 2), np.nan))
  (tmp_path / 'f.npz').write_bytes(b'nothing')
  huge = io.BytesIO()  # A header that asks for 64 TB.
  asked = {'descr': '<f8', 'fortran_order': False, 'shape': (10**12, 8)}
  np.lib.format.write_array_header_1_0(huge, asked)
  (tmp_path / 'g.npy').write_bytes(huge.getvalue())
  with zipfile.ZipFile(tmp_path / 'h.npz', 'w') as archive:
    archive.writestr('features.npy', huge.getvalue())
  bad = ('c.npz', 'd.npy', 'e.npy', 'f.npz', 'g.npy', 'h.npz', 'missing.npy')
  for name in bad:
    with pytest.raises(UserError, match=name.replace('.', r'\.')):
      frechet.read_features(tmp_path / name)
