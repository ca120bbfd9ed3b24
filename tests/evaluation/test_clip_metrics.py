import dataclasses

import moving_clips
import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import metrics as clip_metrics
from unitemp_jax.evaluation.clips.layout import Layout, generation_order
from unitemp_jax.evaluation.metrics import curves, flicker, registry

FORWARD = Layout((8, 20, 32), 12, (0, 0), (), 8.0)


def metrics(clip, layout=FORWARD):
  return clip_metrics.clip_metrics(curves.measure(clip), layout)


def test_boundary_gain_raises_the_ratio_and_not_vbench():
  clips = [moving_clips.drifting_texture(seed=s, speed=0.5) for s in range(4)]
  found = [
    [metrics(moving_clips.with_gain(clip, gain)) for clip in clips]
    for gain in (0, 0.02, 0.05)
  ]
  ratios = [np.mean([m['BFR'] for m in group]) for group in found]
  assert 0.8 < ratios[0] < 1.2
  assert ratios[1] > 1.15 * ratios[0]
  assert ratios[2] > 1.3 * ratios[1]
  second = [
    np.mean([m['BFR, second difference'] for m in group]) for group in found
  ]
  assert second[2] > 2 * second[0]
  combs = [np.mean([m['comb power'] for m in group]) for group in found]
  assert combs[2] > combs[0] + 0.1
  vbench = [
    np.mean([m['temporal flickering'] for m in group]) for group in found
  ]
  assert abs(vbench[2] - vbench[0]) < 0.005
  # Negative control: at other transitions there is nothing to be seen.
  elsewhere = dataclasses.replace(FORWARD, boundaries=(14, 26, 38))
  beside = metrics(moving_clips.with_gain(clips[0], 0.05), elsewhere)
  assert beside['BFR'] < 1.15


def test_pooled_phases_find_the_blocks_of_clips_of_any_length():
  logs = []
  for seed, frames in enumerate((45, 57, 33, 69)):
    clip = moving_clips.drifting_texture(frames, seed=seed, speed=0.5)
    steps = curves.measure(moving_clips.with_gain(clip, 0.05)).steps
    logs.append(flicker.phase_logs(steps[None], [8, 20], period=12))
  test = flicker.pool_phases(np.concatenate(logs))
  assert test.ratios.argmax() == 0 and test.p_value < 0.01


def test_what_a_clip_cannot_have_is_left_out():
  clip = moving_clips.drifting_texture(9)
  found = metrics(clip, dataclasses.replace(FORWARD, boundaries=()))
  assert not any(name.startswith(('BFR,', 'wide', 'comb')) for name in found)
  assert 'BFR' not in found and 'join jump, first' not in found
  assert set(found) <= set(registry.CLIP)


def test_a_loop_closes_and_a_clip_that_goes_on_does_not():
  turn = moving_clips.drifting_texture(40)
  back = np.concatenate([turn[:20], turn[19::-1]])
  assert metrics(back)['loop closure'] < 0.1  # its end is its start again
  assert metrics(turn)['loop closure'] > 3
  time = np.arange(24)[:, None, None, None]
  x = np.arange(24)[None, None, :, None] / 24
  wave = 0.5 + 0.4 * np.sin(2 * np.pi * (x - time / 24))
  wave = np.rint(255 * np.broadcast_to(wave, (24, 24, 24, 3))).astype(np.uint8)
  around = metrics(wave)
  for name in ('loop closure', 'loop velocity', 'BFR of the loop seam'):
    assert around[name] == pytest.approx(1, abs=0.1)
  # The first frame again at the end is not taken for a standstill.
  again = metrics(np.concatenate([wave, wave[:1]]))
  assert again['loop closure'] < 0.02
  assert again['loop velocity'] == pytest.approx(1, abs=0.1)


def test_a_foreign_given_frame_jumps():
  clip = moving_clips.drifting_texture(20)
  layout = dataclasses.replace(FORWARD, conditioning=(1, 1))
  fine = metrics(clip, layout)
  assert fine['join jump, first'] == pytest.approx(1, abs=0.15)
  clip[-1] = 255 - clip[-1]
  spoiled = metrics(clip, layout)
  assert spoiled['join jump, last'] > 3
  assert spoiled['join jump, first'] == pytest.approx(1, abs=0.15)


def test_a_still_has_the_best_flicker_and_no_motion():
  still = np.repeat(moving_clips.drifting_texture(3)[:1], 45, axis=0)
  found = metrics(still)
  assert found['temporal flickering'] == 1
  assert found['mean step'] == 0
  assert found['BFR'] == pytest.approx(1)


def test_drift_of_a_ramp_is_known_and_its_order_matters():
  frames = 40
  ramp = np.linspace(40, 200, frames)[:, None, None, None]
  clip = np.rint(np.broadcast_to(ramp, (frames, 8, 8, 3))).astype(np.uint8)
  found = metrics(clip)
  expected = (ramp[-6:].mean() - ramp[:6].mean()) / 255
  assert found['brightness drift, as played'] == pytest.approx(
    expected, abs=3e-3
  )
  assert found['brightness drift, as made'] == pytest.approx(expected, abs=3e-3)
  slope = (160 / 255) / ((frames - 1) / 8 / 60)
  assert found['brightness slope'] == pytest.approx(slope, rel=0.01)
  # Made from both ends to the middle, the first and last made are neighbours.
  inward = dataclasses.replace(
    FORWARD, spans=((0, 9), (30, 39), (10, 19), (20, 29))
  )
  found = metrics(clip, inward)
  assert found['brightness drift, as played'] > 2 * (
    found['brightness drift, as made'] / 1.5
  )
  assert found['brightness drift, as made'] < 0.8 * expected


def test_order_of_generation_puts_given_frames_first():
  order = generation_order([(4, 6), (1, 3)], 8)
  np.testing.assert_array_equal(order, [0, 7, 4, 5, 6, 1, 2, 3])
  for spans in ([(0, 3), (3, 5)], [(0, 8)], [(-1, 2)]):
    with pytest.raises(UserError, match='at most once'):
      generation_order(spans, 8)


def test_relative_drift_is_the_formula():
  curve = np.repeat([2.0, 3.0, 1.0], 4)[:, None]
  np.testing.assert_allclose(clip_metrics.relative_drift(curve, 4), [0.5])
  np.testing.assert_allclose(clip_metrics.relative_drift(curve[:7], 4), [0])


def test_every_metric_of_a_clip_has_a_table():
  assert [name for name, one in registry.CLIP.items() if not one.section] == []
