"""Laws of the transformer: what a pass may see, in the cache and beside it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import DIT, GRID, TOKENS, latents, make_dit, noise

from unitemp_jax.errors import UserError
from unitemp_jax.models import cache as kv_cache
from unitemp_jax.models.dit import Block, DiT

BATCH, FRAMES, BLOCK = 2, 6, 3
TOLERANCE = 3e-5

REMAT = [
  {'remat': 'full'},
  {'remat': 'attention'},
  {'remat': 'offload'},
  {'unroll': 2},
]


@pytest.fixture(scope='module')
def net():
  """(masked, cached) passes of one transformer, jitted, and its context."""
  dit, params = make_dit()
  text = noise(1, BATCH, 5, DIT.text_dim)
  context = jax.jit(
    lambda text: dit.apply({'params': params}, text, method='text_context')
  )(text)

  @jax.jit
  def masked(x, sigma, positions, mask):
    return dit.apply(
      {'params': params}, x, sigma, positions, context, mask_BFF=mask[None]
    )[0]

  @jax.jit
  def cached(x, sigma, positions, cache, slot, visible):
    return dit.apply(
      {'params': params}, x, sigma, positions, context, cache, slot, visible
    )

  return masked, cached


@pytest.fixture(scope='module')
def inputs():
  x = latents(2, BATCH, FRAMES)
  sigma = jax.random.uniform(jax.random.key(3), (BATCH, FRAMES))
  block = jnp.arange(FRAMES) // BLOCK
  return x, sigma, jnp.arange(FRAMES), block[:, None] >= block[None]


def in_blocks(cached, x, sigma, positions, shown=0):
  """Both blocks through the cache; the second sees `shown` slots more."""
  cache = DIT.new_cache(BATCH, FRAMES + 1, *GRID)
  first, cache = cached(
    x[:, :BLOCK], sigma[:, :BLOCK], positions[:BLOCK], cache, 0, BLOCK
  )
  second, _ = cached(
    x[:, BLOCK:],
    sigma[:, BLOCK:],
    positions[BLOCK:],
    cache,
    BLOCK,
    2 * BLOCK + shown,
  )
  return jnp.concatenate([first, second], axis=1)


def test_passes_with_a_cache_equal_one_masked_pass(net, inputs):
  masked, cached = net
  x, sigma, positions, mask = inputs
  whole = masked(x, sigma, positions, mask)
  np.testing.assert_allclose(
    in_blocks(cached, x, sigma, positions), whole, atol=TOLERANCE
  )
  # Controls: everybody sees everybody; an empty slot is seen as well.
  every = masked(x, sigma, positions, jnp.ones_like(mask))
  assert jnp.abs(every - whole)[:, :BLOCK].max() > 1e-2
  blurred = in_blocks(cached, x, sigma, positions, shown=1)
  assert jnp.abs(blurred - whole)[:, BLOCK:].max() > 1e-3


def test_masked_frames_have_no_gradient(net, inputs):
  masked, _ = net
  x, sigma, positions, mask = inputs

  def seen(mask):
    def early(x):
      return (masked(x, sigma, positions, mask)[:, :BLOCK] ** 2).sum()

    return jnp.abs(jax.grad(early)(x)).max((0, 2, 3, 4))

  size = seen(mask)
  assert (size[:BLOCK] > 0).all()
  assert (size[BLOCK:] == 0).all()
  assert (seen(jnp.ones_like(mask)) > 0).all()


def test_slots_beyond_visible_have_no_gradient(net):
  _, cached = net
  slots, slot = 8, 2
  size = DIT.new_cache(BATCH, slots, *GRID)
  leaves, tree = jax.tree.flatten(size)
  full = tree.unflatten(
    [noise(i, *leaf.shape) for i, leaf in enumerate(leaves)]
  )
  x, sigma = latents(0, BATCH, BLOCK), jnp.full((BATCH, BLOCK), 0.5)

  @jax.jit
  def gradient(cache, visible):
    def loss(cache):
      v, _ = cached(x, sigma, jnp.arange(BLOCK), cache, slot, visible)
      return (v**2).sum()

    grad = jax.grad(loss)(cache)
    each = [
      jnp.abs(leaf).reshape(DIT.num_layers, BATCH, slots, -1).max((1, 3))
      for leaf in jax.tree.leaves(grad)
    ]
    return jnp.stack(each)  # [k and v, layers, slots]

  seen = np.asarray(gradient(full, slot + BLOCK) > 0)
  # The prefix is seen in every layer; the pass's own slots are overwritten.
  np.testing.assert_array_equal(
    seen, np.broadcast_to(np.arange(slots) < slot, seen.shape)
  )
  wide = np.asarray(gradient(full, slots) > 0)
  own = (np.arange(slots) >= slot) & (np.arange(slots) < slot + BLOCK)
  np.testing.assert_array_equal(wide, np.broadcast_to(~own, wide.shape))


def test_only_differences_of_position_matter(net, inputs):
  masked, _ = net
  x, sigma, positions, mask = inputs
  v = masked(x, sigma, positions, mask)
  for by in (-9, 20):
    shifted = masked(x, sigma, positions + by, mask)
    np.testing.assert_allclose(shifted, v, atol=TOLERANCE)
  stretched = masked(x, sigma, 2 * positions, mask)
  assert jnp.abs(stretched - v).max() > 1e-3


def test_the_noise_level_belongs_to_its_frame(net, inputs):
  masked, _ = net
  x, sigma, positions, _ = inputs
  alone = jnp.eye(FRAMES, dtype=bool)
  v = masked(x, sigma, positions, alone)
  changed = masked(x, sigma.at[:, 2].set(0.1), positions, alone)
  moved = np.asarray(jnp.abs(changed - v).max((0, 2, 3, 4)) > 0)
  np.testing.assert_array_equal(moved, np.arange(FRAMES) == 2)


def test_samples_of_a_batch_do_not_see_each_other(net, inputs):
  masked, _ = net
  x, sigma, positions, mask = inputs
  v = masked(x, sigma, positions, mask)
  other = masked(x.at[1].add(1.0), sigma, positions, mask)
  np.testing.assert_array_equal(v[0], other[0])
  assert jnp.abs(v[1] - other[1]).max() > 1e-2


def test_the_text_matters(inputs):
  dit, params = make_dit()
  x, sigma, positions, _ = inputs

  @jax.jit
  def velocity(text):
    context = dit.apply({'params': params}, text, method='text_context')
    return dit.apply({'params': params}, x, sigma, positions, context)[0]

  text = noise(1, BATCH, 5, DIT.text_dim)
  assert jnp.abs(velocity(text) - velocity(jnp.zeros_like(text))).max() > 1e-3


def test_recomputed_and_unrolled_layers_compute_the_same(inputs):
  _, params = make_dit()
  x, sigma, positions, _ = inputs
  text = noise(1, BATCH, 5, DIT.text_dim)

  def value_and_gradient(config, positions=positions):
    dit = DiT(config)

    def loss(params):
      context = dit.apply({'params': params}, text, method='text_context')
      v, _ = dit.apply({'params': params}, x, sigma, positions, context)
      return (v**2).mean()

    value, grad = jax.jit(jax.value_and_grad(loss))(params)
    return jnp.concatenate(
      [value[None], *map(jnp.ravel, jax.tree.leaves(grad))]
    )

  plain = value_and_gradient(DIT)
  for changes in REMAT:
    other = value_and_gradient(dataclasses.replace(DIT, **changes))
    np.testing.assert_allclose(other, plain, rtol=1e-3, atol=1e-4)
  moved = value_and_gradient(DIT, 2 * positions)
  assert jnp.abs(moved - plain).max() > 1e-3


def test_bfloat16_follows_float32(net, inputs):
  masked, _ = net
  x, sigma, positions, mask = inputs
  _, params = make_dit()
  config = dataclasses.replace(DIT, dtype='bfloat16')
  dit = DiT(config)

  @jax.jit
  def half(x):
    text = noise(1, BATCH, 5, DIT.text_dim)
    context = dit.apply({'params': params}, text, method='text_context')
    return dit.apply(
      {'params': params}, x, sigma, positions, context, mask_BFF=mask[None]
    )[0]

  whole, short = masked(x, sigma, positions, mask), half(x)
  assert short.dtype == jnp.float32
  error = jnp.sqrt(((short - whole) ** 2).mean() / (whole**2).mean())
  assert 0 < error < 0.03


def test_models_from_before_remat_had_names_are_read():
  assert dataclasses.replace(DIT, remat=False) == DIT
  assert dataclasses.replace(DIT, remat=True).remat == 'full'
  with pytest.raises(UserError, match='use one of none, full, attention'):
    dataclasses.replace(DIT, remat='some')


def stacked_cache(slots=6):
  """A cache in which slot i holds the number i."""
  cache = kv_cache.init_cache(1, 1, slots, TOKENS, 1, 1)
  number = jnp.repeat(jnp.arange(float(slots)), TOKENS).reshape(1, 1, -1, 1, 1)
  return jax.tree.map(lambda leaf: leaf + number, cache)


@pytest.mark.parametrize(
  'start, write, wanted',
  [
    (2, [2, 3, 4], [0, 1, 2, 3, 4, 5]),  # Appending leaves what is staged.
    (3, [0, 1, 2], [3, 4, 5, 3, 4, 5]),
    (2, [5, -1, -1], [0, 1, 2, 3, 4, 2]),
    (1, [-1, -1, -1], [0, 1, 2, 3, 4, 5]),
  ],
)
def test_commit_moves_staged_slots(start, write, wanted):
  cache = kv_cache.commit(stacked_cache(), start, jnp.array(write), TOKENS)
  for leaf in jax.tree.leaves(cache):
    np.testing.assert_array_equal(leaf[0, 0, ::TOKENS, 0, 0], wanted)
    np.testing.assert_array_equal(leaf[0, 0, 1::TOKENS, 0, 0], wanted)


def test_the_affine_norm_holds_far_from_zero():
  """As PyTorch's does: the mean is taken off before the square."""
  block = Block(64, 2, 64, jnp.float32)
  affine = {'scale': jnp.ones(64), 'bias': jnp.zeros(64)}
  x = 1000 + noise(0, 4, 64)
  wanted = np.asarray(x, np.float64)
  wanted = wanted - wanted.mean(-1, keepdims=True)
  wanted /= wanted.std(-1, keepdims=True)

  def error(norm):
    return np.abs(norm - wanted).max()

  params = {'params': {'modulation': jnp.zeros((6, 64)), 'norm_cross': affine}}
  ours = block.apply(params, x, method=lambda m, x: m.norm_cross(x))
  assert error(ours) < 1e-3
  fast = nn.LayerNorm(use_fast_variance=True).apply({'params': affine}, x)
  assert error(fast) > 1e-2
