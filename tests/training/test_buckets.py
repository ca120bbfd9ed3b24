"""One training over clips of several shapes."""

import json
from pathlib import Path

import ended
import kill_harness
import numpy as np
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.data import loader
from unitemp_jax.training.build import build_loader
from unitemp_jax.training.config import load_config

ROOT = Path(__file__).parents[2]
SHAPES = {(9, 2, 2): 24, (9, 2, 4): 8, (6, 2, 2): 8}  # clips of each


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  folder = tmp_path_factory.mktemp('buckets')
  for shape, count in SHAPES.items():
    ended.write_latents(folder / 'x'.join(map(str, shape)), shape, count)
  return ','.join(str(path) for path in sorted(folder.iterdir())[::-1])


def command(folders, workdir, steps=12):
  return [
    'train',
    f'--config={ROOT}/configs/tiny_teacher.py:test',
    f'--workdir={workdir}',
    f'--config.latents.dir={folders}',
    '--config.log_every=1',
    '--config.checkpoint_every=2',
    f'--config.num_steps={steps}',
  ]


@pytest.mark.slow
def test_every_shape_is_trained_on_and_an_end_leaves_no_trace(
  folders, tmp_path, capsys
):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  ended.run(command(folders, whole))
  assert capsys.readouterr().out.count('compiled step in') == len(SHAPES)
  for steps in (4, 5, None):
    ended.run(command(folders, parts), steps)
  assert 'resuming after step' in capsys.readouterr().out
  assert kill_harness.differences(whole, parts) == []
  lines = (whole / 'metrics.jsonl').read_text().splitlines()
  assert all(np.isfinite(json.loads(line)['loss']) for line in lines)
  # The control: one shape alone is another training.
  one = tmp_path / 'one'
  ended.run(command(folders.split(',')[0], one, steps=2))
  assert 'data_crc at 2' in kill_harness.differences(whole, one)


def test_shapes_come_as_often_as_they_have_clips(folders):
  config = load_config(f'{ROOT}/configs/tiny_teacher.py:test')
  config.latents.dir = folders
  read = build_loader(config, range(8))
  state, shapes = read.get_state(), []
  for _ in range(300):
    shapes.append(next(read)['latents'].shape[1:4])
  for shape, count in SHAPES.items():
    share = count / sum(SHAPES.values())
    assert abs(shapes.count(shape) / 300 - share) < 4 * (share / 300) ** 0.5
  read.set_state(state)
  assert [next(read)['latents'].shape[1:4] for _ in range(9)] == shapes[:9]


def test_hosts_take_rows_of_the_same_batches():
  sources = [[{'x': i} for i in range(first, first + 12)] for first in (0, 50)]

  def read(rows):
    made = [
      loader.make_loader(one, batch_size=4, seed=1, rows=rows)
      for one in sources
    ]
    mixed = loader.Buckets(made, [12, 12], seed=1)
    return np.stack([next(mixed)['x'] for _ in range(8)])

  whole = read(range(4))
  assert {*(whole[:, 0] >= 50)} == {True, False}
  np.testing.assert_array_equal(read([1, 3]), whole[:, [1, 3]])


def test_encode_wants_to_know_which(folders, capsys):
  config = f'--config={ROOT}/configs/tiny_teacher.py:test'
  assert cli.main(['encode', config, f'--config.latents.dir={folders}']) == 2
  assert 'say with --out' in capsys.readouterr().err
