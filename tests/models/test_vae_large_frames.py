"""Large frames: decoded one by one, in the same memory, to the same pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import make_vae, noise

from unitemp_jax.models import sizes, vae_blocks
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.sampling.decode import Codec

LATENTS = noise(1, 1, 3, 2, 2, 4)
VIDEO = np.random.default_rng(0).integers(0, 256, (1, 9, 16, 16, 3), np.uint8)


@pytest.fixture(scope='module')
def networks():
  """Parameters, and the sizes of the VAE with small and with large frames."""
  module, params = make_vae()
  large = dataclasses.replace(module.config, large_frames=True)
  return params, module.config, large


def decoded(config, params, latents=LATENTS):
  """All pixels, a latent at a time, and the cache of the last."""
  vae, cache, parts = VAE(config), None, []

  @jax.jit
  def decode(latent, cache):
    return vae.apply({'params': params}, latent, cache, method='decode')

  for k in range(latents.shape[1]):
    frames, cache = decode(latents[:, k : k + 1], cache)
    parts.append(frames)
  return jnp.concatenate(parts, axis=1), cache


def apart(one, two):
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
  return max(float(jnp.abs(a - b).max()) for a, b in leaves)


def test_frame_by_frame_is_what_it_is_at_once(networks, monkeypatch):
  params, small, large = networks
  expected = decoded(small, params)
  assert apart(decoded(large, params), expected) < 2e-5
  # Control: a cache whose frames have changed places is noticed.
  past = vae_blocks.FrameConvCache.past
  monkeypatch.setattr(
    vae_blocks.FrameConvCache, 'past', lambda *args: past(*args)[:, ::-1]
  )
  assert apart(decoded(large, params), expected) > 1e-3


def test_a_codec_of_large_frames_takes_a_latent_at_a_time(networks):
  params, small, large = networks
  sizes_seen = []

  def make(config):
    codec = Codec(config)
    piece = codec.decode_piece

    def noted(params, latents, cache):
      sizes_seen.append(latents.shape[1])
      return piece(params, latents, cache)

    codec.decode_piece = noted
    return codec

  at_once, one_by_one = make(small), make(large)
  assert (at_once.latents_at_a_time(3), one_by_one.latents_at_a_time(3)) == (
    *(3, 1),
  )
  expected, _ = at_once.decode_chunk(params, LATENTS, None)
  assert sizes_seen == [3]
  for frames in (
    one_by_one.decode_chunk(params, LATENTS, None)[0],
    one_by_one.decode(params, LATENTS),
  ):
    difference = np.asarray(frames, int) - np.asarray(expected, int)
    assert np.abs(difference).max() <= 1  # a rounding
  assert sizes_seen[1:] == [1] * 6
  whole = np.asarray(at_once.encode(params, VIDEO))
  np.testing.assert_allclose(one_by_one.encode(params, VIDEO), whole, atol=2e-5)
  assert np.abs(whole[:, 1:] - whole[:, :-1]).max() > 1e-2


def test_decoding_in_bfloat16_is_close_and_half_as_large(networks):
  params, small, _ = networks
  half = dataclasses.replace(small, decode_dtype='bfloat16')
  held = sizes.inference_shapes(half)
  assert held['decoder']['conv_in']['kernel'].dtype == jnp.bfloat16
  assert held['decoder']['conv_in']['bias'].dtype == jnp.float32
  assert held['encoder']['conv_in']['kernel'].dtype == jnp.float32
  cast = jax.tree.map(lambda x, like: x.astype(like.dtype), params, held)
  expected, cache = Codec(small).decode_chunk(params, LATENTS, None)
  frames, less = Codec(half).decode_chunk(cast, LATENTS, None)
  assert {leaf.dtype for leaf in less} == {jnp.dtype('bfloat16')}
  assert sum(x.nbytes for x in cache) == 2 * sum(x.nbytes for x in less)
  error = np.asarray(frames, float) - np.asarray(expected, float)
  assert 0 < np.abs(error).mean() < 3  # of 255 levels, weights are random
