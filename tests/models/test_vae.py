"""Laws of the causal VAE: causality, chunks, the seam that anchors are for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_networks import VAE_CONFIG, make_vae, noise

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.models import vae3d
from unitemp_jax.models.vae_blocks import ChannelNorm

FRAMES, LATENTS = 13, 4
TOLERANCE = 2e-5


@pytest.fixture(scope='module')
def vae():
  """(encode, decode) of one VAE, jitted, each (x, cache) -> (y, cache)."""
  module, params = make_vae()

  def apply(method):
    return jax.jit(
      lambda x, cache=None: module.apply(
        {'params': params}, x, cache, method=method
      )
    )

  return apply('encode'), apply('decode')


@pytest.fixture(scope='module')
def video():
  return jnp.tanh(noise(5, 1, FRAMES, 16, 16, 3))


def in_chunks(function, x, sizes):
  """Runs (x, cache) -> (y, cache) over chunks of so many frames."""
  cache, parts, first = None, [], 0
  for size in sizes:
    part, cache = function(x[:, first : first + size], cache)
    parts.append(part)
    first += size
  assert first == x.shape[1]
  return jnp.concatenate(parts, axis=1)


def check_causal(function, x, reach):
  """The first `reach(k)` outputs have no gradient from inputs after k."""
  y, vjp = jax.vjp(function, x)
  for k in range(x.shape[1] - 1):
    early = jnp.arange(y.shape[1]) < reach(k)
    weight = noise(k, *y.shape) * early.reshape(1, -1, 1, 1, 1)
    size = jnp.abs(vjp(weight)[0]).max((0, 2, 3, 4))
    assert float(size[k + 1 :].max()) == 0
    assert float(size[0]) > 0  # The past is seen, from the first frame on.


def test_decoder_is_causal(vae):
  _, decode = vae
  z = noise(1, 1, LATENTS, 2, 2, 4)
  check_causal(lambda z: decode(z)[0], z, lambda k: 1 + 4 * k)


def test_encoder_is_causal(vae, video):
  encode, _ = vae
  check_causal(lambda x: encode(x)[0], video, lambda k: 1 + k // 4 if k else 1)


def test_a_decoder_that_looks_ahead_is_noticed(vae):
  _, decode = vae
  z = noise(1, 1, LATENTS, 2, 2, 4)
  with pytest.raises(AssertionError):
    check_causal(
      lambda z: decode(z[:, ::-1])[0][:, ::-1], z, lambda k: 1 + 4 * k
    )
  with pytest.raises(AssertionError):  # A frame more does see latent k + 1.
    check_causal(lambda z: decode(z)[0], z, lambda k: 2 + 4 * k)


def test_encoding_in_chunks_equals_encoding_at_once(vae, video):
  encode, _ = vae
  whole, _ = encode(video)
  assert whole.shape == (1, LATENTS, 2, 2, 4)
  for sizes in ([1, 4, 4, 4], [1, 8, 4], [5, 8]):
    np.testing.assert_allclose(
      in_chunks(encode, video, sizes), whole, atol=TOLERANCE
    )


def test_decoding_in_chunks_equals_decoding_at_once(vae):
  _, decode = vae
  z = noise(2, 1, LATENTS, 2, 2, 4)
  whole, _ = decode(z)
  assert whole.shape == (1, FRAMES, 16, 16, 3)
  for sizes in ([1, 1, 1, 1], [1, 2, 1], [2, 2]):
    np.testing.assert_allclose(
      in_chunks(decode, z, sizes), whole, atol=TOLERANCE
    )


def test_chunks_without_their_memory_differ(vae, video):
  encode, decode = vae
  for function, x, sizes in (
    (encode, video, [1, 4, 4, 4]),
    (decode, noise(2, 1, LATENTS, 2, 2, 4), [1, 1, 1, 1]),
  ):

    def forgetful(x, cache, function=function):
      y, new = function(x, cache)
      return y, jax.tree.map(jnp.zeros_like, new)

    whole, _ = function(x)
    difference = jnp.abs(in_chunks(forgetful, x, sizes) - whole)
    assert difference[:, -1].max() > 100 * TOLERANCE


def test_a_tail_alone_decodes_to_something_else(vae):
  _, decode = vae
  z = noise(3, 1, LATENTS, 2, 2, 4)
  whole, _ = decode(z)
  tail, _ = decode(z[:, 1:])
  # The tail's first latent becomes one frame, so it is short of three.
  assert tail.shape[1] == whole.shape[1] - 4
  for past, at_least in ((1, 1e-2), (2, 1e-3)):
    alone = decode(z[:, past:])[0][:, 1:]
    assert jnp.abs(alone - whole[:, -alone.shape[1] :]).max() > at_least
  # With the whole past it is the same: the difference is the missing past.
  np.testing.assert_allclose(decode(z)[0], whole, atol=TOLERANCE)


def test_first_latent_codes_one_frame_and_the_others_four(vae, video):
  encode, decode = vae
  one, _ = encode(video[:, :1])
  assert one.shape[1] == 1
  np.testing.assert_allclose(one[:, 0], encode(video)[0][:, 0], atol=TOLERANCE)
  assert decode(one)[0].shape[1] == 1
  still, _ = encode(jnp.repeat(video[:, :1], 5, axis=1))
  # The latent after it is of another kind even if nothing moves.
  assert jnp.abs(still[:, 1] - still[:, 0]).max() > 1e-2


def test_time_upsampling_of_the_second_latent_sees_no_history():
  from unitemp_jax.models.vae_blocks import ConvCache, Upsample

  module = Upsample(temporal=True)
  x = noise(4, 1, 3, 2, 2, 4)

  def run(params, x):
    return module.apply(params, x, ConvCache(None))

  params = module.init(jax.random.key(0), x, ConvCache(None))
  y = run(params, x)
  assert y.shape[1] == 5
  changed = run(params, x.at[:, 0].add(1.0))
  np.testing.assert_array_equal(y[:, 1:], changed[:, 1:])
  assert jnp.abs(y[:, 0] - changed[:, 0]).max() > 1e-3
  # From the third latent on there is history.
  later = run(params, x.at[:, 1].add(1.0))
  assert jnp.abs(y[:, 3:] - later[:, 3:]).max() > 1e-3


@pytest.mark.parametrize('frames', [1, 5, 33])
def test_1_plus_4k_frames_are_1_plus_k_latents(frames):
  assert timeline.num_latents(frames) == 1 + frames // 4


@pytest.mark.parametrize('frames', [0, 2, 4, 32, 34])
def test_other_numbers_of_frames_are_refused(vae, frames):
  with pytest.raises(ValueError, match=rf'1 \+ 4k frames.*has {frames}'):
    timeline.num_latents(frames)
  if frames:
    with pytest.raises(ValueError, match=r'1 \+ 4k'):
      jax.eval_shape(vae[0], jnp.zeros((1, frames, 16, 16, 3)))


def test_later_chunks_hold_multiples_of_4_frames(vae, video):
  encode, _ = vae
  _, cache = jax.eval_shape(encode, video[:, :5])
  with pytest.raises(ValueError, match='multiple of 4'):
    jax.eval_shape(encode, video[:, :5], cache)


def test_sizes_that_do_not_divide_name_the_nearest():
  assert vae3d.latent_grid(VAE_CONFIG, 32, 16) == (4, 2)
  with pytest.raises(UserError, match=r'20x16.*nearest size is 24x16'):
    vae3d.latent_grid(VAE_CONFIG, 20, 16)


def test_latents_are_normalised_once():
  size = vae3d.VAEConfig(
    base_dim=2, dim_mult=(1,), num_res_blocks=0, temporal_down=(), z_dim=2
  )
  module, params = make_vae(size)
  mean, std = jnp.array([0.5, -1.0]), jnp.array([2.0, 0.5])
  scaled = vae3d.VAE(
    dataclasses.replace(size, latent_mean=(0.5, -1.0), latent_std=(2.0, 0.5))
  )
  x = jnp.tanh(noise(0, 1, 2, 16, 16, 3))

  def apply(module, x, method):
    run = jax.jit(lambda x: module.apply({'params': params}, x, method=method))
    return run(x)[0]

  raw, z = apply(module, x, 'encode'), apply(scaled, x, 'encode')
  shape = (1, 1, 1, 1, 2)
  wanted = (raw - mean.reshape(shape)) / std.reshape(shape)
  np.testing.assert_allclose(z, wanted, atol=1e-5)
  np.testing.assert_allclose(
    apply(scaled, z, 'decode'), apply(module, raw, 'decode'), atol=1e-4
  )
  assert jnp.abs(z - raw).max() > 0.1


def test_gradient_of_the_norm_is_finite_at_a_zero_vector():
  norm = ChannelNorm()
  params = norm.init(jax.random.key(0), jnp.ones((1, 4)))

  def gradient(x):
    return jax.grad(lambda x: norm.apply(params, x)[0, 0])(x)

  assert jnp.isfinite(gradient(jnp.zeros((1, 4)))).all()

  def naive(x):
    return (x / jnp.linalg.norm(x, axis=-1, keepdims=True))[0, 0]

  assert not jnp.isfinite(jax.grad(naive)(jnp.zeros((1, 4)))).all()
  x = noise(0, 1, 4)
  np.testing.assert_allclose(
    gradient(x), 2.0 * jax.grad(naive)(x), rtol=1e-4, atol=1e-5
  )


def test_noise_in_latents_is_a_share_of_their_spread_and_of_each_clip(video):
  module, params = make_vae()
  key, both = jax.random.key(3), jnp.concatenate([video, video])

  def latents(most):
    """What is decoded, seen through a decoder that is the identity."""
    seen = []

    def keep(next_method, args, kwargs, context):
      if context.method_name == '_decode_raw':
        seen.append(args[0])
      return next_method(*args, **kwargs)

    with nn.intercept_methods(keep):
      mu = module.apply({'params': params}, both, key, most)[1]
    return seen[0], mu

  plain, mu = latents(0.0)
  spread = mu.std((0, 1, 2, 3), keepdims=True)
  drawn = jax.random.normal(key, mu.shape)
  added = {}
  for most in (0.3, 0.6):
    sigma = (latents(most)[0] - mu) / drawn
    of_its_own = (plain - mu) / drawn
    share = jnp.sqrt(sigma**2 - of_its_own**2) / spread
    added[most] = np.median(share, axis=(1, 2, 3, 4))
  assert (added[0.3] > 0).all() and (added[0.3] < 0.3).all()
  np.testing.assert_allclose(added[0.6], 2 * added[0.3], rtol=0.02)
  assert abs(added[0.3][0] - added[0.3][1]) > 0.01  # Each clip draws its own.
