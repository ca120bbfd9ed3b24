"""Seams that can be told, and blends that are no motion."""

import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import seams, temporal

N, T, SIZE = 12, 32, 16


def travelling(cycles, seed=0):
  """Smooth bumps that travel along circles; closed if cycles is whole."""
  rng = np.random.default_rng(seed)
  phase = rng.random(N)[:, None] + cycles * np.arange(T) / T
  y = SIZE / 2 + 4 * np.sin(2 * np.pi * phase)
  x = SIZE / 2 + 4 * np.cos(2 * np.pi * phase)
  grid = np.arange(SIZE)
  rows = np.exp(-((grid - y[..., None]) ** 2) / 8)
  columns = np.exp(-((grid - x[..., None]) ** 2) / 8)
  ink = rows[..., None] * columns[..., None, :]
  return np.rint(255 * ink[..., None] * np.ones(3)).astype(np.uint8)


def test_a_closed_loop_has_no_seam_and_an_open_one_has():
  closed = seams.rolled_seam(travelling(1))
  assert abs(closed.rank.mean() - 0.5) < 0.25 and closed.p_value > 0.02
  assert closed.found.mean() <= 4 * closed.chance
  open_ = seams.rolled_seam(travelling(0.7))
  assert open_.rank.mean() > 0.95 and open_.found.all()
  assert open_.p_value < 0.01


def test_a_repeated_frame_is_a_seam_too():
  """A loop shown with its first frame again at the end stands still there."""
  frames = travelling(1)
  again = np.concatenate([frames, frames[:, :1]], axis=1)
  assert seams.rolled_seam(again).found.all()


def test_turns_see_what_steps_do_not():
  """There and back: steps are alike, but the velocity flips at the seam."""
  there = travelling(0.5)
  back_and_forth = np.concatenate([there, there[:, -2:0:-1]], axis=1)
  steps = seams.rolled_seam(back_and_forth)
  turns = seams.rolled_seam(back_and_forth, turns=True)
  assert turns.rank.mean() > 0.95
  assert steps.rank.mean() < turns.rank.mean() - 0.2
  # Negative control: a loop that goes round flips nowhere.
  assert seams.rolled_seam(travelling(1), turns=True).rank.mean() < 0.8


def test_seams_need_neighbours():
  with pytest.raises(UserError, match='at least 20'):
    seams.rolled_seam(travelling(1)[:, :19])


def test_a_hidden_cut_is_the_largest_jump():
  frames = travelling(1)
  other = np.roll(frames, 1, axis=0)
  cut = np.concatenate([frames[:, : T // 2], other[:, T // 2 :]], axis=1)
  assert seams.largest_jump(frames).max() < 1.5
  assert np.median(seams.largest_jump(cut)) > 2


def test_blends_have_no_residual_and_motion_has():
  frames = travelling(0.5)
  ends = frames[:, 0], frames[:, -1], T
  still = np.repeat(frames[:, :1], T, axis=1)
  for blend in (
    temporal.cross_fade(*ends),
    temporal.cross_fade(*ends, cut=True),
  ):
    assert seams.blend_residual(blend).max() < 1e-3
  assert seams.blend_residual(still).max() < 1e-3
  assert seams.blend_residual(frames).min() > 0.3


def test_a_cross_fade_is_dim_in_its_middle():
  frames = travelling(0.5)
  fade = temporal.cross_fade(frames[:, 0], frames[:, -1], T)
  fade = np.rint(255 * fade).astype(np.uint8)
  assert seams.dimmest_frame(frames).min() > 0.9
  assert seams.dimmest_frame(fade).max() < 0.8
