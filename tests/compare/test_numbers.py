"""Number against number, when both sides started from the same noise."""

import numpy as np
import pytest

from unitemp_jax.compare import numbers
from unitemp_jax.errors import UserError


@pytest.fixture
def runs(tmp_path):
  rng = np.random.default_rng(0)
  noise, latents = rng.standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
  frames = rng.integers(0, 250, (9, 8, 10, 3), dtype=np.uint8)
  ours = tmp_path / 'ours.npz'
  np.savez(ours, noise=noise, latents=latents, frames=frames)

  def theirs(axes, **change):
    path = tmp_path / 'theirs.npz'
    arrays = {'noise': noise, 'latents': latents, **change}
    moved = {k: v.transpose(axes)[None] for k, v in arrays.items()}
    np.savez(path, frames=change.get('frames', frames), **moved)
    return path

  return ours, theirs, latents, frames


@pytest.mark.parametrize('axes', [(0, 1, 2, 3), (0, 3, 1, 2), (3, 0, 1, 2)])
def test_the_axes_of_other_systems_are_found(runs, axes):
  ours, theirs, _, _ = runs
  latents, frames = numbers.compare(ours, theirs(axes))
  assert latents.relative == 0 and latents.cosine == pytest.approx(1)
  assert frames.psnr == pytest.approx(100)


def test_a_known_difference_is_measured_where_it_is(runs):
  ours, theirs, latents, _ = runs
  other = latents.copy()
  other[1] += 0.5
  gap, _ = numbers.compare(ours, theirs((0, 3, 1, 2), latents=other))
  assert gap.largest == pytest.approx(0.5, rel=1e-5)
  assert gap.rms == pytest.approx(0.5 / np.sqrt(3), rel=1e-5)
  size = np.sqrt(np.square(latents).mean())
  np.testing.assert_allclose(gap.course, [0, 0.5 / size, 0], atol=1e-6)
  assert 'largest at 1' in numbers.to_text([gap])


def test_other_noise_ends_the_comparison(runs):
  ours, theirs, latents, _ = runs
  with pytest.raises(UserError, match='same noise'):
    numbers.compare(ours, theirs((0, 1, 2, 3), noise=latents))


def test_bad_files_are_named(runs, tmp_path):
  ours, _, latents, frames = runs
  bad = tmp_path / 'bad.npz'
  np.savez(bad, latents=latents)
  with pytest.raises(UserError, match='noise'):
    numbers.compare(ours, bad)
  bad.write_bytes(b'x')
  with pytest.raises(UserError, match=r'bad\.npz'):
    numbers.compare(ours, bad)
  np.savez(bad, noise=np.load(ours)['noise'], latents=latents[:2])
  with pytest.raises(UserError, match='shapes'):
    numbers.compare(ours, bad)
  np.savez(bad, noise=np.load(ours)['noise'], frames=frames / 255)
  with pytest.raises(UserError, match='uint8'):
    numbers.compare(ours, bad)
