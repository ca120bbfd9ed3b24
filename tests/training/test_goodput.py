import json

import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.training.metrics import (
  Goodput,
  describe,
  open_log,
  read_lines,
  summarize,
)


class Clock:
  """Goes on only when told to."""

  def __init__(self, now):
    self.now = now

  def __call__(self):
    return self.now


def run(path, start, first, last, *, down=0.0):
  """Steps of 2 s, half a second of it data; a line every 10 steps."""
  clock = Clock(start + down)
  goodput = Goodput(path, first_step=first, clock=clock, started=clock.now)
  clock.now += 7.0
  goodput.initialised()
  for step in range(first + 1, last + 1):
    with goodput.measure('data'):
      clock.now += 0.5
    clock.now += 1.5
    if step % 10 == 0:
      goodput.write(step)
  goodput.close()
  return clock.now


def test_every_second_is_accounted_for_once(tmp_path):
  path = tmp_path / 'goodput.jsonl'
  end = run(path, 1000.0, 0, 40)
  total = summarize(read_lines(path))
  assert total['initialise'] == pytest.approx(7.0)
  assert total['data'] == pytest.approx(20.0)
  assert total['step'] == pytest.approx(60.0)
  assert total['lost'] == 0.0
  assert total['goodput'] == pytest.approx(60.0 / (end - 1000.0))


def test_restarts_cost_their_pause_and_the_steps_done_again(tmp_path):
  path = tmp_path / 'goodput.jsonl'
  end = run(path, 1000.0, 0, 40)
  # Resumed from step 20, and again from step 20: 20 and 10 steps for nothing.
  end = run(path, end, 20, 30, down=100.0)
  end = run(path, end, 20, 40, down=50.0)
  total = summarize(read_lines(path))
  assert total['lost'] == pytest.approx((20 + 10) * 1.5)
  assert total['down'] == pytest.approx(150.0)
  assert total['step'] == pytest.approx(40 * 1.5)
  parts = sum(v for k, v in total.items() if k != 'goodput')
  assert parts == pytest.approx(end - 1000.0)
  assert [x['restart'] for x in read_lines(path) if 'restart' in x] == [1, 2]
  assert 'down 150.0 s' in describe(total)
  # Control: a restart that lost nothing is told apart.
  other = tmp_path / 'other.jsonl'
  run(other, run(other, 0.0, 0, 40), 40, 60)
  assert summarize(read_lines(other))['lost'] == 0.0


def test_time_inside_another_kind_counts_once(tmp_path):
  clock = Clock(0.0)
  goodput = Goodput(tmp_path / 'g', first_step=0, clock=clock, started=0.0)
  with goodput.measure('sample'):
    clock.now += 1.0
    with goodput.measure('compile'):
      clock.now += 3.0
    clock.now += 1.0
  goodput.write(1)
  goodput.close()
  assert read_lines(tmp_path / 'g')[0]['seconds'] == {
    'sample': 2.0,
    'compile': 3.0,
  }


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
  path = tmp_path / 'goodput.jsonl'
  run(path, 0.0, 0, 10)
  path.write_bytes(path.read_bytes() + b'{"time": 3')
  Goodput(path, first_step=10).close()
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line['at_step'] for line in lines] == [10, 10]


@pytest.mark.parametrize(
  'line',
  [
    *('garbage', '[1]', '{}', '[' * 5000),
    '{"time": "x", "at_step": 1, "seconds": {}}',
    '{"time": 1, "at_step": 1, "seconds": {"step": "x"}}',
  ],
)
def test_a_file_that_is_no_log_is_a_sentence(tmp_path, line):
  path = tmp_path / 'goodput.jsonl'
  path.write_text(line + '\n')
  with pytest.raises(UserError, match='is no log of a training'):
    read_lines(path)
  with pytest.raises(UserError, match='is no log of a training'):
    open_log(path, 3)
  assert path.read_text() == line + '\n'
