import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import flicker
from unitemp_jax.evaluation.suites.flicker import swap_block
from unitemp_jax.video.frames import frame_steps, unit_pixels

AT = [8, 20]


def moving_texture(n=16, num_frames=33, size=24, seed=0):
  """Smooth random textures that drift at a constant speed, in [0.1, 0.9]."""
  rng = np.random.default_rng(seed)
  waves = rng.integers(1, 4, (n, 6, 2))
  phase = rng.uniform(0, 2 * np.pi, (n, 6, 3))
  speed = rng.uniform(0.005, 0.02, (n, 6))
  time, y, x = np.meshgrid(
    np.arange(num_frames),
    np.arange(size) / size,
    np.arange(size) / size,
    indexing='ij',
  )
  clips = np.zeros((n, num_frames, size, size, 3))
  for k in range(6):
    turn = waves[:, k, 0, None, None, None] * y
    turn = turn + waves[:, k, 1, None, None, None] * x
    turn = turn + speed[:, k, None, None, None] * time
    clips += np.sin(
      2 * np.pi * turn[..., None] + phase[:, k, None, None, None, :]
    )
  return 0.5 + clips / 15


def blocks_of_frames(num_frames):
  return (np.arange(num_frames) + 3) // 12


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


def test_gain_of_five_percent_in_every_other_block_fires():
  clips = moving_texture()
  gain = 1 + 0.05 * (blocks_of_frames(33) % 2)
  spoiled = clips * gain[:, None, None, None]
  plain = flicker.boundary_flicker_ratio(frame_steps(clips), AT)
  fired = flicker.boundary_flicker_ratio(frame_steps(spoiled), AT)
  assert 0.9 < plain.mean() < 1.1
  assert fired.mean() > 1.2 * plain.mean()
  # VBench's own score hardly moves: why the ratio exists.
  scores = [
    flicker.vbench_temporal_flickering(frame_steps(c)).mean()
    for c in (clips, spoiled)
  ]
  assert abs(scores[0] - scores[1]) < 0.004


def test_phase_test_finds_the_true_phase_and_no_other():
  clips = moving_texture()
  gain = 1 + 0.05 * (blocks_of_frames(33) % 2)
  steps = frame_steps(clips * gain[:, None, None, None])
  true = flicker.pool_phases(flicker.phase_logs(steps, AT))
  assert true.share == pytest.approx(1 / 12)
  assert true.p_value < 0.01
  assert true.ratios.argmax() == 0
  wrong = flicker.pool_phases(flicker.phase_logs(steps, [14, 26]))
  assert wrong.share > 1.5 / 12
  assert wrong.p_value > 0.3


def test_comb_power_names_the_phase():
  clips = moving_texture(num_frames=69)
  gain = 1 + 0.05 * (blocks_of_frames(69) % 2)
  plain, _ = flicker.comb_power(frame_steps(clips))
  power, phase = flicker.comb_power(
    frame_steps(clips * gain[:, None, None, None])
  )
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
  quarter = swap_block(latents, 1, mix=0.25)
  steps = [
    flicker.latent_step_ratio(z, AT).mean() for z in (latents, quarter, swapped)
  ]
  assert steps == sorted(steps)


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
  clips = np.round(moving_texture(n=2) * 255).astype(np.uint8)
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
