import json
import os
import signal

import jax
import pytest
from toy import TOY_RULES, ToyLoader, ToyProgram

from unitemp_jax.cli import train as train_cli
from unitemp_jax.errors import UserError
from unitemp_jax.training import loop, workdir
from unitemp_jax.training.program import TrainingStopped

pytestmark = pytest.mark.devices(8)

FILE = """
from configs.common import training_config

def get_config(arg=None):
  config = training_config(num_steps=4, batch_size=8, log_every=1)
  config.mesh.data = 1
  config.model = {'width': 16}
  config.objective, config.data, config.optimizer = 'toy', {}, {}
  return config
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
  """Returns a function that runs the verb on the toy in `tmp_path`/run."""
  (tmp_path / 'toy_config.py').write_text(FILE)
  monkeypatch.setattr(train_cli.build, 'build_program', lambda *_: ToyProgram())
  monkeypatch.setattr(
    train_cli.build,
    'build_loader',
    lambda config, *_: ToyLoader(config.batch_size),
  )
  monkeypatch.setattr(train_cli, 'MODEL_RULES', TOY_RULES)

  def run(*arguments):
    return train_cli.main(
      [
        f'--config={tmp_path / "toy_config.py"}',
        f'--workdir={tmp_path / "run"}',
        *arguments,
      ]
    )

  return run


def test_trains_resumes_and_says_when_done(call, tmp_path, capsys):
  assert call() == 0
  out = capsys.readouterr().out
  assert str(tmp_path / 'run/checkpoints/4') in out
  weights = tmp_path / 'run/weights/net.safetensors'
  assert out.splitlines()[-1] == str(weights) and weights.exists()
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['model'] == {'width': 16}
  assert call() == 0
  assert 'nothing to do' in capsys.readouterr().out
  assert call('--config.num_steps=5') == 0  # Longer is the same run.
  assert 'resuming after step 4' in capsys.readouterr().out


def test_a_stopped_training_leaves_nothing_for_the_next_stage(
  call, tmp_path, monkeypatch, capsys
):
  take = loop.CompiledSteps.__call__

  def step(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return take(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(loop.CompiledSteps, '__call__', step)
    assert call() == train_cli.EXIT_STOPPED == 128 + signal.SIGTERM
  assert 'stopped at step 1' in capsys.readouterr().out
  assert not (tmp_path / 'run/weights').exists()
  # What there is can be had, by saying so; and the run goes on.
  weights = tmp_path / 'run/weights/net.safetensors'
  for steps in (1, 4):
    assert call(f'--config.num_steps={steps}') == 0
    assert workdir.provenance(weights)['steps'] == steps


def test_dry_run_writes_nothing(call, tmp_path, capsys):
  assert call('--dry_run') == 0
  assert 'net: 81 parameters' in capsys.readouterr().out
  assert not (tmp_path / 'run').exists()


def test_other_config_is_refused_and_nothing_changes(call, tmp_path):
  call()
  files = {
    p: p.read_bytes() for p in (tmp_path / 'run').rglob('*') if p.is_file()
  }
  with pytest.raises(UserError, match=r'differs in model\.width'):
    call('--config.model.width=32')
  assert files == {
    p: p.read_bytes() for p in (tmp_path / 'run').rglob('*') if p.is_file()
  }


def test_a_run_may_go_on_elsewhere(call, tmp_path, capsys):
  """Mesh and loop settings are no part of what a run is."""
  call('--config.num_steps=2')
  changes = ['mesh.data=2', 'mesh.fsdp=4', 'keep_every=2', 'max_skipped=9']
  assert call(*[f'--config.{change}' for change in changes]) == 0
  assert 'resuming after step 2' in capsys.readouterr().out


def test_fingerprint_outlives_new_settings():
  """Runs from before the newer keys existed can still be resumed."""
  old = {'seed': 0, 'mesh': {'data': -1, 'fsdp': 1}, 'num_steps': 3}
  new = {**old, 'max_skipped': 5, 'num_devices': 8, 'profile_steps': 0}
  assert workdir.fingerprint(old) == workdir.fingerprint(new)
  assert workdir.fingerprint(old) == '90446dfb7cb31a36'
  assert (
    workdir.fingerprint({**new, 'seed': 1}) != '90446dfb7cb31a36'
  )  # Control.


def test_a_diverged_training_has_an_exit_code_of_its_own(
  call, monkeypatch, capsys
):
  def diverge(*_, **__):
    raise TrainingStopped('5 steps in a row were skipped.')

  monkeypatch.setattr(train_cli, 'train', diverge)
  assert call() == 4
  assert 'error: 5 steps in a row' in capsys.readouterr().err


def test_too_few_devices_are_refused_before_anything_is_written(call, tmp_path):
  with pytest.raises(UserError, match='num_devices is 16'):
    call('--config.num_devices=16')
  assert not (tmp_path / 'run').exists()


def test_second_training_in_the_same_workdir_is_refused(
  call, tmp_path, monkeypatch
):
  call()

  def nested(*_, **__):
    with pytest.raises(UserError, match='has been writing to'):
      call('--config.num_steps=6')
    return loop.TrainResult(None, 4, 'finished', tmp_path)

  with monkeypatch.context() as patch:
    patch.setattr(train_cli, 'train', nested)
    patch.setattr(workdir, 'export_weights', lambda *_: [])
    patch.setattr(jax, 'process_index', lambda: 0)
    assert call('--config.num_steps=5') == 0
  assert call('--config.num_steps=5') == 0  # The lock is released.


@pytest.mark.parametrize('bad', ['--cfg.num_steps=1', 'num_steps=1'])
def test_unknown_arguments_are_refused(call, bad):
  with pytest.raises(UserError, match='unknown argument'):
    call(bad)
