import numpy as np
import pytest
from PIL import Image

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.generate.request import Conditioning, Request, given_latents
from unitemp_jax.video.read import read_frames
from unitemp_jax.video.write import write_image, write_video

RNG = np.random.default_rng(0)


def clip(frames, batch=1):
  return RNG.integers(0, 256, (batch, frames, 8, 8, 3), np.uint8)


def first_pixels(video):
  """Stands for an encoder: a latent per image and per four frames."""
  latents = 1 + (video.shape[1] - 1) // 4
  picked = video[:, :1, 0, 0, 0].astype(np.float32)
  return np.repeat(picked, latents, 1).reshape(len(video), latents, 1, 1, 1)


def test_images_and_clips_are_read_from_whatever_users_have(tmp_path):
  picture = clip(1)[0, 0].repeat(4, 0)
  write_image(tmp_path / 'a.png', picture)
  wanted = picture[None]
  for source in (
    tmp_path / 'a.png',
    str(tmp_path / 'a.png'),
    Image.fromarray(picture),
    picture,
    wanted,
    (wanted / 255).astype(np.float32),
  ):
    np.testing.assert_array_equal(read_frames(source, 12), wanted)


def test_clips_are_resampled_to_the_models_rate(tmp_path):
  frames = clip(12)[0].repeat(16, 1).repeat(16, 2)
  write_video(tmp_path / 'b.mp4', frames, 24)
  assert len(read_frames(tmp_path / 'b.mp4', 24)) == 12
  assert len(read_frames(tmp_path / 'b.mp4', 12)) == 6


@pytest.mark.parametrize(
  ('frames', 'what'),
  [
    (np.zeros((4, 8, 8), np.uint8), 'shape'),
    (np.zeros((0, 8, 8, 3), np.uint8), 'shape'),
    (np.zeros((8, 8, 3), np.int32), 'int32'),
    (np.full((8, 8, 3), 2.0), r'\[0, 1\]'),
  ],
)
def test_arrays_that_are_no_pictures_are_refused(frames, what):
  with pytest.raises(UserError, match=what):
    read_frames(frames, 12)


def test_given_latents_come_in_the_order_in_which_a_plan_reads_them():
  plan = orders.keyframes(9, [(6, 3), (0, 1), (3, 1)])
  given = [
    Conditioning(24, clip(9)[0]),
    Conditioning(12, clip(1)[0]),
    Conditioning(0, clip(1)[0]),
  ]
  requests = [
    Request('fill', plan, ('x',), seed, 8, 8, given) for seed in (0, 1)
  ]
  latents = given_latents(requests, first_pixels)
  by_position = {
    given[i].frame // 4 + k: float(given[i].video[0, 0, 0, 0])
    for i in range(3)
    for k in range(given[i].num_latents)
  }
  positions = plan.preloaded()[0].tolist()
  assert sorted(positions) == [0, 3, 6, 7, 8]
  wanted = [by_position[p] for p in positions]
  assert latents[1, :, 0, 0, 0].tolist() == wanted
  assert len(set(wanted)) == 3  # the clips can be told apart
