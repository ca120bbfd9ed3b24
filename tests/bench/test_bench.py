"""Benchmarks find what is constant, what grows, and what is the same."""

import json
import pathlib
import time
import types

import ended
import jax.numpy as jnp
import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.bench import baselines, long, measure, reading, runner
from unitemp_jax.bench.measure import Context
from unitemp_jax.cli import bench as cli
from unitemp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(long, 'EARLY', 2)
  monkeypatch.setattr(long, 'SPAN', 20)
  monkeypatch.setattr(baselines, 'CONTEXT_BLOCKS', (1,))


class Streaming:
  """A pipeline and a clock: block k takes so long, and keeps so much."""

  def __init__(self, seconds, kept=0):
    self.seconds, self.kept = seconds, kept
    self.arrays, self.now = [], 0.0

  def perf_counter(self):
    return self.now

  def run(self, request):
    self.arrays = []
    blocks = int((~request.plan.conditioning & (request.plan.count > 0)).sum())
    for k in range(blocks):
      self.now += self.seconds(k)
      if self.kept:
        self.arrays.append(jnp.zeros(self.kept))
      yield types.SimpleNamespace(first=12 * k)

  def decode_chunk(self, latents, memory):
    """A latent takes a millisecond."""
    self.now += 1e-3 * latents.shape[1]
    frames = 4 * latents.shape[1] - (3 if memory is None else 0)
    return np.zeros((1, frames, 1, 1, 3), np.uint8), True


@pytest.fixture
def stream(monkeypatch):
  def run(pipeline, blocks=60):
    monkeypatch.setattr(long, 'time', pipeline)
    context = Context(random_model(), 3, blocks, lambda line: None)
    # A cached property, so that the fake stands in its place.
    context.__dict__['pipeline'] = pipeline
    return long.run(context)

  return run


def test_a_constant_rollout_is_found_constant(stream):
  outcome = stream(Streaming(lambda k: 0.5 + 0.01 * (k % 3)))
  assert len(outcome.claims) == 4
  assert all(claim.holds for claim in outcome.claims)
  rows = {(row.metric, row.group): row for row in outcome.sections[0].rows}
  ratio = rows['late over early', 'forward']
  assert ratio.value == pytest.approx(1, abs=0.01)
  assert rows['late block', 'backward'].value == pytest.approx(510, abs=2)
  assert ('late over early', long.WHOLE) in rows
  assert len(outcome.series['forward: seconds per block']) == 60
  # 3, 6 and 9 latents a block; the first one in time needs no more than its 3.
  for mode, wanted in (('joint', 3), ('stream', 5.85), ('lag', 8.7)):
    found = rows['decoding a block', mode].value
    assert found == pytest.approx(wanted), mode


def test_growth_is_found(stream):
  """Negative control: time and memory that grow break the claims."""
  outcome = stream(Streaming(lambda k: 1 + k / 100, kept=1000))
  assert not any(claim.holds for claim in outcome.claims)


def test_too_short_a_rollout_is_refused(stream):
  with pytest.raises(UserError, match='use 42 or more'):
    stream(Streaming(lambda k: 0), blocks=41)


def test_times_are_taken_in_turns():
  order = []
  seconds = measure.in_turns(
    {'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 3
  )
  assert order == ['a', 'b'] * 5
  assert seconds['a'].shape == (3,) and (seconds['b'] >= 0).all()
  slow = measure.in_turns({'a': lambda: time.sleep(0.01)}, 2)
  assert slow['a'].min() >= 0.01


def test_live_arrays_are_counted():
  before = measure.live_mebibytes()
  kept = jnp.zeros(2**18)
  assert measure.live_mebibytes() - before == pytest.approx(1)
  del kept
  assert measure.live_mebibytes() == pytest.approx(before)
  assert measure.peak_host_mebibytes() > 10
  assert measure.hardware()['platform'] == 'cpu'


def test_the_baselines_make_the_same_block(tmp_path):
  context = Context(random_model(), 2, 60, lambda line: None)
  outcomes = runner.run(context, ['cache'], tmp_path / 'out')
  rows = {
    (row.metric, row.group): row.value
    for row in outcomes['cache'].sections[0].rows
  }
  group = f'{baselines.RECOMPUTE}, 3 latents visible'
  assert rows['difference of the result', group] < 1e-4
  # Negative control: without the mask the result is another one.
  made = {
    name: np.asarray(one())
    for name, one in baselines._functions(context, 1).items()
  }
  apart = np.abs(made[baselines.UNMASKED] - made[baselines.CACHED]).max()
  assert apart > 1e-3
  stored = json.loads((tmp_path / 'out' / runner.RESULTS).read_text())
  assert stored['about']['repeats'] == 2
  series = stored['benchmarks']['cache']['series']
  assert len(series[group]) == 2
  text = (tmp_path / 'out' / runner.TABLES).read_text()
  assert 'Cached against recomputed' in text and 'cores of' in text


def test_a_negative_prompt_is_timed_in_turns(monkeypatch):
  """A made-up clock: a guided block takes three times as long."""
  clock = types.SimpleNamespace(now=0.0)
  made = []

  def rows(request):
    made.append(request.nag)
    for _ in range(int((~request.plan.conditioning).sum())):
      clock.now += 3.0 if request.nag else 1.0
      yield types.SimpleNamespace(latents=np.zeros(1))

  monkeypatch.setattr(measure.time, 'perf_counter', lambda: clock.now)
  context = Context(random_model(), 3, 60, lambda line: None)
  pipeline = types.SimpleNamespace(rows=rows)
  monkeypatch.setattr(Context, 'pipeline', pipeline)
  (section,) = long.guided(context).sections
  found = {(row.metric, row.group): row.value for row in section.rows}
  assert found['times as long', 'negative prompt'] == pytest.approx(3)
  assert found['times as long', 'without'] == 1
  assert found['time of a block', 'without'] == pytest.approx(1000)
  assert [nag is not None for nag in made] == [False, True] * 5


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
  out = f'--out={tmp_path / "out"}'
  with pytest.raises(UserError, match="no benchmark 'lung'"):
    cli.main(['lung', out])
  with pytest.raises(UserError, match='use 2 or more'):
    cli.main([out, '--repeats=1'])
  with pytest.raises(UserError, match='not a model folder'):
    cli.main([out, f'--model={tmp_path}'])
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='is a file'):
    cli.main(['cache', f'--out={tmp_path / "file"}'])
  assert cli.main(['cache', out, '--dry_run']) == 0
  assert 'cache, 5 repeats' in capsys.readouterr().out
  assert not (tmp_path / 'out').exists()


def test_reading_is_compared_with_what_a_step_takes(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, '_SECONDS', 0.05)
  ended.write_latents(tmp_path / 'latents', (9, 2, 2), 32)
  words = ['reading', f'--config={ROOT}/configs/tiny_teacher.py:test']
  words += [f'--config.latents.dir={tmp_path / "latents"}', '--repeats=2']

  def run(name, speed):
    monkeypatch.setattr(reading.encode, 'speed', lambda: speed)
    code = cli.main([*words, f'--out={tmp_path / name}'])
    return code, (tmp_path / name / runner.TABLES).read_text()

  code, text = run('slow', 1e6)
  assert code == 0
  assert 'clips read' in text and 'holds' in text
  code, text = run('fast', 1e18)  # The control.
  assert code == 1
  assert 'DOES NOT HOLD' in text
  with pytest.raises(UserError, match='needs --config'):
    cli.main(['reading', f'--out={tmp_path / "none"}'])
