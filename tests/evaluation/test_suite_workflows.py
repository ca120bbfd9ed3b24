"""What the suites of workflows say of a student that makes no mistake."""

import numpy as np
import pytest
from perfect_student import perfect_bench

from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.suites import given, long, loops, power
from unitemp_jax.evaluation.suites.bench import paste

N = 5


@pytest.fixture(scope='module')
def bench():
  return perfect_bench(N)


def values(sections, prefix):
  """{(metric, group): value} of the rows with a prefix, which is left out."""
  assert results.to_markdown(sections)
  rows = [row for section in sections for row in section.rows]
  assert len({(row.metric, row.group) for row in rows}) == len(rows)
  return {
    (row.metric.removeprefix(f'{prefix}: '), row.group): row.value
    for row in rows
    if row.metric.startswith(f'{prefix}: ')
  }


def test_keyframes_of_a_perfect_student_are_the_real_clips(bench):
  sections = given.run_keyframes(bench)
  found = values(sections, 'keyframes')
  for side in ('keyframes, past', 'keyframes, outside_in'):
    assert found['interior PSNR', side] == 100
    assert found['PSNR at given frames', side] == 100
    for metric in ('join jump', 'no blend', 'motion to real'):
      assert found[metric, side] == pytest.approx(found[metric, 'real clips'])
  # The null meets the given frames and moves no more than a blend.
  assert found['no blend', 'cross-fade'] < 0.05
  assert found['interior PSNR', 'cross-fade'] < 40
  anew = values(sections, 'regenerate')
  (group,) = {group for _, group in anew if group.startswith('frames ')}
  assert anew['interior PSNR', group] == 100
  assert anew['join jump', group] == pytest.approx(
    anew['join jump', 'real clips']
  )


def test_extensions_of_a_perfect_student(bench):
  found = values(given.run_extend(bench), 'extend')
  for name in ('before', 'after'):
    group = 'extended, alternate'
    metric = f'digit {name}'
    assert found[metric, group] == found[metric, 'real clips']
    metric = f'join jump, {name}'
    assert found[metric, group] == pytest.approx(found[metric, 'real clips'])
  assert ('digit after', 'extended, past') not in found
  assert ('digit before', 'extended, future') not in found


def test_loops_of_a_perfect_student_close(bench):
  found = values(loops.run_loops(bench), 'loops')
  groups = {group for _, group in found} - {loops.CUT}
  assert len(groups) == 8 and any('64 frames' in group for group in groups)
  for group in groups:
    real = f'{loops.REAL_LOOPS}, {group[:9]}'
    if not group.startswith(loops.REAL_LOOPS):
      # A real loop's frames 0 and 32 are rounded apart, by a byte at most.
      for metric, off in (
        ('loop closure', 1e-3),
        ('velocity closure', 1e-3),
        ('seam rank, step', 0.03),
      ):
        wanted = pytest.approx(found[metric, real], abs=off)
        assert found[metric, group] == wanted
    assert found['seam rank, step', group] < 0.85
  # Negative control: a frame too much, shown twice, is a seam.
  again = found['seam rank, step', loops.CUT]
  assert again > max(found['seam rank, step', group] for group in groups)


def test_blends_do_not_win_transitions(bench):
  sections = given.run_transitions(bench)
  real = given.REAL
  fade, cut = given.FADE, given.CUT
  for prefix in ('transition', 'foreign transition'):
    found = values(sections, prefix)
    assert found['no blend', real] > 0.3
    assert found['no blend', fade] < 0.05 and found['no blend', cut] < 0.05
    assert found['largest jump', cut] > found['largest jump', real]
    assert found['motion to real', fade] < found['motion to real', real]
  assert found['dimmest frame', fade] < found['dimmest frame', real]
  for side in given.SIDES:
    group = f'transition, {side}'
    # The clip that it is asked for, so it equals the real one.
    found = values(sections, 'transition')
    for metric in ('join jump, first', 'no blend', 'digit of the last third'):
      assert found[metric, group] == pytest.approx(found[metric, real])
    assert found['PSNR at the last frame', group] == 100
    # Here it shows the clip of its first prompt, and jumps to the given frame.
    found = values(sections, 'foreign transition')
    assert found['join jump, last', group] > found['join jump, last', real]
    assert found['PSNR at the first frame', group] == 100
    assert found['PSNR at the last frame', group] < 40


def test_a_perfect_student_does_not_drift(bench, monkeypatch):
  monkeypatch.setattr(long, 'TIMES', 3)
  sections = long.run_long(bench)
  found = values(sections, 'long')
  real = found['drift as played', long.REAL]
  groups = {group for _, group in found if 'sinks: ' in group}
  assert len(groups) == 12
  for group in groups:
    assert found['drift as played', group] == pytest.approx(real)
  apart = values(sections, 'long')[
    'from real, difference', 'forward, past - none'
  ]
  assert apart == pytest.approx(0)
  # Without sinks the first made is one end, and the last made the other.
  for direction, sign in (('forward', 1), ('backward', -1)):
    assert found['drift as made', f'{direction}, sinks: none'] == (
      pytest.approx(sign * found['drift as made', long.REAL])
    )
  read = found['digit read, first made tenth', 'backward, sinks: none']
  assert read == found['digit read, last made tenth', long.REAL]


def test_blocks_in_the_order_made(bench):
  spans = long.spans(long.long_plan(bench, 'backward', 'none'))
  frames = [f for low, high in spans for f in range(low, high + 1)]
  assert sorted(frames) == list(range(1 + 4 * (9 * long.TIMES - 1)))
  assert spans[0][0] > spans[-1][0]
  forward = long.spans(long.long_plan(bench, 'forward', 'none'))
  assert forward == sorted(forward)


def test_who_ignores_a_switch_is_found_out(bench):
  """The perfect student reads the first prompt only: a negative control."""
  found = values(long.run_schedule(bench), 'schedule')
  kept = found['digit, last third, first prompt', 'switch, forward']
  new = found['digit, last third, second prompt', 'switch, forward']
  assert kept == found['digit, last third, first prompt', long.REAL]
  assert kept > 80 and new < 50
  for name in ('switch', 'switch not moved', 'switch 12 frames before'):
    late = found['frames late, digit', f'{name}, forward']
    assert found['frames off, digit', f'{name}, forward'] >= late > 20


def test_power_tells_a_perfect_student_from_nothing(bench, monkeypatch):
  monkeypatch.setattr(power, 'resampled', lambda pipeline, _: pipeline)
  found = values(power.run(bench), 'power')
  one, real = power.STUDENT, power.REAL
  for metric in ('path from law', 'sharpness', 'feature change'):
    assert found[metric, one] == pytest.approx(found[metric, real])
    pair = f'{one} - {power.RESEEDED}'
    assert found[f'{metric}, difference', pair] == 0
    assert found[f'alike: {pair}', metric] == 0
  # Negative control: noise in the latents is seen.
  assert found['sharpness', 'noised latents'] > 1.1 * found['sharpness', real]


def test_given_frames_are_pasted_where_they_belong():
  video = np.zeros((2, 9, 2, 2, 3), np.uint8)
  given = {0: video[:, :1] + 1, 4: video[:, :5] + 2}
  shown = paste(video, given)
  assert shown[0, :, 0, 0, 0].tolist() == [1, 0, 0, 0, 2, 2, 2, 2, 2]
  assert video.max() == 0
