"""Our networks beside diffusers' and transformers', where PyTorch is there."""

import dataclasses
import pathlib

import cases
import fixture_cases
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('diffusers')
pytest.importorskip('transformers')

import our_side
import torch_side

from unitemp_jax.convert import checkpoints, incoming, parity, parity_torch

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
SLOW = pytest.mark.slow


def compared(rows, kind, config, dtype, *inputs):
  """Compares a network module by module, in a dtype."""
  if kind != 'vae':
    config = dataclasses.replace(config, dtype=dtype)
  layers = cases.our_layers(kind, config, cases.state_dict(kind, config))
  return rows(config, layers, torch_side.module(kind, config, dtype), *inputs)


def assert_passes(found):
  assert not [row for row in found if not row.passed]


@pytest.mark.parametrize(
  ('kind', 'config'),
  [
    ('dit', cases.dit_wide(2)),
    ('vae', cases.VAE_FULL),
    ('umt5', cases.UMT5_WIDE),
  ],
)
def test_our_table_has_every_name_and_shape_of_pytorch(kind, config):
  theirs = parity_torch.torch_shapes(kind, config)
  theirs.pop('encoder.embed_tokens.weight', None)  # `shared` again.
  assert theirs == cases.torch_shapes(kind, config)


@pytest.mark.parametrize(
  'name',
  [pytest.param(n) for n, c in fixture_cases.CASES.items() if not c.slow],
)
def test_fixtures_are_what_pytorch_makes_today(name):
  with np.load(FOLDER / f'{name}.npz') as file:
    for part, made in torch_side.make(name).items():
      wanted = file[part]
      np.testing.assert_allclose(
        cases.sampled(made), wanted, atol=2e-5 * np.abs(wanted).max()
      )


DIT = parity.dit_rows
TINY = cases.dit_input(cases.DIT_TINY, (3, 4, 6), tokens=9, batch=2)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_dit_tiny_in_every_module(dtype):
  found = compared(DIT, 'dit', cases.DIT_TINY, dtype, *TINY)
  assert [row.module for row in found][-2:] == ['proj_out', 'network']
  assert_passes(found)
  if dtype == 'bfloat16':  # The control: it is told from float32.
    assert found[-1].relative_error > 1e-4


@SLOW
@pytest.mark.parametrize('layers', [1, 2])
def test_dit_at_full_width(layers):
  config = cases.dit_wide(layers)
  inputs = cases.dit_input(config, (3, 60, 104), tokens=512)
  assert_passes(compared(DIT, 'dit', config, 'float32', *inputs))


@SLOW
def test_dit_at_full_width_in_half_precision():
  config = cases.dit_wide(1)
  inputs = cases.dit_input(config, (3, 8, 8), tokens=512)
  assert_passes(compared(DIT, 'dit', config, 'bfloat16', *inputs))


@pytest.mark.parametrize(
  ('config', 'video', 'latents'),
  [
    (cases.VAE_NARROW, (9, 36, 44), (3, 3, 5)),
    pytest.param(cases.VAE_FULL, (9, 24, 40), (3, 3, 5), marks=SLOW),
  ],
)
def test_vae_in_every_module_and_in_chunks(config, video, latents):
  inputs = cases.video(*video), cases.latents(*latents)
  found = compared(parity.vae_rows, 'vae', config, 'float32', *inputs)
  assert_passes(found)
  assert all(row.max_error < 1e-4 for row in found if 'network' in row.module)
  # The control: constants that are applied twice, or not at all.
  plain = dataclasses.replace(config, latent_mean=(), latent_std=())
  params = cases.our_params('vae', config, cases.state_dict('vae', config))
  length = [video[0]]
  right, wrong = (
    parity.in_chunks(c, params, 'encode', inputs[0], length)
    for c in (config, plain)
  )
  assert np.abs(right - wrong).max() > 0.1


@pytest.mark.parametrize(
  ('config', 'tokens', 'dtype'),
  [
    (cases.UMT5_TINY, 300, 'float32'),
    (cases.UMT5_TINY, 300, 'bfloat16'),
    pytest.param(cases.UMT5_WIDE, 512, 'float32', marks=SLOW),
  ],
)
def test_umt5_in_every_module(config, tokens, dtype):
  inputs = cases.text_ids(config, tokens)
  assert_passes(compared(parity.umt5_rows, 'umt5', config, dtype, *inputs))


def test_a_wrong_weight_fails_where_it_is():
  state = cases.state_dict('dit', cases.DIT_TINY)
  module = torch_side.module('dit', cases.DIT_TINY)
  state['blocks.1.norm2.weight'] = 1 + 0 * state['blocks.1.norm2.weight']
  layers = cases.our_layers('dit', cases.DIT_TINY, state)
  found = DIT(cases.DIT_TINY, layers, module, *TINY)
  failed = [row.module for row in found if not row.passed]
  assert failed == ['blocks.1', 'network']


@pytest.mark.parametrize('kind', ['dit', 'umt5'])
def test_layers_of_a_checkpoint_come_and_go(kind, monkeypatch):
  """PyTorch computes the same, and neither side holds two layers."""
  config = {'dit': cases.DIT_TINY, 'umt5': cases.UMT5_TINY}[kind]
  inputs = TINY if kind == 'dit' else cases.text_ids(config, 300)
  rows = DIT if kind == 'dit' else parity.umt5_rows
  state = cases.state_dict(kind, config)
  stored = checkpoints.open_checkpoint(state).tensors
  module = parity_torch.build(kind, config, stored, 'float32')
  read, load = [], incoming.Layers.load

  def watched(self, *branches, layer=None, **more):
    read.append((branches, layer))
    return load(self, *branches, layer=layer, **more)

  monkeypatch.setattr(incoming.Layers, 'load', watched)
  layers = cases.our_layers(kind, config, state)
  found = rows(config, layers, module, *inputs)
  assert found == compared(rows, kind, config, 'float32', *inputs)
  assert_passes(found)
  one = [layer for branches, layer in read if branches == ('blocks',)]
  if kind == 'dit':
    assert one == 2 * [0, 1, 2]
  held = [p.numel() for p in module.parameters() if p.device.type != 'meta']
  whole = sum(p.numel() for p in module.parameters())
  assert sum(held) < whole / 2
  assert sum(held) == sum(
    value.size
    for name, value in state.items()
    if 'block' not in name and not name.startswith(('shared', 'encoder.emb'))
  )


def test_the_network_of_layers_is_the_whole_network():
  config = cases.DIT_TINY
  params = cases.our_params('dit', config, cases.state_dict('dit', config))
  theirs = parity.torch_velocity(
    torch_side.module('dit', config), *TINY, 'float32'
  )
  ours = our_side.velocity(config, params, *TINY)
  whole = parity_torch.compare('network', 'float32', ours, theirs)
  row = compared(DIT, 'dit', config, 'float32', *TINY)[-1]
  assert row.relative_error < 1e-5
  assert whole.relative_error == pytest.approx(row.relative_error, rel=1.0)
