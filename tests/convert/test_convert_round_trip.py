"""PyTorch to ours and back is the identity on bits."""

import numpy as np
import pytest
import safetensors.numpy
import small_models

from unitemp_jax.convert import (
  checkpoints,
  incoming,
  keymap,
  load_torch,
  outgoing,
)
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights


def convert(source, kind, path, **settings):
  """Writes our file of a checkpoint and returns its path."""
  network = incoming.open_network(
    source, kind, config=small_models.CONFIGS[kind], **settings
  )
  incoming.write(incoming.Output(path, {'': network}), lambda *_: None)
  return path


def bits(array):
  """Shape, type and bytes."""
  return array.shape, array.dtype, np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize('dtype', small_models.DTYPES)
@pytest.mark.parametrize('layout', ['wan', 'diffusers'])
@pytest.mark.parametrize('kind', small_models.CONFIGS)
def test_round_trip(kind, layout, dtype, tmp_path):
  """From one layout to both: its own is the same, bit for bit."""
  given = small_models.state_dict(kind, layout, dtype)
  source = tmp_path / 'torch.safetensors'
  safetensors.numpy.save_file(given, source)
  ours = convert(source, kind, tmp_path / 'ours.safetensors')
  (network,) = outgoing.open_networks(ours)
  assert network.kind == kind
  with weights.Files(ours) as files:
    back = outgoing.state_dict(network, files, layout)
    assert {name: bits(t.read()) for name, t in back.items()} == {
      name: bits(array) for name, array in given.items()
    }
    # By way of the other layout the bits are the same again.
    other = {'wan': 'diffusers', 'diffusers': 'wan'}[layout]
    foreign = outgoing.state_dict(network, files, other)
    foreign = {name: tensor.read() for name, tensor in foreign.items()}
  second = tmp_path / 'second.safetensors'
  small_models.write(second, foreign)
  again = convert(second, kind, tmp_path / 'again.safetensors')
  a, b = (safetensors.numpy.load_file(path) for path in (ours, again))
  assert {n: bits(x) for n, x in a.items()} == {
    n: bits(x) for n, x in b.items()
  }


def test_one_other_bit_is_seen():
  """Negative control of `bits`."""
  array = np.ones((2, 3), np.float32)
  other = array.copy()
  other.view(np.uint32)[1, 2] ^= 1
  assert bits(array) != bits(other)
  assert bits(array) != bits(array.reshape(3, 2))


@pytest.mark.parametrize('kind', small_models.CONFIGS)
def test_file_and_memory_agree(kind, tmp_path):
  """`load_torch` of a state dict is the tree that the converted file holds."""
  given = small_models.state_dict(kind, 'wan')
  shapes = sizes.param_shapes(small_models.CONFIGS[kind])
  direct = load_torch(given, kind, shapes)
  source = small_models.write(tmp_path / 'a.safetensors', {'generator': given})
  ours = convert(source, kind, tmp_path / 'ours.safetensors')
  flat = lambda tree: {  # noqa: E731
    name: bits(np.asarray(leaf))
    for name, leaf in keymap.flat_shapes(tree).items()
  }
  assert flat(weights.load(ours, shapes)) == flat(direct)


@pytest.mark.parametrize('policy', ['float32', 'bfloat16'])
def test_dtype_policy(policy, tmp_path):
  given = small_models.state_dict('dit', 'wan', 'float16')
  source = small_models.write(tmp_path / 'a.safetensors', given)
  ours = convert(source, 'dit', tmp_path / 'o.safetensors', dtype=policy)
  read = checkpoints.open_checkpoint(ours).tensors
  assert {tensor.dtype for tensor in read.values()} == {
    small_models.DTYPES[policy]
  }
  kernel = read['text_in.kernel'].read()
  expected = given['text_embedding.0.weight'].T.astype(kernel.dtype)
  np.testing.assert_array_equal(kernel, expected)


def test_layers_of_several_types_need_a_policy(tmp_path):
  given = small_models.state_dict('dit', 'wan')
  name = 'blocks.1.ffn.0.weight'
  given[name] = given[name].astype(np.float16)
  source = small_models.write(tmp_path / 'a.safetensors', given)
  with pytest.raises(UserError, match=r'different types .*--dtype'):
    convert(source, 'dit', tmp_path / 'o.safetensors')
  assert not (tmp_path / 'o.safetensors').exists()
  convert(source, 'dit', tmp_path / 'o.safetensors', dtype='float32')


WRAPPED = {
  'self forcing': lambda d: {
    'generator': {f'model.{k}': v + v for k, v in d.items()},
    'generator_ema': {f'model.{k}': v for k, v in d.items()},
    'critic': {f'model.{k}': v + v for k, v in d.items()},
  },
  'causvid': lambda d: {
    'generator': {
      f'model._fsdp_wrapped_module.{k}'.replace(
        'blocks.1.', 'blocks.1._fsdp_wrapped_module.'
      ): v
      for k, v in d.items()
    }
  },
  'compiled': lambda d: {f'_orig_mod.model.{k}': v for k, v in d.items()},
  'flat': lambda d: {f'generator.model.{k}': v for k, v in d.items()},
}


@pytest.mark.parametrize('form', WRAPPED)
def test_wrapped_checkpoints(form, tmp_path):
  given = small_models.state_dict('dit', 'wan')
  shapes = sizes.param_shapes(small_models.CONFIGS['dit'])
  wanted = load_torch(given, 'dit', shapes)
  path = small_models.write(tmp_path / 'a.safetensors', WRAPPED[form](given))
  read = load_torch(path, 'dit', shapes)
  np.testing.assert_array_equal(
    read['blocks']['ffn_up']['kernel'], wanted['blocks']['ffn_up']['kernel']
  )


def test_the_part_is_chosen(tmp_path):
  given = small_models.state_dict('dit', 'wan')
  values = WRAPPED['self forcing'](given)
  shapes = sizes.param_shapes(small_models.CONFIGS['dit'])
  path = small_models.write(tmp_path / 'a.safetensors', values)
  ema = load_torch(path, 'dit', shapes)['text_in']['bias']
  critic = load_torch(path, 'dit', shapes, part='critic')['text_in']['bias']
  np.testing.assert_array_equal(2 * ema, critic)
  del values['generator'], values['generator_ema']
  values['fake'] = values['critic']
  path = small_models.write(tmp_path / 'b.safetensors', values)
  with pytest.raises(UserError, match=r'several networks .*--part'):
    load_torch(path, 'dit', shapes)
