import moving_clips
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import flicker
from unitemp_jax.evaluation.suites.flicker import swap_block
from unitemp_jax.video.frames import frame_steps, unit_pixels

AT = [8, 20]


def moving_texture(num_frames=33, gain=0.0):
  """Textures that drift steadily; blocks darker and brighter in turn."""
  clips = (
    moving_clips.drifting_texture(num_frames, seed=seed, speed=0.5)
    for seed in range(16)
  )
  return np.stack([moving_clips.with_gain(clip, gain) for clip in clips])


def test_ratio_is_the_formula():
  steps = np.full((1, 32), 0.01)
  steps[0, 8] = 0.04
  steps[0, 20] = 0.01
  expected = np.sqrt((0.04 + 1e-4) / (0.01 + 1e-4))
  np.testing.assert_allclose(
    flicker.boundary_flicker_ratio(steps, AT), [expected]
  )


def test_ratio_leaves_other_boundaries_out_of_the_median():
  steps = np.full((1, 12), 0.01)
  steps[0, [4, 5, 6]] = 0.05
  ratio = flicker.boundary_flicker_ratio(steps, [4, 5, 6])
  np.testing.assert_allclose(ratio, [0.0501 / 0.0101])


def test_phase_test_finds_the_true_phase_and_no_other():
  steps = frame_steps(moving_texture(gain=0.025))
  true = flicker.pool_phases(flicker.phase_logs(steps, AT))
  assert true.share == pytest.approx(1 / 12)
  assert true.p_value < 0.01
  assert true.ratios.argmax() == 0
  wrong = flicker.pool_phases(flicker.phase_logs(steps, [14, 26]))
  assert wrong.share > 1.5 / 12
  assert wrong.p_value > 0.3


def test_comb_power_names_the_phase():
  plain, _ = flicker.comb_power(frame_steps(moving_texture(69)))
  power, phase = flicker.comb_power(frame_steps(moving_texture(69, gain=0.025)))
  assert power.mean() > plain.mean() + 0.1
  assert np.bincount(phase).argmax() == 8


def test_still_clip_has_no_seam():
  steps = np.zeros((2, 32))
  np.testing.assert_allclose(flicker.boundary_flicker_ratio(steps, AT), 1)
  np.testing.assert_allclose(flicker.wide_ratio(steps, AT), 1)
  np.testing.assert_allclose(flicker.vbench_temporal_flickering(steps), 1)


def test_wide_ratio_is_the_formula():
  steps = np.full((1, 32), 0.01)
  steps[0, 8:12] = 0.02
  expected = np.sqrt(0.0201 / 0.0101)
  np.testing.assert_allclose(flicker.wide_ratio(steps, AT), [expected])


def test_swapped_block_raises_wide_difference_and_latent_step():
  rng = np.random.default_rng(1)
  # Latents that stay with their own clip and change a little each step.
  own = rng.normal(size=(12, 1, 4, 4, 3))
  latents = own + np.cumsum(rng.normal(0, 0.2, (12, 9, 4, 4, 3)), axis=1)
  swapped = swap_block(latents, 1)

  def decode(z):
    # Content morphs over the 4 frames of a latent, as causal decoders do.
    weight = np.arange(1, 5)[None, None, :, None, None, None] / 4
    morph = (1 - weight) * z[:, :-1, None] + weight * z[:, 1:, None]
    rest = morph.reshape(len(z), -1, *z.shape[2:])
    frames = np.concatenate([z[:, :1], rest], axis=1)
    return np.clip(0.5 + frames / 10, 0, 1)

  plain, fired = frame_steps(decode(latents)), frame_steps(decode(swapped))
  assert abs(flicker.wide_ratio(plain, AT).mean() - 1) < 0.1
  assert flicker.wide_ratio(fired, AT).mean() > 1.5
  assert abs(flicker.latent_step_ratio(latents, AT).mean() - 1) < 0.1
  assert flicker.latent_step_ratio(swapped, AT).mean() > 2


def test_swap_takes_the_block_of_the_next_clip_and_nothing_else():
  latents = np.arange(2 * 9, dtype=float).reshape(2, 9, 1, 1, 1)
  before = latents.copy()
  swapped = swap_block(latents, 1)
  np.testing.assert_array_equal(latents, before)
  np.testing.assert_array_equal(swapped[:, 3:6], latents[::-1, 3:6])
  np.testing.assert_array_equal(swapped[:, :3], latents[:, :3])
  with pytest.raises(UserError, match='two clips'):
    swap_block(latents[:1], 1)
  with pytest.raises(UserError, match='no block 3'):
    swap_block(latents, 3)


def test_bytes_and_floats_give_the_same_and_model_range_is_refused():
  clips = moving_texture(9)[:2]
  np.testing.assert_allclose(
    frame_steps(clips), frame_steps(clips / 255), atol=1e-6
  )
  with pytest.raises(UserError, match=r'\[0, 1\]'):
    unit_pixels(clips / 127.5 - 1)
  with pytest.raises(UserError, match='shape'):
    frame_steps(clips[0])


def test_boundaries_outside_the_clip_are_refused():
  steps = np.ones((1, 12))
  for at in ([], [0], [20]):
    with pytest.raises(UserError, match='boundaries'):
      flicker.boundary_flicker_ratio(steps, at)
