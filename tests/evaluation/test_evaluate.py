import json

import numpy as np
import pytest
from model_fixture import random_model, write_random_model
from perfect_student import perfect_bench
from PIL import Image

from unitemp_jax import orders
from unitemp_jax.cli import evaluate
from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import ResultTable, Section, result
from unitemp_jax.evaluation.suites import bench as suite_bench
from unitemp_jax.evaluation.suites import flicker, long, power, runner
from unitemp_jax.evaluation.suites.bench import Bench, Settings

N = 4
ORDERS = tuple(orders.ORDERS)
SIDES = tuple(name for name in ORDERS if name.startswith('inbetween'))
# A loop has no block boundary where the others have theirs.
LINES = tuple(name for name in ORDERS if name != 'loop')
LAST = 'backward, last frame given'
VOID = 'backward from nothing, P = 0 (void)'
HYBRID = 'backward, first block alone anchored'
BACK = (LAST, f'{LAST}, start off', f'{LAST}, P = 0', HYBRID, VOID)
VARIANTS = (*LINES, *BACK)
TRUE = ('true latents', 'true latents, P = 0')
BESIDE = ('real clips', 'VAE reconstruction', 'teacher, 50 steps')

# Those of workflows have tests of their own, with a student that is perfect.
WORKFLOWS = {
  *('loops', 'transitions', 'keyframes', 'extend', 'long', 'schedule'),
  'power',
}
SUITES = [name for name in runner.SUITES if name not in WORKFLOWS]

# Metric -> groups that must be there: what the README shows.
WANTED = {
  'VAE PSNR': (
    'whole clip',
    'first third',
    'middle third',
    'last third',
    'last third - first third',
  ),
  'digit read': (*BESIDE, *VARIANTS, 'loop', 'swapped block'),
  'colour read': (*BESIDE, *VARIANTS, 'loop', 'swapped block'),
  'called forward': (*BESIDE, *ORDERS, *BACK[2:]),
  'distance from an opening': (*BACK[2:], LAST, 'backward'),
  'motion of the last third': (*BESIDE, *ORDERS, *VARIANTS, *TRUE),
  'motion to real': (*BESIDE, *ORDERS, 'cross-fade', 'nearest frame'),
  **dict.fromkeys(power.KEPT, (*BESIDE, *ORDERS)),
  'digit read, difference': (
    *(f'{name} - teacher, 50 steps' for name in ORDERS),
    'backward - forward',
  ),
  'called forward, difference': ('backward - forward',),
  'digit read, stream': (*VARIANTS, *TRUE),
  'colour read, lag': VARIANTS,
  'BFR at 8, joint': ('real clips', 'swapped block', *TRUE, *VARIANTS),
  'wide4 at 20, joint': VARIANTS,
  'latent step at 20': ('real clips', 'swapped block', *VARIANTS),
  'BFR at 8, stream': VARIANTS,
  'BFR at 20, lag': (*TRUE, *VARIANTS),
  'excess BFR at 20, stream': VARIANTS,
  'excess latent step at 8': VARIANTS,
  'BFR at 20, ratio': ('P = 3, lag / P = 3, joint',),
  'BFR at 44 of 57, lag': ('real clips', LAST, f'{LAST}, P = 0'),
  'BFR at 32 of 57, ratio': ('P = 3, lag / P = 3, joint',),
  'window BFR at 32, raw': ('joint', *(f'P = {p}' for p in range(7))),
  'window BFR at 32, windowed': ('joint', *(f'P = {p}' for p in range(7))),
  'window BFR at 20, raw': ('P = 5', 'P = 6 (all there is)'),
  'window PSNR at 32, raw': ('P = 0', 'P = 6'),
  'interior PSNR': (*SIDES, 'cross-fade', 'nearest frame'),
  'interior PSNR, difference': tuple(f'{s} - cross-fade' for s in SIDES),
  'PSNR at the first frame': SIDES,
  'PSNR at the last frame': SIDES,
  'join jump, first': (*SIDES, 'real clips'),
  'join jump, last': (*SIDES, 'real clips'),
  'loop closure': ('loop', 'forward', 'real clips'),
  'velocity closure': ('loop', 'forward', 'real clips'),
  'BFR of the seam': ('loop', 'forward', 'real clips'),
}


def missing(table):
  there = {(row.metric, row.group) for row in table.rows}
  return [
    (metric, group)
    for metric, groups in WANTED.items()
    for group in groups
    if (metric, group) not in there
  ]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The folder of one evaluation of a perfect student, and what it said."""
  out = tmp_path_factory.mktemp('evaluation')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner.Bench, 'load', lambda *_: perfect_bench(N))
    lines = run(out)
  return out, lines


def run(out, names=SUITES, batch_size=N):
  """Runs suites on N clips; returns the lines of progress."""
  lines = []
  settings = Settings(num_clips=N, batch_size=batch_size, seed=0)
  runner.run(
    runner.Measured(random_model(), settings), out, names, lines.append
  )
  return lines


def arguments(out, *more):
  return [
    f'--model={random_model()}',
    f'--num_clips={N}',
    f'--only={",".join(SUITES)}',
    f'--out={out}',
    *more,
  ]


def test_every_number_is_there_once_with_interval_and_how(whole):
  table = ResultTable.from_json(whole[0] / results.METRICS)
  assert missing(table) == []
  names = [(row.metric, row.group) for row in table.rows]
  assert len(names) == len(set(names))
  for row in table.rows:
    assert row.n == N and row.low <= row.high
    assert 'seed 0, model' in row.how
  # Negative control: one group less is found.
  less = ResultTable(tuple(r for r in table.rows if r.group != 'loop'))
  assert ('loop closure', 'loop') in missing(less)


def test_the_tables_name_every_metric(whole):
  text = (whole[0] / results.TABLES).read_text()
  assert all(metric in text for metric in WANTED)
  assert 'vae ...' in whole[1]


def test_a_second_run_computes_nothing_and_gives_the_same(whole, capsys):
  out = whole[0]
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  # A run that computed anything would need the bench, which is taken away.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, 'Bench', None)
    assert evaluate.main(arguments(out)) == 0
  assert {path.name: path.read_bytes() for path in out.iterdir()} == before
  assert capsys.readouterr().out.rstrip().endswith(str(out))


def test_only_the_missing_suite_is_run_again(whole, tmp_path, monkeypatch):
  for path in whole[0].iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  old = (tmp_path / 'vae.json').read_text()
  (tmp_path / 'vae.json').unlink()
  monkeypatch.setattr(runner.Bench, 'load', lambda *_: perfect_bench(N))
  lines = run(tmp_path)
  assert [line for line in lines if line.endswith('...')] == ['vae ...']
  assert (tmp_path / 'vae.json').read_text() == old


def test_a_perfect_student_flickers_only_where_the_past_is_missing(whole):
  table = ResultTable.from_json(whole[0] / results.METRICS)
  found = {(row.metric, row.group): row.value for row in table.rows}
  none = f'{LAST}, P = 0'
  for mode in ('joint', 'stream', 'lag'):
    assert found[f'excess BFR at 20, {mode}', LAST] == pytest.approx(0)
  assert found['excess BFR at 20, lag', none] == pytest.approx(0)
  assert found['BFR at 20, ratio', 'P = 3, lag / P = 3, joint'] == 1
  # The controls: what is shown without a past, and a foreign block.
  assert found['excess BFR at 20, stream', none] > 0.5
  for floor in ('excess', 'excess over the teacher'):
    assert found[f'{floor} BFR at 8, joint', flicker.SWAPPED] > 0.5
  assert Image.open(whole[0] / flicker.PICTURE).size == (960, 520)


@pytest.mark.slow
def test_a_real_model_runs_every_suite(tmp_path, monkeypatch):
  monkeypatch.setattr(long, 'TIMES', 3)
  names = [name for name in runner.SUITES if name != 'power']
  run(tmp_path, names)
  table = ResultTable.from_json(tmp_path / results.METRICS)
  assert missing(table) == []
  assert {
    row.metric.split(':')[0] for row in table.rows if ':' in row.metric
  } == {
    *('loops', 'transition', 'foreign transition', 'keyframes', 'regenerate'),
    *('extend', 'long', 'schedule'),
  }


@pytest.mark.parametrize(
  ('more', 'expected'),
  [
    (['--num_clips=0'], 'num_clips'),
    (['--batch_size=0'], 'batch_size'),
    (['--only=vae,nothing'], 'nothing'),
    (['--model=nowhere'], 'not a model folder'),
  ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
  more, expected, tmp_path, capsys
):
  out = tmp_path / 'out'
  assert cli.main(['evaluate', *arguments(out), *more]) == 2
  error = capsys.readouterr().err
  notes = error.count('is there again')
  assert error.count('\n') == 1 + notes and expected in error
  assert not out.exists()


def test_numbers_of_another_model_are_never_mixed_in(whole, tmp_path):
  out = whole[0]
  other = write_random_model(tmp_path / 'other', seed=1)
  before = (out / results.METRICS).read_bytes()
  for more in ([f'--model={other}'], ['--num_clips=5'], ['--seed=1']):
    with pytest.raises(UserError, match='another --out'):
      evaluate.main([*arguments(out), *more])
  assert (out / results.METRICS).read_bytes() == before


def test_an_edited_table_stays(whole, tmp_path):
  for path in whole[0].iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, 'Bench', None)
    (tmp_path / results.TABLES).write_text('mine')
    with pytest.raises(UserError, match='was changed since'):
      evaluate.main(arguments(tmp_path))
    assert (tmp_path / results.TABLES).read_text() == 'mine'
    (tmp_path / results.TABLES).unlink()
    assert evaluate.main(arguments(tmp_path)) == 0


def test_a_damaged_suite_and_a_file_as_out_are_refused(tmp_path):
  (tmp_path / 'vae.json').write_text('{')
  with pytest.raises(UserError, match='finished suite'):
    evaluate.main(arguments(tmp_path))
  with pytest.raises(UserError, match='is a file'):
    evaluate.main(arguments(tmp_path / 'vae.json'))


def test_a_teacher_may_come_from_elsewhere(tmp_path, capsys):
  folder = write_random_model(tmp_path / 'model')
  teacher = tmp_path / 'teacher.safetensors'
  (folder / teacher.name).rename(teacher)
  command = [f'--model={folder}', f'--out={tmp_path / "out"}', '--dry_run']
  with pytest.raises(UserError, match='give the teacher of the model'):
    evaluate.main(command)
  assert evaluate.main([*command, '--only=vae,power,flicker']) == 0
  assert evaluate.main([*command, f'--teacher={teacher}']) == 0
  assert 'teacher: to be measured' in capsys.readouterr().out


def test_dry_run_writes_nothing(tmp_path, capsys):
  out = tmp_path / 'out'
  assert evaluate.main(arguments(out, '--dry_run', '--only=loop')) == 0
  assert 'loop: to be measured' in capsys.readouterr().out
  assert not out.exists()


def test_batches_are_equal_and_what_was_filled_up_is_cut(capsys):
  sizes = []

  def double(x):
    sizes.append(len(x))
    return 2 * x, -x

  values = np.arange(7)
  twice, minus = suite_bench.batched(double, 3, values, name='double')
  np.testing.assert_array_equal(twice, 2 * values)
  np.testing.assert_array_equal(minus, -values)
  assert sizes == [3, 3, 3]
  assert 'double: batch 3/3' in capsys.readouterr().out


@pytest.mark.slow
def test_a_clip_is_the_same_in_any_batch():
  made = [
    Bench.load(random_model(), Settings(n, size, 5)).made('backward').latents
    for n, size in ((3, 3), (2, 1))
  ]
  np.testing.assert_allclose(made[0][:2], made[1], atol=1e-4)
  # Negative control: two clips differ.
  assert np.abs(made[0][0] - made[0][1]).max() > 0.1


def test_thirds_cover_every_frame_once():
  frames = [f for part in suite_bench.thirds(33) for f in range(33)[part]]
  assert frames == list(range(33))


def test_a_repeated_row_is_kept_once():
  row = result('a', 'b', Interval(0.5, 0.4, 0.6, 3), unit='%', how='so')
  sections = [Section('one', (row,)), Section('two', (row, row))]
  assert results.join(sections).rows == (row,)
  assert results.to_markdown(sections[:1]).startswith('## one\n')


def test_suites_go_by_their_former_names(tmp_path, capsys):
  out = tmp_path / 'out'
  assert evaluate.main(arguments(out, '--only=variety', '--dry_run')) == 0
  assert 'diversity: to be measured' in capsys.readouterr().out
  # What an earlier version measured is found, under its names of then.
  key = {'model': 'm', 'classifiers': 'c', 'num_clips': 8}
  former = {'model': 'm', 'judges': 'c', 'num_clips': 8}
  stored = {'key': former, 'sections': [{'title': 'T', 'rows': []}]}
  (tmp_path / 'variety.json').write_text(json.dumps(stored))
  assert list(runner.finished(tmp_path, key)) == ['diversity']
  # Negative control: other classifiers are others under any name.
  with pytest.raises(UserError, match='another classifiers'):
    runner.finished(tmp_path, {**key, 'classifiers': 'd'})
