"""The transformer with the kernel, and kernels by the TPU's own compiler."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from tiny_networks import DIT, GRID, latents, make_dit, noise

from unitemp_jax.models.attention import attention, attention_backend, tiles
from unitemp_jax.models.attention.tiles import Entry, Table, Tiles

pytestmark = pytest.mark.devices(8)

BATCH, FRAMES, SLOTS = 1, 3, 7


def test_the_transformer_computes_the_same_with_the_kernel():
  """Self-attention through the cache at a traced length, and the text."""
  dit, params = make_dit()
  text = noise(1, BATCH, 5, DIT.text_dim)
  x, sigma = latents(2, BATCH, FRAMES), jnp.full((BATCH, FRAMES), 0.4)
  empty = DIT.new_cache(BATCH, SLOTS, *GRID)
  leaves, tree = jax.tree.flatten(empty)
  cache = tree.unflatten(
    [noise(i, *leaf.shape) for i, leaf in enumerate(leaves)]
  )

  def passes(backend):
    def run(x, cache, slot):
      with attention_backend(backend):
        context = dit.apply({'params': params}, text, method='text_context')
        return dit.apply(
          {'params': params}, x, sigma, jnp.arange(FRAMES), context, cache, slot
        )[0]

    traced = jax.jit(run).trace(x, cache, 2)
    kernels = str(traced.jaxpr).count('pallas_call[')
    return kernels, traced.lower().compile()

  (none, plain), (some, kernel) = passes('xla'), passes('splash')
  assert none == 0 and some > 0
  for slot in (0, 2, 4):
    expected = plain(x, cache, slot)
    np.testing.assert_allclose(kernel(x, cache, slot), expected, atol=3e-5)
  wrong = kernel(x, cache, 3) - plain(x, cache, 2)
  assert jnp.abs(wrong).max() > 1e-3


TOPOLOGIES = {
  'v5e:2x4': 'TPU v5 lite',
  'v5p:2x2x1': 'TPU v5',
  'v6e:2x4': 'TPU v6 lite',
  'tpu7x:2x2x1': 'TPU7x',
}


@pytest.fixture
def compile_for():
  """Compiles a forward and backward pass of Wan's 480p ahead of time."""
  pytest.importorskip('libtpu')
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  from jax.experimental import topologies

  def run(name, queries, keys, frames=0):
    found = topologies.get_topology_desc(platform='tpu', topology_name=name)
    devices = np.array(found.devices[:2]).reshape(1, 1, 2)
    axes = ('data', 'fsdp', 'context')
    mesh = Mesh(devices, axes, axis_types=(AxisType.Auto,) * 3)

    def loss(q, k, v, length, mask):
      length = None if frames else length
      return attention(q, k, v, length, mask).astype(jnp.float32).sum()

    def like(*shape, dtype=jnp.bfloat16):
      whole = NamedSharding(mesh, jax.P())
      return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    q, k = like(1, queries, 12, 128), like(1, keys, 12, 128)
    length = like(dtype=jnp.int32)
    mask = like(1, frames, frames, dtype=jnp.bool_) if frames else None
    jax.config.update('jax_exec_time_optimization_effort', -1.0)
    try:
      with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss, (0, 1, 2)))
        text = step.lower(q, k, k, length, mask).compile().as_text()
    finally:
      jax.config.update('jax_exec_time_optimization_effort', 0.0)
    return text.count('custom_call_target="tpu_custom_call"')

  return run


@pytest.mark.slow
@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_the_tpu_compiler_takes_the_tiles_that_ship(compile_for, topology):
  assert compile_for(topology, 4680, 32_760) == 2  # forward, fused backward
  assert compile_for(topology, 32_760, 32_760) >= 2
  assert compile_for(topology, 62 * 1560, 62 * 1560, frames=62) == 3
  assert compile_for(topology, 4680, 512) == 2


@pytest.mark.slow
def test_the_tpu_compiler_refuses_tiles_that_do_not_fit(
  compile_for, tmp_path, monkeypatch
):
  """Negative control: blocks as large as the whole call."""
  large = Tiles(block_q=4680, block_kv=8192, block_kv_compute=8192)
  table = Table(('TPU v5 lite',), (Entry(4680, 9360, False, large, ''),))
  path = tmp_path / 'large.json'
  path.write_text(tiles.to_json(table))
  monkeypatch.setenv(tiles.ENVIRONMENT, str(path))
  with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
    compile_for('v5e:2x4', 4680, 9360)
