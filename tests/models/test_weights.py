import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from unitemp_jax.errors import UserError
from unitemp_jax.models import params, sizes, weights
from unitemp_jax.sampling import model_folder


@pytest.fixture
def tree():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
  return {'a': {'kernel': draw(3, 4), 'bias': draw(4)}, 'b': {'scale': draw(2)}}


@pytest.fixture
def path(tree, tmp_path):
  return weights.save(tmp_path / 'w' / 'net.safetensors', tree, {'steps': 7})


def test_shapes_are_those_of_what_is_drawn(monkeypatch):
  card = model_folder.read_card(model_folder.TINY)
  told = model_folder.param_shapes(card)
  drawn = []
  init = lambda f, *given: drawn.append(0) or jax.eval_shape(f, *given)  # noqa: E731
  monkeypatch.setattr(params, 'shapes', init)
  sizes._traced.cache_clear()
  assert model_folder.param_shapes(card) == told
  assert len(drawn) == 3


def test_round_trip(tree, path):
  read = weights.load(path, jax.eval_shape(lambda: tree))
  jax.tree.map(np.testing.assert_array_equal, read, tree)
  assert jax.tree.structure(read) == jax.tree.structure(tree)
  with safetensors.safe_open(path, 'numpy') as file:
    assert file.metadata() == {'unitemp': '{"steps": 7}'}
    assert set(file.keys()) == {'a.kernel', 'a.bias', 'b.scale'}
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_precision_on_disk_is_read_in_the_models_dtype(tree, tmp_path):
  path = weights.save(tmp_path / 'half.safetensors', tree, dtype=np.float16)
  read = weights.load(path, tree)
  for one, two in zip(
    jax.tree.leaves(read), jax.tree.leaves(tree), strict=True
  ):
    assert one.dtype == jnp.float32
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)
    assert (one != two).any()


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda t: t | {'c': {'bias': jnp.ones(1)}}, ['c.bias is missing']),
    (lambda t: {'a': t['a']}, ['b.scale is unknown']),
    (
      lambda t: t | {'b': {'scale': jnp.ones(5)}},
      ['b.scale has shape [2], wanted [5]'],
    ),
    (
      lambda t: {f'x{i}': jnp.ones(1) for i in range(4)},
      ['x0 is missing', 'x2 is missing', 'and 4 more'],
    ),
  ],
)
def test_what_does_not_fit_is_named(tree, path, change, words):
  before = path.read_bytes()
  with pytest.raises(UserError) as error:
    weights.load(path, change(tree))
  for word in [str(path), *words]:
    assert word in str(error.value)
  assert path.read_bytes() == before


@pytest.mark.parametrize('keep', [0, 5, 100, -4])
def test_a_damaged_file_is_refused(tree, path, keep):
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match='cannot be read as safetensors'):
    weights.load(path, tree)


def test_a_missing_file_is_refused(tree, tmp_path):
  with pytest.raises(UserError, match='no weights at'):
    weights.load(tmp_path / 'nothing.safetensors', tree)


def test_a_failed_write_leaves_the_old_file(tree, path, monkeypatch):
  before = path.read_bytes()

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(weights.files.os, 'replace', fail)
  with pytest.raises(UserError, match='disk full'):
    weights.save(path, {'other': jnp.ones(3)})
  assert path.read_bytes() == before
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_layer_that_training_begins_at_0_may_be_0(tmp_path):
  tree = {'head': {'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)}}
  path = weights.save(tmp_path / 'new.safetensors', tree)
  assert not weights.load(path, tree)['head']['kernel'].any()


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda v: v.astype(np.int32), ['b.scale holds I32', 'no floats']),
    (lambda v: v > 0, ['b.scale holds BOOL', 'no floats']),
    (lambda v: v * 0 + 1e50, ['b.scale', 'not finite in float32', 'inf']),
    (lambda v: v.astype(np.float32) / 0, ['b.scale', 'not finite']),
    (lambda v: v * 0, ['b.scale is 0 everywhere']),
    (lambda v: v, []),
    (lambda v: v.astype(np.float16), []),
  ],
)
@pytest.mark.filterwarnings('error:overflow')
def test_what_no_weight_can_be_is_refused(tree, tmp_path, change, words):
  path = tmp_path / 'net.safetensors'
  arrays = {'a.kernel': np.ones((3, 4)), 'a.bias': np.ones(4)}
  with np.errstate(divide='ignore', invalid='ignore'):
    arrays['b.scale'] = change(np.arange(1.0, 3))
  safetensors.numpy.save_file(arrays, path)
  if not words:
    read = weights.load(path, tree)
    assert read['b']['scale'].tolist() == [1, 2]
    return
  with pytest.raises(UserError) as error:
    weights.load(path, tree)
  for word in [str(path), *words]:
    assert word in str(error.value)
  assert '\n' not in str(error.value)
