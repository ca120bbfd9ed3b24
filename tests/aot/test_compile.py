"""The TPU compiler itself, at a depth that is compiled in seconds."""

import pathlib

import pytest

from unitemp_jax.aot import verdict
from unitemp_jax.cli.main import main

pytest.importorskip(
  'libtpu', reason="the TPU compiler; pip install 'unitemp_jax[tpu]'"
)

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
SMALL = {
  'model.dit.width': 256,
  'model.dit.ffn_width': 512,
  'model.dit.heads': 2,
  'model.dit.text_width': 64,
  'model.text.width': 64,
  'model.text.length': 32,
  'model.vae.base_dim': 8,
  'data.height': 64,
  'data.width': 64,
  'data.num_frames': 33,
  'batch_size': 8,
  'accumulate': 1,
}


def compiled(tmp_path, *more, topology='v5e:4x4', **changes):
  """Exit code and report of the command."""
  out = tmp_path / 'report.json'
  values = {**SMALL, **changes}
  code = main(
    [
      *('aot', f'--config={CONFIGS / "wan_1p3b_distill.py"}', '--fast'),
      *(f'--topology={topology}', f'--out={out}', *more),
      *(f'--config.{name}={value}' for name, value in values.items()),
    ]
  )
  return code, verdict.read(out)


def test_distillation_at_a_reduced_depth(tmp_path, capsys):
  """Compiles for sixteen chips; a scan over the layers shows in the counts."""
  code, found = compiled(tmp_path, '--depth=2', '--steps=critic_only')
  (step,) = found.steps
  assert code == 0 and step.compiled and step.mesh['context'] == 2
  assert {one.kind for one in step.traffic} & {'all-gather', 'all-to-all'}
  assert step.sent > 0
  assert step.arguments['optimizer critic'] > step.arguments['EMA student'] > 0
  assert 'A reduced depth says nothing' in capsys.readouterr().out


def test_a_mesh_that_does_not_divide_is_refused(capsys):
  for mesh in ('mesh.fsdp=3', 'mesh.fsdp=4', 'mesh.data=3'):
    argv = ['aot', f'--config={CONFIGS / "wan_1p3b_distill.py"}']
    argv += ['--topology=v5e:4x4', '--steps=train', f'--config.{mesh}']
    assert main(argv) == 2
    assert 'config.mesh' in capsys.readouterr().err
