"""The paired table: who is better, and that standing still wins nothing."""

import numpy as np
import pytest

from unitemp_jax.compare import table

NAMES = ('ours', 'theirs')


def clip(step, bfr, flickering=0.98):
  return {
    'mean step': step,
    'BFR': bfr,
    'temporal flickering': flickering,
    'loop closure': 5.0,
  }


def rows_of(pairs, usual=None):
  rows = table.compare(NAMES, pairs, usual)
  return {row.metric: row for row in rows}


def pairs_of(n=20, **theirs):
  rng = np.random.default_rng(0)
  return [
    (
      clip(0.02, 1 + 0.02 * rng.standard_normal()),
      clip(**{'step': 0.02, 'bfr': 1.5 + 0.1 * rng.random(), **theirs}),
    )
    for _ in range(n)
  ]


def test_a_smaller_seam_is_better_and_by_how_much():
  row = rows_of(pairs_of())['BFR']
  assert row.is_ratio and row.pairs == 20
  assert row.difference.low < 1 / 1.55 < row.difference.high
  assert row.wins.value == 1
  assert row.verdict == 'ours better'
  swapped = [pair[::-1] for pair in pairs_of()]
  assert rows_of(swapped)['BFR'].verdict == 'theirs better'
  # Negative control: the same numbers on both sides show nothing.
  same = [(pair[0], pair[0]) for pair in pairs_of()]
  assert rows_of(same)['BFR'].verdict == table.OPEN
  assert rows_of(same)['BFR'].wins.value == 0.5


@pytest.mark.parametrize('usual', [None, 0.02])
def test_a_still_never_wins(usual):
  still = pairs_of(step=0.0, bfr=0.5, flickering=1.0)
  rows = rows_of(still, usual)
  for name in ('BFR', 'temporal flickering'):
    assert rows[name].difference is None
    assert rows[name].verdict == table.STILL_ONLY
    assert rows[name].wins.value == 1  # The clip that moves wins.
  assert rows['moves'].verdict == 'ours better'
  # Negative control: the same clips would win if they moved.
  moving = rows_of(pairs_of(bfr=0.5, flickering=1.0), usual)
  assert moving['BFR'].verdict == 'theirs better'
  assert moving['temporal flickering'].verdict == 'theirs better'


def test_a_handful_of_pairs_decides_nothing():
  assert rows_of(pairs_of(5))['BFR'].verdict == table.TOO_FEW
  assert rows_of(pairs_of(6))['BFR'].verdict == 'ours better'


def test_two_stills_are_a_tie():
  pair = (clip(0.0, 0.4), clip(0.0, 1.0))
  assert rows_of([pair] * 3)['BFR'].wins.value == 0.5


def test_neutral_metrics_have_no_winner():
  row = rows_of(pairs_of())['loop closure']
  assert row.wins is None and row.verdict == ''


def test_tables_say_the_same_in_every_form():
  rows = table.compare(NAMES, pairs_of())
  text = table.to_markdown(NAMES, rows)
  assert '| BFR |' in text and 'ours better' in text
  # Nothing is known of one clip's neighbours.
  alone = table.to_markdown(NAMES, table.compare(NAMES, pairs_of(1)))
  assert '[one clip]' in alone and '[one clip]' not in text
  groups = {r.group for r in table.to_results(NAMES, rows, 'how')}
  assert {'ours', 'theirs', 'ours / theirs', 'ours wins over theirs'} <= groups
  line = ('a, "prompt"', 0, 'ours', 'x.mp4', pairs_of()[0][0])
  assert '"a, ""prompt""",0,ours,x.mp4' in table.to_csv([line])
