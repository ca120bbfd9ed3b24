"""Files appear whole or not at all, and in parts for a mesh."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
import safetensors.numpy
import small_models

from unitemp_jax.convert import checkpoints, incoming, keymap, load_torch
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel.mesh import MODEL_RULES, make_mesh, shardings_for

pytestmark = pytest.mark.devices(8)

SHAPES = {
  kind: sizes.param_shapes(config)
  for kind, config in small_models.CONFIGS.items()
}


def output(tmp_path, kind='dit', parts=1, name='out', seed=0, dtype='keep'):
  """What converts a small network."""
  source = tmp_path / f'{kind}{seed}.safetensors'
  if not source.exists():
    given = small_models.state_dict(kind, 'wan', seed=seed)
    small_models.write(source, {'generator': given})
  network = incoming.open_network(
    source, kind, config=small_models.CONFIGS[kind], dtype=dtype
  )
  path = tmp_path / name / 'net.safetensors'
  return incoming.Output(path, {'': network}, parts)


def silent(done, total):
  """A progress that prints nothing."""


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_library_reads_what_is_streamed(tmp_path):
  out = output(tmp_path)
  incoming.write(out, silent)
  read = safetensors.numpy.load_file(out.path)
  wanted = load_torch(tmp_path / 'dit0.safetensors', 'dit', SHAPES['dit'])
  for path, leaf in keymap.flat_shapes(wanted).items():
    np.testing.assert_array_equal(read[path.replace('/', '.')], leaf)
  assert out.is_done()


def test_rows_and_layers_arrive_in_any_order(tmp_path):
  x = np.arange(24, dtype=np.float16).reshape(4, 6)
  specs = {'x': (x.shape, x.dtype), 'y': ((2,), np.dtype(np.float32))}
  path = tmp_path / 'a.safetensors'
  with checkpoints.streaming(path, specs, {}) as writer:
    for row in (2, 0, 3, 1):
      writer.write('x', 6 * row, x[row])
    writer.write('y', 0, np.ones(2, np.float64))
    assert not path.exists()
  read = safetensors.numpy.load_file(path)
  np.testing.assert_array_equal(read['x'], x)
  np.testing.assert_array_equal(read['y'], 1)


def test_an_interrupted_conversion_leaves_nothing(tmp_path):
  out = output(tmp_path, parts=2)

  def stop(done, total):
    if 2 * done > total:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    incoming.write(out, stop)
  assert contents(out.path.parent) == {}


def test_killed_and_run_again_gives_the_same_files(tmp_path):
  """SIGKILL once one of two files is there; control: it did strike."""
  whole = output(tmp_path, parts=2, name='whole')
  incoming.write(whole, silent)
  expected = contents(whole.path.parent)
  script = textwrap.dedent("""
    import os, sys, pathlib
    import test_convert_stream as t
    from unitemp_jax.convert import incoming
    replace = os.replace
    def replace_one(*names):
      replace(*names)
      os.kill(os.getpid(), 9)
    os.replace = replace_one
    out = t.output(pathlib.Path(sys.argv[1]), parts=2, name='killed')
    incoming.write(out, t.silent)
  """)
  here = pathlib.Path(__file__).parent
  arguments = [sys.executable, '-c', script, str(tmp_path)]
  env = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  done = subprocess.run(arguments, cwd=here, env=env, capture_output=True)
  assert done.returncode == -9, done.stderr.decode()
  out = output(tmp_path, parts=2, name='killed')
  names = [n for n in contents(out.path.parent) if not n.startswith('.')]
  assert len(names) == 1
  assert not out.is_done()
  incoming.write(out, silent)
  assert contents(out.path.parent) == expected
  assert out.is_done()


def test_other_weights_are_not_overwritten(tmp_path):
  out = output(tmp_path)
  incoming.write(out, silent)
  for other in (
    output(tmp_path, seed=1),
    output(tmp_path, parts=2),
    output(tmp_path, dtype='bfloat16'),
  ):
    with pytest.raises(UserError, match='holds other weights'):
      other.is_done()
  assert out.is_done()


@pytest.mark.parametrize('kind', ['dit', 'umt5'])
def test_parts_are_read_onto_a_mesh(kind, tmp_path):
  """Eight files; every device reads its own slice, for other meshes too."""
  out = output(tmp_path, kind, parts=8)
  incoming.write(out, silent)
  index = json.loads(weights.index_path(out.path).read_text())
  assert len(index['files']) == 8
  assert any(axis is not None for axis in index['axes'].values())
  whole = load_torch(tmp_path / f'{kind}0.safetensors', kind, SHAPES[kind])
  for fsdp in (8, 2, 1):
    mesh = make_mesh({'data': 1, 'fsdp': fsdp})
    shapes = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      SHAPES[kind],
      shardings_for(SHAPES[kind], mesh, MODEL_RULES),
    )
    direct = load_torch(tmp_path / f'{kind}0.safetensors', kind, shapes)
    for read in (weights.load(out.path, shapes), direct):
      jax.tree.map(np.testing.assert_array_equal, read, whole)
      cut = [
        leaf
        for leaf in jax.tree.leaves(read)
        if leaf.addressable_shards[0].data.size * fsdp == leaf.size
      ]
      assert len(cut) >= sum(a is not None for a in index['axes'].values())
  # Without shardings the parts are put together.
  read = weights.load(out.path, SHAPES[kind])
  jax.tree.map(np.testing.assert_array_equal, read, whole)


def test_only_the_parts_of_a_process_are_opened(tmp_path):
  """Negative control: what lies in a lost part cannot be read."""
  out = output(tmp_path, parts=4)
  incoming.write(out, silent)
  name = 'blocks.ffn_up.kernel'
  with weights.Files(out.path) as files:
    whole = files.read(name)
    shape = files.shapes[name]
  (tmp_path / 'out' / 'net-00003-of-00004.safetensors').unlink()
  rows = shape[1] // 4
  with weights.Files(out.path) as files:
    at = (slice(None), slice(0, 2 * rows), slice(3, 5))
    np.testing.assert_array_equal(files.read(name, at), whole[at])
    with pytest.raises(UserError, match='net-00003'):
      files.read(name, (slice(None), slice(rows, 3 * rows), slice(None)))
