import numpy as np

from unitemp_jax.evaluation.suites import ceiling


def decode(latents):
  """A causal decoder that looks back over two latents; zeros if none."""
  past = np.pad(latents, ((0, 0), (2, 0), (0, 0), (0, 0), (0, 0)))
  mixed = past[:, 2:] + past[:, 1:-1] + past[:, :-2]
  # Four frames a latent, drifting on a little, but one for the first.
  drift = 0.002 * np.arange(4)[None, None, :, None, None, None]
  frames = mixed[:, :, None] + drift
  frames = frames.reshape(len(latents), -1, *latents.shape[2:])
  return np.repeat(frames[:, 3:], 3, axis=-1)


def encode(frames):
  """Takes each latent's last frame; undoes `decode` only without a past."""
  return frames[:, ::4, :, :, :1] / 3


def clips(num_latents=12):
  rng = np.random.default_rng(0)
  latents = rng.uniform(0.1, 0.3, (4, 1, 2, 2, 1))
  latents = latents + np.cumsum(
    rng.normal(0, 0.002, (4, num_latents, 2, 2, 1)), axis=1
  )
  return latents, decode(latents)


def test_enough_true_past_removes_the_seam_and_less_does_not():
  latents, video = clips()
  found = ceiling.anchor_ceiling(decode, encode, latents, video)
  assert list(found) == [8, 20, 32]
  for table in found.values():
    assert set(table['joint']) == {'BFR, raw', 'BFR, windowed'}
    for group, values in table.items():
      if group in ('P = 0', 'P = 1'):
        assert (values['PSNR, raw'] < 30).all()
        assert (values['BFR, raw'] > 5).all()
      elif group != 'joint':
        np.testing.assert_allclose(values['PSNR, raw'], 100)


def test_only_boundaries_with_enough_past_count_and_whole_pasts_are_marked():
  latents, video = clips()
  found = ceiling.anchor_ceiling(decode, encode, latents, video)
  assert 'P = 3 (all there is)' in found[8]
  assert not [group for group in found[8] if group.startswith('P = 4')]
  assert 'P = 6 (all there is)' in found[20] and 'P = 6' in found[32]


def test_windowed_encodes_from_the_first_frame_of_the_window():
  latents, video = clips()
  seen = []

  def spy(frames):
    seen.append(frames)
    return encode(frames)

  ceiling.anchor_ceiling(decode, spy, latents, video, past=[2])
  # Block 1 has the past latents 1 and 2, which stand for the frames 4..8.
  np.testing.assert_array_equal(seen[0], video[:, 4:9])


def test_block_alone_repeats_its_first_frame():
  latents, video = clips(6)
  shapes = []

  def spy(z):
    shapes.append(z.shape[1])
    return decode(z)

  found = ceiling.anchor_ceiling(spy, encode, latents, video, past=[0])
  assert shapes == [6, 3, 3]
  assert found[8]['P = 0']['BFR, raw'].shape == (4,)


def test_windows_in_whole_blocks_equal_windows_alone():
  latents, video = clips()
  part = latents[:, :4]
  padded = ceiling.decode_in_blocks(decode, part, 3)
  np.testing.assert_array_equal(padded, decode(part))
  np.testing.assert_array_equal(
    ceiling.encode_in_blocks(encode, video[:, :13], 3), encode(video[:, :13])
  )
  # Negative control: the latents before a window do change it.
  alone, whole = decode(latents[:, 1:5]), decode(latents)
  assert np.abs(alone[:, 0] - whole[:, 4]).max() > 0.1
