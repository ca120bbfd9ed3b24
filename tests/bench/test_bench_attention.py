"""The search for tiles times what there is and writes what it finds."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.bench import attention, runner
from unitemp_jax.bench.measure import CallShape, Context
from unitemp_jax.cli import bench as cli
from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import tiles
from unitemp_jax.models.attention.tiles import Tiles

SMALL = CallShape(queries=64, keys=256, heads=2, head_dim=32, frames=0)


def context(call=SMALL, lines=None):
  report = (lambda line: None) if lines is None else lines.append
  return Context(random_model(), 2, 60, report, call)


def fake_clock(monkeypatch, seconds):
  """Functions are as fast as their names say."""

  def in_turns(functions, repeats):
    return {name: np.full(repeats, seconds(name)) for name in functions}

  monkeypatch.setattr(attention.measure, 'in_turns', in_turns)


def test_on_a_cpu_the_command_finds_how_many_logits(tmp_path, monkeypatch):
  monkeypatch.setattr(attention, 'LOGITS', (2**13, 2**14))
  out = tmp_path / 'out'
  shape = ['--queries=64', '--keys=256', '--heads=2', '--head_dim=32']
  assert cli.main(['attention', f'--out={out}', '--repeats=2', *shape]) == 0
  stored = json.loads((out / runner.RESULTS).read_text())
  found = stored['benchmarks']['attention']
  assert len(found['series']) == 3
  assert found['files'] == [attention.TILES]
  text = (out / runner.TABLES).read_text()
  assert 'faster than xla by' in text and 'GFLOP/s' in text
  # The package reads what was written, and takes it on this hardware.
  monkeypatch.setenv(tiles.ENVIRONMENT, str(out / attention.TILES))
  assert tiles.lookup('cpu', 64, 256, False).xla_logits in attention.LOGITS
  monkeypatch.delenv(tiles.ENVIRONMENT)
  assert tiles.lookup('cpu', 64, 256, False) == Tiles()


def test_the_fastest_wins(monkeypatch):
  """Whichever it is: a control for each."""
  call = attention.make_call(SMALL, jnp.float32)
  monkeypatch.setattr(attention, 'LOGITS', (2**20, 2**21))
  for fast, logits in ((str(n), n) for n in attention.LOGITS):
    fake_clock(monkeypatch, lambda name, fast=fast: 1 + (fast not in name))
    outcome = attention.search(context(), call, 'xla')
    table = json.loads(outcome.files[attention.TILES])
    assert table['entries'][0]['tiles']['xla_logits'] == logits
    ratios = {
      row.group: row.value
      for row in outcome.sections[0].rows
      if 'faster' in row.metric
    }
    assert ratios[f'{fast} logits, forward'] == pytest.approx(2)


def test_what_does_not_fit_is_left_out(monkeypatch):
  """Splash in interpret mode; the sizes of the first stage stay."""
  frames = CallShape(queries=256, keys=256, heads=1, head_dim=32, frames=2)
  call = attention.make_call(frames, jnp.float32)
  bad, good = {'block_kv': 256}, {'block_q': 64, 'block_kv': 128}
  backward = {'block_q_dkv': 128, 'block_kv_dkv': 128}
  monkeypatch.setattr(
    attention,
    'stages',
    lambda backend, unit: [
      (False, {'bad': bad, 'good': good}),
      (True, {'back': backward}),
    ],
  )
  real = attention.FORMS['splash']

  def form(q, k, v, length, mask, sizes):
    if sizes.block_kv == 256:
      raise ValueError('no memory\nfor that')
    return real(q, k, v, length, mask, sizes)

  monkeypatch.setitem(attention.FORMS, 'splash', form)
  fake_clock(monkeypatch, lambda name: 1.0)
  lines = []
  outcome = attention.search(context(lines=lines), call, 'splash')
  entry = json.loads(outcome.files[attention.TILES])['entries'][0]
  assert entry['masked'] and entry['queries'] == 128
  assert entry['tiles']['block_q'] == 64
  assert entry['tiles']['block_kv_dkv'] == 128
  assert any('bad: left out (no memory)' in line for line in lines)
  monkeypatch.setattr(
    attention, 'stages', lambda backend, unit: [(False, {'bad': bad})]
  )
  with pytest.raises(UserError, match='takes none of 1 sizes'):
    attention.search(context(), call, 'splash')


def test_tiles_are_sizes_that_kernels_take():
  for unit in ((4680, 32_760), (1560, 1560)):
    for _, choices in attention.stages('splash', unit):
      assert len(choices) > 8
      for sizes in choices.values():
        Tiles(**sizes)  # refuses what is no multiple
  _, forward = attention.stages('splash', (1560, 1560))[0]
  assert any(sizes['block_kv'] == 1664 for sizes in forward.values())
  with pytest.raises(ValueError, match='block_kv is 100'):
    Tiles(block_kv=100)


def test_bad_sizes_are_refused(tmp_path):
  out = f'--out={tmp_path / "out"}'
  with pytest.raises(UserError, match='--keys: 0 is too few'):
    cli.main(['attention', out, '--keys=0'])
  with pytest.raises(UserError, match='--frames=7 does not divide'):
    cli.main(['attention', out, '--frames=7', '--queries=64', '--keys=64'])
  assert not (tmp_path / 'out').exists()
