import numpy as np
import pytest

from unitemp_jax import orders
from unitemp_jax.data import video_io
from unitemp_jax.errors import UserError
from unitemp_jax.generate.conditioning import Ends, read_end

RNG = np.random.default_rng(0)


def clip(frames, batch=1):
  return RNG.integers(0, 256, (batch, frames, 8, 8, 3), np.uint8)


def first_pixels(video):
  """Stands for an encoder: a latent per image and per four frames."""
  latents = 1 + (video.shape[1] - 1) // 4
  picked = video[:, :1, 0, 0, 0].astype(np.float32)
  return np.repeat(picked, latents, 1).reshape(len(video), latents, 1, 1, 1)


def test_counts_and_latents_follow_the_plan():
  ends = Ends(clip(1), clip(9))
  assert ends.counts == (1, 3)
  plan = orders.inbetween(9, given_first=1, given_last=3)
  positions, _ = plan.preloaded()
  latents = ends.latents(first_pixels)
  assert latents.shape[:2] == (1, len(positions))
  assert positions.tolist() == [0, 6, 7, 8]
  assert latents[0, 0, 0, 0, 0] == ends.first[0, 0, 0, 0, 0]
  assert (latents[0, 1:, 0, 0, 0] == ends.last[0, 0, 0, 0, 0]).all()
  assert Ends().counts == (0, 0)
  assert Ends().latents(first_pixels) is None


def test_given_frames_are_pasted_pixel_for_pixel():
  video, ends = clip(33), Ends(clip(5), clip(1))
  before = video.copy()
  pasted = ends.paste(video)
  np.testing.assert_array_equal(pasted[:, :5], ends.first)
  np.testing.assert_array_equal(pasted[:, -1:], ends.last)
  np.testing.assert_array_equal(pasted[:, 5:-1], before[:, 5:-1])
  np.testing.assert_array_equal(video, before)


def test_images_and_clips_are_read_at_the_models_size(tmp_path):
  video_io.write_image(tmp_path / 'a.png', clip(1)[0, 0].repeat(4, 0))
  assert read_end(tmp_path / 'a.png', 16, 16, 12).shape == (1, 1, 16, 16, 3)
  video_io.write_video(tmp_path / 'b.mp4', clip(9)[0].repeat(4, 1), 12)
  assert read_end(tmp_path / 'b.mp4', 16, 16, 12).shape == (1, 9, 16, 16, 3)


def test_a_clip_of_another_length_is_refused_and_a_length_named(tmp_path):
  video_io.write_video(tmp_path / 'b.mp4', clip(11)[0], 12)
  with pytest.raises(UserError, match=r'has 11 frames.*example 9'):
    read_end(tmp_path / 'b.mp4', 16, 16, 12)
