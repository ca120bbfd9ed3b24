"""Attention over a mesh, and lowered for hardware that is not there."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from unitemp_jax.models.attention import attention, attention_backend, dispatch
from unitemp_jax.parallel import mesh as device_mesh

pytestmark = pytest.mark.devices(8)

BATCH, WIDTH = 4, 32
AXES = ('data', 'fsdp', 'context')


def draw(queries, keys, batch=BATCH, heads=2):
  names = jax.random.split(jax.random.key(0), 4)
  lengths = (queries, keys, keys, queries)
  return tuple(
    jax.random.normal(name, (batch, length, heads, WIDTH))
    for name, length in zip(names, lengths, strict=True)
  )


def mesh(shape):
  return jax.make_mesh(
    shape,
    AXES,
    axis_types=(AxisType.Auto,) * 3,
    devices=jax.devices()[: np.prod(shape)],
  )


def with_gradient(backend):
  """The output and the gradients; a new function, traced anew in its mesh."""

  @jax.jit
  def both(q, k, v, w, *rest):
    with attention_backend(backend):
      y, pull = jax.vjp(lambda q, k, v: attention(q, k, v, *rest), q, k, v)
      return y, *pull(w)

  return both


FRAMES = jnp.tril(jnp.ones((3, 3), bool))[None]
# Queries, keys, clips, heads, length or mask, and by what it is computed. One
# head cannot be split, so queries are.
CASES = {
  'heads': (132, 256, BATCH, 2, (150,), 'splash'),
  'odd queries, uneven batch': (131, 256, 2, 1, (150,), 'xla'),
  'a mask for all': (3 * 128, 3 * 128, BATCH, 2, (None, FRAMES), 'xla'),
  'a mask per clip, odd frames': (
    3 * 128,
    3 * 128,
    BATCH,
    1,
    (None, jnp.concatenate([FRAMES, jnp.ones_like(FRAMES)] * 2)),
    'splash',
  ),
}


@pytest.fixture(scope='module')
def alone():
  return with_gradient('xla')


@pytest.mark.parametrize('case', CASES)
def test_over_a_mesh_it_is_the_same(alone, case):
  queries, keys, batch, heads, rest, backend = CASES[case]
  inputs = draw(queries, keys, batch, heads)
  with jax.set_mesh(mesh((2, 2, 2))):
    split = with_gradient(backend)(*inputs, *rest)
  for a, b in zip(alone(*inputs, *rest), split, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)
  # Control: with another length or mask all of them differ.
  other = (140,) if rest[0] else (None, jnp.ones_like(rest[1]))
  for a, b in zip(alone(*inputs, *other), split, strict=True):
    assert jnp.abs(a - b).max() > 1e-3


def test_rows_and_heads_are_split(monkeypatch):
  seen = []

  def record(q, k, v, kv_len, mask):
    seen.append((q.shape[:3], k.shape[:3]))
    return q

  monkeypatch.setattr(dispatch, '_on_one_device', record)

  def shapes(sizes, batch, heads):
    q, k, v, _ = draw(132, 256, batch, heads)
    with jax.set_mesh(mesh(sizes)):
      jax.eval_shape(lambda q, k, v: attention(q, k, v, 9), q, k, v)
    return seen.pop()

  assert shapes((2, 2, 2), 4, 6) == ((1, 132, 3), (1, 256, 3))
  assert shapes((2, 2, 2), 2, 6) == ((1, 132, 3), (1, 256, 3))  # fsdp repeats
  assert shapes((1, 2, 4), 3, 12) == ((3, 132, 3), (3, 256, 3))
  # Where heads do not divide, queries are split, keys are whole.
  assert shapes((2, 2, 2), 4, 3) == ((1, 66, 3), (1, 256, 3))
  assert shapes((1, 1, 8), 1, 12) == ((1, 17, 12), (1, 256, 12))  # 132 + 4
  assert shapes((1, 1, 1), 4, 2) == ((4, 132, 2), (4, 256, 2))


def test_inside_a_shard_map_it_is_local():
  q, k, v, _ = draw(64, 64)
  with jax.set_mesh(mesh((2, 2, 2))):
    rows = jax.P(('data', 'fsdp'))
    split = jax.shard_map(
      attention, in_specs=(rows,) * 3, out_specs=rows, check_vma=False
    )
    found = jax.jit(split)(q, k, v)
  np.testing.assert_allclose(found, attention(q, k, v), atol=1e-6)


def lowered(platform, dtype, mask=None):
  """Text of a forward and backward pass for a chunk of Wan's 480p."""
  q = jax.ShapeDtypeStruct((1, 4680, 12, 128), dtype)
  k = jax.ShapeDtypeStruct((1, 9360, 12, 128), dtype)

  def loss(q, k, v, length):
    y = attention(q, k, v, length if mask is None else None, mask)
    return y.astype(jnp.float32).sum()

  traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, k, jnp.int32(5000))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  return re.findall(r'custom_call @(\S+?)\(', text), text


def test_on_a_tpu_it_lowers_to_the_kernels(monkeypatch):
  monkeypatch.setattr(device_mesh, 'platform', lambda: 'tpu')
  monkeypatch.setattr(device_mesh, 'device_kind', lambda: 'TPU v5 lite')
  calls, _ = lowered('tpu', jnp.bfloat16)
  assert calls.count('tpu_custom_call') == 2  # forward, fused backward
  frames = jnp.ones((1, 3, 6), bool)
  calls, _ = lowered('tpu', jnp.bfloat16, frames)
  assert calls.count('tpu_custom_call') == 2
  with attention_backend('xla'):
    calls, _ = lowered('tpu', jnp.bfloat16)
  assert 'tpu_custom_call' not in calls


def test_on_a_gpu_it_lowers_to_cudnn(monkeypatch):
  """Lowered only: there is no such GPU here."""
  kernels = jax._src.cudnn.fused_attention_stablehlo
  monkeypatch.setattr(kernels, 'check_cudnn_version', lambda: 91_000)
  monkeypatch.setattr(device_mesh, 'platform', lambda: 'gpu')
  calls, text = lowered('cuda', jnp.bfloat16)
  assert '__cudnn$fmhaSoftmax' in calls
  assert '__cudnn$fmhaSoftmaxBackward' in calls
  assert 'PADDING' in text  # the lengths, and no bias as large as the logits
  calls, _ = lowered('cuda', jnp.float32)
  assert calls == []
