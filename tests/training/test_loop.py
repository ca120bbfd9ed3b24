import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import TOY_RULES, ToyLoader, ToyProgram

from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.training import loop
from unitemp_jax.training.loop import LoopSettings, train
from unitemp_jax.training.metrics import RunLog, open_log
from unitemp_jax.training.program import TrainingStopped

pytestmark = pytest.mark.devices(8)


def run(workdir, program=None, loader=None, mesh=None, **settings):
  return train(
    program or ToyProgram(),
    loader or ToyLoader(),
    LoopSettings(**{'num_steps': 6, 'log_every': 1, **settings}),
    workdir=workdir,
    mesh=make_mesh(mesh or {}),
    rules=TOY_RULES,
  )


def lines_of(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


class BrokenProgram(ToyProgram):
  """Its loss, or only its update, is multiplied in the steps `bad`."""

  def __init__(self, what, bad, factor=np.nan):
    super().__init__()
    for name, (inner, share) in self.steps.items():
      broken = self._break(inner, what, jnp.asarray(bad), factor)
      self.steps[name] = (broken, share)

  def _break(self, inner, what, bad, factor):

    def broken(state, batch, frozen):
      by = jnp.where((state.step + 1 == bad).any(), factor, 1.0)
      new_state, metrics = inner(state, batch, frozen)
      if what != 'parameter':
        metrics = {k: v * by for k, v in metrics.items()}
      if what != 'loss':
        params = jax.tree.map(lambda leaf: leaf * by, new_state.params)
        new_state = new_state.replace(params=params)
      return new_state, metrics

    return broken


@pytest.mark.parametrize('what', ['both', 'parameter'])
def test_nan_stops_and_leaves_the_last_good_checkpoint(tmp_path, what):
  program = BrokenProgram(what, range(4, 99))
  options = {'checkpoint_every': 2, 'max_skipped': 2}
  with pytest.raises(TrainingStopped, match='training stopped'):
    run(tmp_path, program, **options)
  kept = [p.name for p in (tmp_path / 'checkpoints').iterdir()]
  # A skipped step 4 leaves good weights behind; a broken update does not.
  assert sorted(kept) == (['2', '4'] if what == 'both' else ['2'])
  # Nor is a training finished of which no step counts, however short.
  short = BrokenProgram(what, range(1, 99))
  with pytest.raises(TrainingStopped, match='training stopped'):
    run(tmp_path / 'short', short, num_steps=3, max_skipped=5)
  # Control: the same training without the break reaches the end.
  result = run(tmp_path, num_steps=6)
  assert (result.step, result.outcome) == (6, 'finished')


def test_skipped_steps_leave_no_trace_in_the_weights(tmp_path, capsys):
  """Equal to a training that was not updated in those steps."""

  class Idle(ToyProgram):
    def __init__(self):
      super().__init__()
      self.steps['idle'] = (self._idle, 0)

    def step_name(self, step):
      return 'idle' if step + 1 in (3, 4) else super().step_name(step)

    def _idle(self, state, batch, frozen):
      return state, {'critic_loss': jnp.ones(()), 'loss': jnp.ones(())}

  broken = run(tmp_path / 'broken', BrokenProgram('both', [3, 4]))
  idle = run(tmp_path / 'idle', Idle())
  for x, y in zip(
    jax.tree.leaves(broken.state.replace(key=0)),
    jax.tree.leaves(idle.state.replace(key=0)),
    strict=True,
  ):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  lines = lines_of(tmp_path / 'broken')
  assert [line['skipped_steps'] for line in lines] == [0, 0, 1, 2, 2, 2]
  assert 'critic_loss' not in lines[2]  # A NaN would spoil the mean.
  assert 'step 4 skipped, because' in capsys.readouterr().out
  # Control: a step that was not skipped moves the weights.
  whole = run(tmp_path / 'whole')
  kernel = [
    np.asarray(result.state.params['critic']['up']['kernel'])
    for result in (broken, whole)
  ]
  assert np.abs(kernel[0] - kernel[1]).max() > 1e-3


def test_exploding_loss_is_skipped_after_a_resume_as_without_one(tmp_path):
  program = BrokenProgram('loss', [36], factor=100.0)
  whole = run(tmp_path / 'whole', program, max_loss_ratio=30.0, num_steps=37)
  run(tmp_path / 'parts', program, max_loss_ratio=30.0, num_steps=34)
  parts = run(tmp_path / 'parts', program, max_loss_ratio=30.0, num_steps=37)
  for x, y in zip(
    jax.tree.leaves(whole.state.replace(key=0)),
    jax.tree.leaves(parts.state.replace(key=0)),
    strict=True,
  ):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  lines = [lines_of(tmp_path / name) for name in ('whole', 'parts')]
  assert [line['skipped_steps'] for line in lines[0][-3:]] == [0, 1, 1]
  assert lines[1][-1]['skipped_steps'] == 1
  # Control: without the limit the step is taken.
  run(tmp_path / 'off', program, num_steps=37)
  assert lines_of(tmp_path / 'off')[-1]['skipped_steps'] == 0


def test_one_and_eight_devices_agree(tmp_path):
  one = run(tmp_path / 'one')
  eight = run(tmp_path / 'eight', mesh={'data': 2, 'fsdp': 4})
  kernel = eight.state.params['net']['up']['kernel']
  assert kernel.addressable_shards[0].data.shape == (4, 4)
  # Sums over devices are taken in another order: float32 rounding.
  for x, y in zip(
    jax.tree.leaves(one.state.params),
    jax.tree.leaves(eight.state.params),
    strict=True,
  ):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)


def test_eight_devices_accumulating_equal_one_device(tmp_path):
  """Four micro-batches of eight rows, of the same global batch of 32."""
  results = [
    run(
      tmp_path / str(size),
      ToyProgram(accumulate=4),
      ToyLoader(batch_size=32),
      mesh={'data': size // 4 or 1, 'fsdp': min(size, 4)},
      num_steps=4,
    )
    for size in (1, 8)
  ]
  for x, y in zip(
    *[jax.tree.leaves(result.state.params) for result in results], strict=True
  ):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)


def test_a_step_on_a_batch_of_the_host_is_refused(tmp_path, monkeypatch):
  """The control of the guard around every step here (conftest.py)."""
  monkeypatch.setattr(loop, 'put_batch', lambda batch, mesh: batch)
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    run(tmp_path, num_steps=1)


def test_a_few_steps_are_traced(tmp_path, capsys):
  run(tmp_path, num_steps=5, profile_step=3, profile_steps=2)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
  assert 'profile of 2 steps' in capsys.readouterr().out
  run(tmp_path / 'without', num_steps=5)  # Control.
  assert not (tmp_path / 'without' / 'profile').exists()


def test_checkpoint_moves_between_meshes(tmp_path):
  run(tmp_path, num_steps=3)
  result = run(tmp_path, num_steps=6, mesh={'data': 4, 'fsdp': 2})
  whole = run(tmp_path / 'whole')
  np.testing.assert_allclose(
    np.asarray(result.state.ema['net']['up']['kernel']),
    np.asarray(whole.state.ema['net']['up']['kernel']),
    atol=1e-5,
  )


def test_each_kind_of_step_is_compiled_once(tmp_path, capsys):
  result = run(tmp_path, num_steps=9)
  out = capsys.readouterr().out
  assert out.count('compiled both') == out.count('compiled one') == 1
  assert int(result.state.step) == 9


def test_metrics_are_means_over_the_steps_that_reported_them(tmp_path):
  run(tmp_path / 'each', num_steps=8)
  run(tmp_path / 'four', num_steps=8, log_every=4)
  each, four = lines_of(tmp_path / 'each'), lines_of(tmp_path / 'four')
  assert [line['step'] for line in four] == [4, 8]
  critic = [line['critic_loss'] for line in each]
  assert four[1]['critic_loss'] == pytest.approx(np.mean(critic[4:]), rel=1e-6)
  net = [line['net_loss'] for line in each[:4] if 'net_loss' in line]
  assert len(net) == 2
  assert four[0]['net_loss'] == pytest.approx(np.mean(net), rel=1e-6)
  assert four[1]['data_crc'] == each[7]['data_crc'] != each[6]['data_crc']


def test_resume_inside_a_window_keeps_its_sums(tmp_path):
  run(tmp_path / 'whole', num_steps=8, log_every=4, checkpoint_every=3)
  run(tmp_path / 'parts', num_steps=6, log_every=4, checkpoint_every=3)
  # As a kill after step 6 leaves it: the file ran ahead of its checkpoint.
  path = tmp_path / 'parts/metrics.jsonl'
  kept = path.read_text().splitlines(keepends=True)[:1]
  path.write_text(''.join(kept) + '{"step": 7, "junk": 1}\n{"ste')
  state = tmp_path / 'parts/checkpoints'
  (state / '6').rename(tmp_path / 'aside')  # Resume after step 3 of 4.
  run(tmp_path / 'parts', num_steps=8, log_every=4, checkpoint_every=3)
  for one, two in zip(
    lines_of(tmp_path / 'whole'), lines_of(tmp_path / 'parts'), strict=True
  ):
    for name in ('step', 'critic_loss', 'net_loss', 'data_crc'):
      assert one[name] == two[name]


def test_samples_appear_complete_and_once(tmp_path):
  seen = []

  def sample(state, folder):
    seen.append(int(state.step))
    assert not (tmp_path / f'samples/{int(state.step):08}').exists()
    (folder / 'clip.txt').write_text(str(int(state.step)))

  program = ToyProgram(sample=sample)
  run(tmp_path, program, sample_every=2, num_steps=5)
  assert seen == [2, 4]
  names = sorted(p.name for p in (tmp_path / 'samples').iterdir())
  assert names == ['00000002', '00000004']
  assert (tmp_path / 'samples/00000004/clip.txt').read_text() == '4'


def test_checkpoints_by_the_clock(tmp_path):
  run(
    tmp_path / 'late', checkpoint_minutes=1e-9, num_steps=3, keep_checkpoints=9
  )
  run(
    tmp_path / 'end', checkpoint_minutes=60.0, num_steps=3, keep_checkpoints=9
  )
  counts = [
    len(list((tmp_path / name / 'checkpoints').iterdir()))
    for name in ('late', 'end')
  ]
  assert counts == [3, 1]


def test_truncation_drops_later_and_broken_lines(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  open_log(path, 3).close()  # No file, no error.
  path.write_text('{"step": 2}\n{"step": 3}\n{"step": 4}\n{"st')
  open_log(path, 3).close()
  assert path.read_text() == '{"step": 2}\n{"step": 3}\n'
  assert list(tmp_path.iterdir()) == [path]


def test_metrics_are_fetched_one_step_late(tmp_path):
  log = RunLog(tmp_path, 0, {}, LoopSettings(num_steps=9, log_every=1))
  log.push(1, {'loss': jnp.ones(())})
  assert (tmp_path / 'metrics.jsonl').read_text() == ''
  log.push(2, {'loss': jnp.ones(())})
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert [json.loads(line)['step'] for line in text.splitlines()] == [1]
  log.close()
