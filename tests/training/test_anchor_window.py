"""A window decoded latent by latent is that part of the whole video."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny_networks import CHANNELS, make_vae, noise

from unitemp_jax.training.programs import rollout

LATENTS, COUNT = 6, 3


def test_window_is_that_part_of_the_video():
  vae, params = make_vae()
  apply = jax.jit(
    lambda x, method: vae.apply({'params': params}, x, method=method)[0],
    static_argnames='method',
  )
  z = noise(0, 1, LATENTS, 2, 2, CHANNELS)
  video = apply(z, 'decode')
  decoded = jax.jit(
    lambda z, first: rollout.decode_window(vae, params, z, first, COUNT)
  )
  frames = 4 * (COUNT - 1) + 1
  for first in (0, 1, LATENTS - COUNT):
    part = video[:, 4 * first : 4 * first + frames]
    found = decoded(z, first)
    np.testing.assert_allclose(found, part, atol=1e-5)
    # Latents after the window are never looked at; the one before it is.
    late = z.at[:, first + COUNT :].set(jnp.nan)
    np.testing.assert_array_equal(decoded(late, first), found)
    if first:
      early = z.at[:, first - 1].add(1.0)
      assert jnp.abs(decoded(early, first) - found).max() > 1e-3
  encoded = jax.jit(lambda v: rollout.encode_by_latent(vae, params, v))(part)
  np.testing.assert_allclose(encoded, apply(part, 'encode'), atol=1e-5)
  # Control: another part of the video has another encoding.
  other = apply(video[:, :frames], 'encode')
  assert jnp.abs(encoded - other).max() > 1e-3


def test_half_precision_is_kept_throughout():
  """What one layer hands to the next, and remembers, costs half."""
  vae, params = make_vae()
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
  z = noise(0, 1, LATENTS, 2, 2, CHANNELS)

  def run(params):
    return rollout.decode_window(vae, params, z, jnp.asarray(1), COUNT)

  def remembered(params):
    first = z[:, :1].astype(jax.tree.leaves(params)[0].dtype)
    return vae.apply({'params': params}, first, None, method='decode')[1]

  for tree, dtype in ((half, jnp.bfloat16), (params, jnp.float32)):
    assert jax.eval_shape(run, tree).dtype == dtype
    memory = jax.eval_shape(remembered, tree)
    assert {leaf.dtype for leaf in memory} == {jnp.dtype(dtype)}
