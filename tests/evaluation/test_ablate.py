"""Arms and seeds: trained, measured, kept, and what they come to."""

import json
from pathlib import Path

import numpy as np
import pytest
from model_fixture import ROOT, random_model
from safetensors import numpy as safetensors

from unitemp_jax import files
from unitemp_jax.cli import ablate
from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import ablation
from unitemp_jax.evaluation.metrics import bootstrap


def arms(seeds, clips, gain=0.0, spread=0.0, seed=0):
  rng = np.random.default_rng(seed)
  own = rng.normal(size=(1, clips))
  return own + gain + spread * rng.normal(size=(seeds, 1))


def test_a_difference_within_the_spread_of_seeds_is_none():
  base = arms(3, 64)
  clear = bootstrap.over_seeds(arms(3, 64, gain=0.5), base)
  assert clear.value == pytest.approx(0.5) and clear.low > 0.4
  # Negative control: clips alone would call this one clear.
  lucky = arms(3, 64, gain=0.2, spread=1.0, seed=0)
  apart = bootstrap.over_seeds(lucky, base)
  assert apart.low < 0 < apart.high
  single = bootstrap.paired('mean', lucky[0], base[0])
  assert not single.low < 0 < single.high


def test_measures_of_one_training_are_compared_seed_by_seed():
  wide = arms(3, 64, spread=1.0)
  together = bootstrap.over_seeds(wide + 0.1, wide, paired=True)
  assert together.low == pytest.approx(0.1) == together.high
  apart = bootstrap.over_seeds(wide + 0.1, wide)
  assert apart.low < 0 < apart.high


def stored(folder, name, seed, value):
  values = {'forward': {'digit read': [value, 1.0], 'bounce': [value, 0.5]}}
  path = ablation.path_of(folder, name, seed)
  path.write_text(json.dumps({'key': {'model': 'm'}, 'values': values}))


def test_claims_are_made_of_what_is_there(tmp_path):
  for seed in range(3):
    stored(tmp_path, 'one', seed, 1.0)
    stored(tmp_path, 'two', seed, 0.0)
  claims = {
    'better': ('one', 'forward', 'two', 'forward'),
    'later': ('one', 'forward', 'three', 'forward'),
  }
  numbers = ablation.read(tmp_path, ['one', 'two', 'three'], range(3))
  (tmp_path / 'odd-0.json').write_text('{"values": {"x": 5}}')
  with pytest.raises(UserError, match='5 stands in it'):
    ablation.read(tmp_path, ['odd'], range(1))
  arms = {name: [name] for name in ('one', 'two', 'three')}
  text = ablation.report(claims, arms, numbers)
  assert '- later: *not run*.' in text
  assert '| better (3 seeds) | 50.0' in text
  assert ablation.is_done(tmp_path, 'one', 0, {'model': 'm'})
  assert not ablation.is_done(tmp_path, 'three', 0, {})
  with pytest.raises(UserError, match='another model'):
    ablation.is_done(tmp_path, 'one', 0, {'model': 'other'})


@pytest.fixture
def call(tmp_path):
  def run(*more, config=ROOT / 'configs' / 'ablations.py'):
    return cli.main(
      [
        'ablate',
        f'--config={config}:test',
        f'--model={random_model()}',
        f'--out={tmp_path / "out"}',
        f'--results={tmp_path / "results"}',
        *more,
      ]
    )

  return run


def test_every_training_is_an_ordinary_command(call, tmp_path, capsys):
  assert call('--dry_run') == 0
  lines = capsys.readouterr().out.splitlines()
  trainings = [line for line in lines if line.startswith('unitemp train')]
  # Two arms, two seeds, two stages.
  assert len(trainings) == len(set(trainings)) == 8
  assert any('init,forward,0,test' in line for line in trainings)
  assert not (tmp_path / 'out').exists()


def check_kept(call, arms, tmp_path, monkeypatch, **more):
  """Runs one seed, and again with nothing left to train; returns the values."""
  assert call('--config.seeds=(0,)', **more) == 0
  results = tmp_path / 'results'
  names = {path.name for path in results.glob('*.json')}
  assert names == {f'{name}-0.json' for name in (*arms, 'beside')}
  assert (
    'real clips - control: swapped block' in (results / 'README.md').read_text()
  )
  monkeypatch.setattr(ablate.train, 'main', None)
  assert call('--config.seeds=(0,)', **more) == 0
  values = json.loads((results / 'backward_p0-0.json').read_text())['values']
  return values['backward, last frame given, P = 0']


ONE_ARM = """
from configs import ablations

def get_config(arg=None):
  config = ablations.get_config(arg)
  if arg == 'test':
    del config.measures['forward']
    # Without the teacher, which two more programs would sample.
    config.measures['beside'][3] = ('real clips', 'swapped block')
  return config
"""


@pytest.mark.slow
def test_an_arm_is_trained_measured_and_kept(call, tmp_path, monkeypatch):
  config = tmp_path / 'one_arm.py'
  config.write_text(ONE_ARM)
  own = check_kept(call, ['backward_p0'], tmp_path, monkeypatch, config=config)
  assert len(own['digit read']) == 3 and 'BFR at 8, lag' in own


def test_what_is_trained_elsewhere_is_measured(call, tmp_path, monkeypatch):
  steps = iter([6, 3, *[6] * 9])

  def copied(argv):
    words = dict(word.split('=', 1) for word in argv)
    path = Path(words['--workdir']) / 'weights' / 'student.safetensors'
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = safetensors.load_file(random_model() / path.name)
    about = {'unitemp': json.dumps({'steps': next(steps)})}
    safetensors.save_file(tree, path, about)
    return 0

  def encoded(argv):
    words = dict(word.split('=', 1) for word in argv)
    files.write_json(Path(words['--config.latents.dir']) / 'latents.json', {})

  def measured(bench, shown):
    return {name: {'digit read': [1.0] * 3} for name in shown}

  monkeypatch.setattr(ablate.encode, 'main', encoded)
  monkeypatch.setattr(ablate.train, 'main', copied)
  monkeypatch.setattr(ablate.ablation, 'measure', measured)
  # The second training is stopped early, and continued by the next call.
  assert call('--config.seeds=(0,)') == 0
  # Till then only what needs no student is measured.
  there = [path.name for path in (tmp_path / 'results').glob('*.json')]
  assert there == ['beside-0.json']
  own = check_kept(call, ['forward', 'backward_p0'], tmp_path, monkeypatch)
  assert own == {'digit read': [1.0] * 3}
