import moving_clips
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import curves, flicker, temporal
from unitemp_jax.video import frames as frames_module
from unitemp_jax.video.frames import frame_steps, luma


def test_curves_of_a_stream_are_those_of_the_whole_clip():
  clip = moving_clips.drifting_texture(15)
  made = curves.measure(iter(clip))
  np.testing.assert_allclose(made.steps, frame_steps(clip[None])[0], atol=1e-9)
  whole = clip / 255
  turns = np.abs(np.diff(whole, n=2, axis=0)).mean((1, 2, 3))
  np.testing.assert_allclose(made.turns, turns, atol=1e-6)
  bright = luma(clip)
  np.testing.assert_allclose(made.looks[:, 0], bright.mean((1, 2)), atol=1e-6)
  np.testing.assert_allclose(made.looks[:, 1], bright.std((1, 2)), atol=1e-6)
  seam = np.abs(whole[-1] - whole[0]).mean()
  turn = np.abs((whole[0] - whole[-1]) - (whole[-1] - whole[-2])).mean()
  np.testing.assert_allclose(made.seam[:2], [seam, turn], atol=1e-6)
  early = np.abs(whole[-2] - whole[0]).mean()
  turn = np.abs((whole[0] - whole[-2]) - (whole[-2] - whole[-3])).mean()
  np.testing.assert_allclose(made.seam[2:], [early, turn], atol=1e-6)
  closure = temporal.loop_closure(clip[None])
  usual = np.median(np.abs(np.diff(whole, axis=0)).mean((1, 2, 3))) + 1e-4
  np.testing.assert_allclose(closure['loop closure'], seam / usual, rtol=1e-6)


def test_looks_have_known_values():
  grey = np.full((3, 16, 16, 3), 128, np.uint8)
  red = np.zeros((3, 16, 16, 3), np.uint8)
  red[..., 0] = 255
  looks = curves.measure(grey).looks[0]
  np.testing.assert_allclose(looks, [128 / 255, 0, 0, 0, 0], atol=1e-6)
  looks = curves.measure(red).looks[0]
  np.testing.assert_allclose(looks, [0.299, 0, 1, 0, 1], atol=1e-6)
  checks = grey.copy()
  checks[:, ::2, ::2] = 200
  assert curves.measure(checks).looks[0, 3] > 0.01  # sharp


def test_curves_survive_being_stored():
  made = curves.measure(moving_clips.drifting_texture(7))
  again = curves.Curves.from_arrays(made.to_arrays())
  for name, value in made.to_arrays().items():
    np.testing.assert_array_equal(again.to_arrays()[name], value)
  assert again.frames == 7 and again.height == 24


def test_vbench_flickering_is_its_own_formula_on_bytes():
  clip = moving_clips.drifting_texture(9)
  change = np.abs(np.diff(clip.astype(np.float64), axis=0)).mean((1, 2, 3))
  expected = (255 - change.mean()) / 255
  steps = curves.measure(clip).steps
  np.testing.assert_allclose(
    flicker.vbench_temporal_flickering(steps[None]), [expected], atol=1e-7
  )


def test_short_and_changing_clips_are_refused():
  clip = moving_clips.drifting_texture(4)
  with pytest.raises(UserError, match='at least 3'):
    curves.measure(clip[:2])
  with pytest.raises(UserError, match='size changes'):
    curves.measure([clip[0], clip[1], clip[2, :20]])


def test_large_and_small_frames_give_the_same_curves(monkeypatch):
  clip = moving_clips.drifting_texture(15)
  whole = curves.measure(clip)
  # Frames that come singly, in twos, and in chunks of which one is left over.
  for frames in (1, 2, 7):
    monkeypatch.setattr(frames_module, '_CHUNK', frames * clip[0].size)
    parts = curves.measure(clip)
    for name, value in whole.to_arrays().items():
      np.testing.assert_allclose(parts.to_arrays()[name], value, atol=1e-12)
  # Negative control: a missing frame is noticed.
  assert not np.allclose(curves.measure(clip[1:]).looks[0], whole.looks[0])
