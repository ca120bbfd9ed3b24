"""Small clips with known answers, shared by the tests of metrics."""

import numpy as np

from unitemp_jax.video.write import write_video


def drifting_texture(frames=45, size=24, seed=0, speed=1.0):
  """A smooth random texture that drifts steadily, uint8 [T, S, S, 3]."""
  rng = np.random.default_rng(seed)
  time, y, x = np.meshgrid(
    np.arange(frames),
    np.arange(size) / size,
    np.arange(size) / size,
    indexing='ij',
  )
  clip = np.zeros((frames, size, size, 3))
  for _ in range(6):
    turn = rng.integers(1, 3) * y + rng.integers(1, 3) * x
    turn = turn + speed * rng.uniform(0.01, 0.02) * time
    phase = rng.uniform(0, 2 * np.pi, 3)
    clip += np.sin(2 * np.pi * turn[..., None] + phase)
  return np.rint(255 * (0.5 + clip / 16)).astype(np.uint8)


def with_gain(clip, gain, first=8, period=12):
  """Blocks darker and brighter in turn by the part `gain`, as seams show."""
  block = (np.arange(len(clip)) + period - first - 1) // period
  factor = 1 + gain * np.where(block % 2, 1, -1)
  brighter = clip * factor[:, None, None, None]
  return np.clip(np.rint(brighter), 0, 255).astype(np.uint8)


def write(path, clip, fps=8, **about):
  """Writes a clip as it is, with its record in the tags."""
  write_video(path, clip, fps, about, scale=1, crf=8)
  return path
