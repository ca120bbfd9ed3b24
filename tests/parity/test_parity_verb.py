"""`unitemp parity` on checkpoints as users have them."""

import dataclasses

import cases
import numpy as np
import parity_numbers
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.convert import wan

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
pytest.importorskip('transformers')

CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=None):
  return ConfigDict({'model': {
    'dit': dict(dim=48, ffn_dim=80, num_heads=2, num_layers=3, text_dim=24,
                freq_dim=32),
    'vae': dict(base_dim=4),
    'text': dict(vocab=64, dim=32, num_heads=4, head_dim=8, ffn_dim=40,
                 num_layers=3),
  }})
"""
SMALL = ['--frames=2', '--height=4', '--width=4', '--tokens=40']
CONFIGS = {
  'dit': cases.DIT_TINY,
  'vae': cases.VAE_NARROW,
  'umt5': cases.UMT5_TINY,
}


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'sizes.py'
  path.write_text(CONFIG)
  return f'--config={path}'


def save(path, kind, prefix='', **changes):
  """Writes a random checkpoint in the original's layout."""
  shapes = cases.torch_shapes(kind, CONFIGS[kind], 'wan')
  state = {
    prefix + name: torch.from_numpy(
      np.asarray(parity_numbers.weight(name, shape) * changes.get(name, 1))
    )
    for name, shape in shapes.items()
  }
  torch.save({'generator': state} if prefix else state, path)
  return f'--checkpoint={path}'


def test_rollouts_agree_too(tmp_path, config, capsys):
  checkpoint = save(tmp_path / 'student.pt', 'dit', 'model.')
  command = ['parity', checkpoint, config, *SMALL, '--dtypes=float32']
  assert cli.main([*command, '--rollout', '--block=1']) == 0
  said = capsys.readouterr().out
  for kind in ('cached', 'masked', 'windowed cached', 'windowed masked'):
    assert f'network, {kind} rollout, level 3' in said
  vae = save(tmp_path / 'vae.pt', 'vae')
  assert cli.main(['parity', vae, config, '--rollout']) == 2
  assert '--rollout is for a transformer' in capsys.readouterr().err


def test_self_forcing_file_agrees(tmp_path, config, capsys):
  checkpoint = save(tmp_path / 'student.pt', 'dit', 'model.')
  assert cli.main(['parity', checkpoint, config, *SMALL]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].endswith('layout wan')
  assert lines[-1] == 'all 18 modules agree'
  table = [line.split() for line in lines[2:-1]]
  assert {row[1] for row in table} == {'float32', 'bfloat16'}
  assert sum(row[0].startswith('blocks.') for row in table) == 6


@pytest.mark.parametrize('kind', ['vae', 'umt5'])
def test_the_other_networks_agree(kind, tmp_path, config, capsys):
  checkpoint = save(tmp_path / 'net.pth', kind)
  arguments = ['parity', checkpoint, config, *SMALL, '--dtypes=float32']
  assert cli.main(arguments) == 0
  assert 'modules agree' in capsys.readouterr().out


def test_what_differs_is_named_and_the_exit_code_is_one(
  tmp_path, config, capsys, monkeypatch
):
  """Our table is made to swap two names; PyTorch reads them as they are."""
  rows = wan.TABLES['dit'].rows
  index = {row.path: i for i, row in enumerate(rows)}
  k = index['blocks/cross_attn/k/kernel']
  v = index['blocks/cross_attn/v/kernel']
  names = [row.names for row in rows]
  swapped = list(rows)
  swapped[k] = dataclasses.replace(rows[k], names=names[v])
  swapped[v] = dataclasses.replace(rows[v], names=names[k])
  table = dataclasses.replace(wan.TABLES['dit'], rows=tuple(swapped))
  monkeypatch.setitem(wan.TABLES, 'dit', table)
  checkpoint = save(tmp_path / 'student.pt', 'dit', 'model.')
  arguments = ['parity', checkpoint, config, *SMALL, '--dtypes=float32']
  assert cli.main(arguments) == 1
  out = capsys.readouterr().out
  failing = [line.split()[0] for line in out.splitlines() if 'FAILS' in line]
  assert failing == ['blocks.0', 'blocks.1', 'blocks.2', 'network']


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--dtypes=float16'], "names 'float16'"),
    (['--height=3'], 'must be even'),
    (['--frames=0'], '1 or more'),
  ],
)
def test_bad_arguments(arguments, words, tmp_path, capsys):
  path = f'--checkpoint={tmp_path / "a.pt"}'
  assert cli.main(['parity', path, *arguments]) == 2
  assert words in capsys.readouterr().err


def test_a_checkpoint_of_another_size(tmp_path, capsys):
  checkpoint = save(tmp_path / 'student.pt', 'dit', 'model.')
  assert cli.main(['parity', checkpoint]) == 2
  assert 'name its size with --config' in capsys.readouterr().err
