"""All backends of attention compute the same, and splash skips what it may."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import (
  attention,
  attention_backend,
  dispatch,
  splash,
  xla,
)
from unitemp_jax.models.attention.tiles import Tiles
from unitemp_jax.parallel import mesh as device_mesh

pytestmark = pytest.mark.devices(8)

BATCH, QUERIES, KEYS, HEADS, WIDTH = 2, 200, 600, 2, 32
BLOCK = 128
TILES = Tiles(
  block_q=64,
  block_kv=BLOCK,
  block_kv_compute=BLOCK,
  block_q_dkv=BLOCK,
  block_kv_dkv=2 * BLOCK,
  block_kv_dkv_compute=BLOCK,
  block_q_dq=BLOCK,
  block_kv_dq=BLOCK,
)
LENGTHS = (1, 100, 256, 257, 600)  # of one block, ragged, whole, one more, all
TOLERANCE = 3e-5  # of gradients up to 10; of the output 2e-6


def draw(queries=QUERIES, keys=KEYS, batch=BATCH, seed=0):
  """Queries, keys, values, and weights that make a loss of the output."""
  keys_of = jax.random.split(jax.random.key(seed), 4)
  lengths = (queries, keys, keys, queries)
  return tuple(
    jax.random.normal(key, (batch, length, HEADS, WIDTH))
    for key, length in zip(keys_of, lengths, strict=True)
  )


def with_gradient(function):
  """The output, and the gradients of a loss by queries, keys and values."""

  @jax.jit
  def both(q, k, v, w, *rest):
    y, pull = jax.vjp(lambda q, k, v: function(q, k, v, *rest), q, k, v)
    return y, *pull(w)

  return both


def apart(a, b):
  """Largest difference of outputs, and of gradients."""
  differences = [float(jnp.abs(x - y).max()) for x, y in zip(a, b, strict=True)]
  return differences[0], max(differences[1:])


def run_splash(q, k, v, length, mask=None):
  return splash.attention(q, k, v, length, mask, TILES, interpret=True)


@pytest.fixture(scope='module')
def reference():
  return with_gradient(xla.attention)


@pytest.mark.parametrize('sums', [2**30, 0], ids=['fused dq', 'separate dq'])
def test_splash_equals_the_reference_at_ragged_prefixes(
  reference, sums, monkeypatch
):
  monkeypatch.setattr(splash, '_PARTIAL_SUMS', sums)
  kernel = with_gradient(run_splash)
  inputs = draw()
  for length in LENGTHS:
    output, gradient = apart(
      kernel(*inputs, length), reference(*inputs, length)
    )
    assert output < 2e-6 and gradient < TOLERANCE, length
  # Control: one key more or less is seen.
  for other in (99, 101):
    output, gradient = apart(kernel(*inputs, other), reference(*inputs, 100))
    assert output > 1e-3 and gradient > 1e-3


def test_splash_without_a_backward_pass():
  """Its blocks are others then: 200 queries in 4 of 56, not in 2 of 128."""
  q, k, v, _ = draw()
  kernel = jax.jit(run_splash)
  for length in LENGTHS:
    expected = xla.attention(q, k, v, length)
    np.testing.assert_allclose(kernel(q, k, v, length), expected, atol=2e-6)
  wrong = kernel(q, k, v, 257) - xla.attention(q, k, v, 256)
  assert jnp.abs(wrong).max() > 1e-3


def test_splash_does_not_touch_blocks_beyond_the_prefix():
  """Not-a-number in a skipped block does no harm, in a masked place it does."""
  q, k, v, w = draw()
  length = 100
  kernel = with_gradient(run_splash)
  clean = kernel(q, k, v, w, length)
  beyond = v.at[:, 2 * BLOCK :].set(jnp.nan)  # the backward block is 256 keys
  spoilt = kernel(q, k.at[:, 2 * BLOCK :].set(jnp.nan), beyond, w, length)
  for a, b in zip(clean, spoilt, strict=True):
    np.testing.assert_array_equal(a, b)
  # Control: the same beyond the prefix, but in the block where it ends.
  within = kernel(q, k, v.at[:, length].set(jnp.nan), w, length)
  assert jnp.isnan(within[0]).any()


FRAMES, QUERY_FRAMES = 4, 3


@pytest.fixture(scope='module')
def framed():
  """Inputs of ragged frames, and a mask of frames per clip."""
  inputs = draw(QUERY_FRAMES * 130, FRAMES * 150)
  shape = (BATCH, QUERY_FRAMES, FRAMES)
  mask = jax.random.bernoulli(jax.random.key(5), 0.5, shape)
  return inputs, mask.at[:, :, 0].set(True)


@pytest.mark.parametrize(
  ('clips', 'sums'), [(BATCH, 2**30), (1, 0)], ids=['one each', 'one for all']
)
def test_splash_takes_masks_of_frames(
  reference, framed, clips, sums, monkeypatch
):
  monkeypatch.setattr(splash, '_PARTIAL_SUMS', sums)
  inputs, mask = framed
  mask = mask[:clips]
  expected = reference(*inputs, None, mask)
  found = with_gradient(run_splash)(*inputs, None, mask)
  output, gradient = apart(found, expected)
  assert output < 2e-6 and gradient < TOLERANCE
  # Control: one frame less is seen by one frame.
  other = mask.at[0, 1, 0].set(False).at[0, 1, 1].set(True)
  output, gradient = apart(found, reference(*inputs, None, other))
  assert output > 1e-3 and gradient > 1e-3


def test_a_mask_of_frames_is_a_mask_of_tokens(framed):
  (q, k, v, _), mask = framed
  tokens = xla.to_tokens(mask, q.shape[1], k.shape[1])
  assert tokens.shape == (BATCH, QUERY_FRAMES * 130, FRAMES * 150)
  coarse, fine = (attention(q, k, v, None, m) for m in (mask, tokens))
  np.testing.assert_array_equal(coarse, fine)
  with pytest.raises(ValueError, match='does not divide'):
    attention(q[:, 1:], k, v, None, mask)


def test_pieces_equal_the_whole(reference, framed):
  """390 queries in 5 pieces of 78, which end within frames."""

  def pieces(q, k, v, length=None, mask=None):
    return xla.in_pieces(q, k, v, length, mask, logits=54_000)

  found = with_gradient(pieces)
  (q, k, v, w), mask = framed
  for rest in ((257,), (None, mask), (450, mask[:1])):
    output, gradient = apart(
      found(q, k, v, w, *rest), reference(q, k, v, w, *rest)
    )
    assert output < 1e-6 and gradient < TOLERANCE
  output, _ = apart(found(q, k, v, w, 256), reference(q, k, v, w, 257))
  assert output > 1e-3


def test_pieces_need_little_memory():
  """Logits of the backward pass too are computed piece by piece."""
  shapes = draw(800, batch=1)
  q, k, v, w = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes)

  def temporary(function):
    compiled = with_gradient(function).lower(q, k, v, w).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  def pieces(q, k, v):
    return xla.in_pieces(q, k, v, logits=6000)

  logits = HEADS * 800 * KEYS * 4
  assert temporary(xla.attention) > logits
  assert temporary(pieces) < logits / 2


def test_small_calls_are_as_they_were_and_large_ones_in_pieces(monkeypatch):
  q, k, v, _ = draw(64, 96)
  lengths = jnp.full((BATCH,), 70, jnp.int32)
  plain = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths)
  np.testing.assert_array_equal(attention(q, k, v, 70), plain)

  def loops():
    return str(jax.make_jaxpr(lambda *a: attention(*a, 70))(q, k, v)).count(
      'scan['
    )

  assert loops() == 0
  monkeypatch.setattr(dispatch, 'LARGE', 64 * 96)
  assert loops() == 3
  np.testing.assert_allclose(attention(q, k, v, 70), plain, atol=1e-6)


@pytest.mark.parametrize('split', [False, True], ids=['alone', 'mesh'])
def test_the_remat_policy_keeps_what_the_backward_pass_needs(split):
  """With it the forward kernel runs once, else it runs again."""
  policies = jax.checkpoint_policies
  keep = policies.save_only_these_names(xla.RESIDUALS)
  axis_types = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((2,), ('data',), axis_types)

  def kernels(policy):
    @functools.partial(jax.checkpoint, policy=policy)
    def inner(q, k, v):
      with attention_backend('splash'):
        return attention(jnp.sin(q), k, v, 100)

    loss = jax.grad(lambda q, k, v: inner(q, k, v).sum())
    with jax.set_mesh(mesh) if split else contextlib.nullcontext():
      return str(jax.make_jaxpr(loss)(*draw()[:3])).count('pallas_call[')

  assert kernels(keep) == 2
  assert kernels(policies.nothing_saveable) == 3


def test_clips_do_not_become_a_loop():
  """vmap with one length for all is a larger grid; with many it is a loop."""
  q, k, v, _ = draw()

  def loops(length, axis):
    one = jax.vmap(run_splash, in_axes=(0, 0, 0, axis))
    stacked = (x[None].repeat(3, axis=0) for x in (q, k, v))
    return str(jax.make_jaxpr(one)(*stacked, length)).count('scan[')

  inside = str(jax.make_jaxpr(run_splash)(q, k, v, 5)).count('scan[')
  assert loops(jnp.array(5), None) == inside
  assert loops(jnp.array([5, 6, 7]), 0) == inside + 1


def test_an_unknown_backend_is_refused():
  with (
    pytest.raises(UserError, match="no attention backend 'flash'"),
    attention_backend('flash'),
  ):
    pass


@pytest.mark.parametrize('hardware', ['cpu', 'tpu', 'gpu'])
def test_the_backend_follows_hardware_and_size(hardware, monkeypatch):
  monkeypatch.setattr(device_mesh, 'platform', lambda: hardware)
  kernel = {'cpu': 'xla', 'tpu': 'splash', 'gpu': 'cudnn'}[hardware]

  def chosen(queries, keys, width=128, dtype=jnp.bfloat16, mask=None):
    q = jax.ShapeDtypeStruct((1, queries, 2, width), dtype)
    k = jax.ShapeDtypeStruct((1, keys, 2, width), dtype)
    return dispatch.backend_for(q, k, mask)

  assert chosen(4680, 32760) == kernel
  assert chosen(4680, 512) == kernel
  assert chosen(48, 144) == 'xla'  # the tiny model
  in_single = chosen(4680, 512, dtype=jnp.float32)
  assert in_single == ('xla' if hardware == 'gpu' else kernel)
  frames = jnp.ones((1, 3, 3), bool)
  framed = chosen(4680, 4680, mask=frames)
  assert framed == ('splash' if hardware == 'tpu' else 'xla')
  tokens = jnp.ones((1, 512, 512), bool)
  assert chosen(512, 512, mask=tokens) == 'xla'
  with attention_backend('xla'):
    assert chosen(4680, 32760) == 'xla'
  with attention_backend('splash'):
    assert chosen(48, 144) == 'splash'


@pytest.mark.parametrize('heads', [2, 6])  # All in a tile, or one by one.
def test_tiles_skip_what_is_not_visible(heads):
  keys = jax.random.split(jax.random.key(3), 4)
  q, k, v, w = (
    jax.random.normal(key, (1, tokens, heads, 16))
    for key, tokens in zip(keys, (300, 700, 700, 300), strict=True)
  )
  traced = []

  @jax.jit
  def both(q, k, v, length):
    traced.append(length)
    return xla.streamed(q, k, v, length), attention(q, k, v, length)

  def differentiated(q, k, v):
    return jax.vjp(lambda *a: attention(*a, length), q, k, v)[1](w)

  for length in (1, 256, 257, 700):
    bad = (jnp.arange(700) >= length)[None, :, None, None]
    spoilt = [jnp.where(bad, jnp.nan, x) for x in (k, v)]
    right = xla.attention(q, k[:, :length], v[:, :length])
    for y in both(q, *spoilt, length):  # The second chooses the first.
      np.testing.assert_allclose(y, right, atol=2e-6)
  assert len(traced) == 1
  # Control: what is visible is read.
  spoilt = [x.at[:, length - 1].set(jnp.nan) for x in (k, v)]
  assert jnp.isnan(both(q, *spoilt, length)[0]).all()
  # A pass that is differentiated computes all keys.
  length = 257
  right = jax.vjp(lambda *a: xla.attention(*a, length), q, k, v)[1](w)
  for a, b in zip(differentiated(q, k, v), right, strict=True):
    np.testing.assert_allclose(a, b, atol=TOLERANCE)
