"""Encoded clips: what cannot be trained on is named, and never read."""

import numpy as np
import pytest

from unitemp_jax import files
from unitemp_jax.data import latents
from unitemp_jax.errors import UserError

INDEX = {'shards': 1, 'latent_mean': [0.5, 0.0], 'latent_std': [2.0, 1.0]}


def example(**changes):
  latent = np.ones((3, 2, 2, 2), np.float16)
  own = {'latents': latent, 'last_image': latent[:1]}
  own |= {'ids': np.arange(4, dtype=np.int32), 'mask': np.ones(4, bool)}
  return {**own, **changes}


def write(folder, *examples, **index):
  latents.write_shard(latents.shard_path(folder, 0), examples)
  files.write_json(folder / latents.INDEX, {**INDEX, **index})
  return folder


def test_latents_are_read_normalised(tmp_path):
  source = latents.LatentSource(write(tmp_path, example(), example()))
  assert len(source) == 2
  np.testing.assert_allclose(source[1]['latents'][0, 0, 0], [0.25, 1])


@pytest.mark.parametrize(
  'index',
  [
    *({'shards': number} for number in (0, -1, True, 2**70, 10**9, 1.5)),
    *({'latent_mean': values} for values in ([], [0.0], [True, 0], 5)),
    {'latent_mean': [1e300, 0]},
    *({'latent_std': [2.0, last]} for last in (0, -1, float('nan'), 'x')),
  ],
)
def test_an_index_that_cannot_be_is_refused(tmp_path, index):
  with pytest.raises(UserError, match=r'latents\.json is no index'):
    latents.LatentSource(write(tmp_path, example(), **index))


@pytest.mark.parametrize(
  'changes',
  [
    {'latents': np.full((3, 2, 2, 2), np.nan, np.float16)},
    {'last_image': np.full((1, 2, 2, 2), np.inf, np.float16)},
    {'latents': np.ones((3, 2, 2, 3), np.float16)},
    {'latents': np.ones((2, 2, 2, 2), np.float16)},
    {'ids': np.arange(3, dtype=np.int32)},
    {'mask': None},
    {'latents': None},
  ],
)
def test_a_clip_that_is_damaged_is_named(tmp_path, changes):
  changed = {k: v for k, v in example(**changes).items() if v is not None}
  source = latents.LatentSource(write(tmp_path, example(), changed))
  assert source[0]
  with pytest.raises(UserError, match=r'record 1, is damaged .*encode"'):
    source[1]


def test_a_channel_that_is_the_same_everywhere_can_be_divided_by(tmp_path):
  flat = example(latents=np.zeros((3, 2, 2, 2), np.float16))
  latents.write_shard(latents.shard_path(tmp_path, 0), [flat])
  latents.write_index(tmp_path, 1, {})
  read = latents.LatentSource(tmp_path)[0]['latents']
  assert (read == 0).all()
