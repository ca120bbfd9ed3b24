import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import temporal


def turning(num_frames, period, n=2, size=16):
  """A wave that moves round and comes back after `period` frames."""
  time = np.arange(num_frames)[:, None, None]
  x = np.arange(size)[None, None] / size
  y = np.arange(size)[None, :, None] / size
  wave = 0.5 + 0.4 * np.sin(2 * np.pi * (x + y - time / period))
  return np.broadcast_to(wave[None, ..., None], (n, *wave.shape, 3))


def test_perfect_loop_closes():
  closure = temporal.loop_closure(turning(24, 24))
  np.testing.assert_allclose(closure['loop closure'], 1, atol=0.05)
  np.testing.assert_allclose(closure['velocity closure'], 1, atol=0.05)
  np.testing.assert_allclose(closure['BFR of the seam'], 1, atol=0.05)


def test_repeated_last_frame_gives_zero():
  closure = temporal.loop_closure(turning(25, 24))
  np.testing.assert_allclose(closure['loop closure'], 0, atol=1e-4)


def test_open_clip_does_not_close():
  closure = temporal.loop_closure(turning(24, 48))
  assert (closure['loop closure'] > 3).all()
  assert (closure['velocity closure'] > 3).all()
  assert (closure['BFR of the seam'] > 3).all()


def test_velocity_sees_a_turn_that_position_does_not():
  # Round by one way; the last frame turns and the seam leads back again.
  around = turning(25, 24)[:, ::-1]
  turned = np.concatenate([around, around[:, -2:-1]], axis=1)
  closure = temporal.loop_closure(turned)
  np.testing.assert_allclose(closure['loop closure'], 1, atol=0.1)
  assert (closure['velocity closure'] > 3).all()


def test_join_jump_fires_on_a_foreign_frame():
  clip = np.array(turning(24, 24))
  np.testing.assert_allclose(temporal.join_jump(clip, [0, 22]), 1, atol=0.05)
  clip[:, -1] = 1 - clip[:, -1]
  jump = temporal.join_jump(clip, [0, 22])
  np.testing.assert_allclose(jump[:, 0], 1, atol=0.05)
  assert (jump[:, 1] > 3).all()
  with pytest.raises(UserError, match='joins'):
    temporal.join_jump(clip, [23])


def test_a_still_clip_has_no_motion():
  real = turning(24, 24)
  still = np.repeat(real[:, :1], 24, axis=1)
  np.testing.assert_allclose(temporal.motion_ratio(real, real), 1)
  assert temporal.motion_ratio(still, real).max() == 0


def test_cross_fade_meets_both_ends_and_moves_less_than_the_truth():
  clip = turning(25, 24)[:, :13]
  fade = temporal.cross_fade(clip[:, 0], clip[:, -1], 13)
  np.testing.assert_allclose(fade[:, 0], clip[:, 0], atol=1e-6)
  np.testing.assert_allclose(fade[:, -1], clip[:, -1], atol=1e-6)
  middle = (clip[:, 0] + clip[:, -1]) / 2
  np.testing.assert_allclose(fade[:, 6], middle, atol=1e-6)
  assert (temporal.motion_ratio(fade, clip) < 0.8).all()
  at = [temporal.psnr(fade[:, t : t + 1], clip[:, t : t + 1]) for t in (0, 6)]
  assert (at[1] < at[0] - 20).all()


def test_nearest_frame_holds_each_end():
  clip = turning(24, 24)
  held = temporal.cross_fade(clip[:, 0], clip[:, -1], 5, cut=True)
  for t, end in enumerate([0, 0, 0, -1, -1]):
    np.testing.assert_allclose(held[:, t], clip[:, end], atol=1e-6)


def test_psnr_of_a_known_error():
  clip = np.full((2, 3, 16, 16, 3), 0.5)
  other = clip.copy()
  other[:, 1] += 0.1
  for t, expected in enumerate((100, 20, 100)):
    part = slice(t, t + 1)
    found = temporal.psnr(other[:, part], clip[:, part])
    np.testing.assert_allclose(found, expected, atol=1e-4)
  expected = -10 * np.log10(0.01 / 3)
  np.testing.assert_allclose(temporal.psnr(other, clip), expected, atol=1e-4)
  with pytest.raises(UserError, match='compared'):
    temporal.psnr(clip, clip[:, :2])


def test_ssim_of_flat_pictures_is_the_closed_form():
  a = np.full((1, 1, 16, 16, 3), 0.5)
  b = np.full((1, 1, 16, 16, 3), 0.7)
  expected = (2 * 0.35 + 1e-4) / (0.25 + 0.49 + 1e-4)
  np.testing.assert_allclose(temporal.ssim(a, b), expected, rtol=1e-3)
  np.testing.assert_allclose(temporal.ssim(a, a), 1, atol=1e-6)


def test_ssim_sees_lost_structure_that_psnr_does_not():
  clip = turning(2, 24, size=32)
  rng = np.random.default_rng(0)
  noise = np.clip(clip + rng.normal(0, 0.1, clip.shape), 0, 1)
  shade = clip + 0.1 * np.where(clip.mean() > 0.5, -1, 1)
  shade = np.clip(shade, 0, 1)
  assert (temporal.ssim(noise, clip) < temporal.ssim(shade, clip) - 0.2).all()
  difference = temporal.psnr(noise, clip) - temporal.psnr(shade, clip)
  assert (np.abs(difference) < 1).all()
