"""Suite `ceiling`: how well can *true* past latents hide a seam?

A streaming decoder shows a block as soon as it exists, in a short window whose
first latents stand in for the past. Here that past is the true one, so what is
left of the seam is what no student can remove. With exactly P past latents in
the clip (`all there is`) the seam is gone by construction.
"""

from collections.abc import Callable, Sequence

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.evaluation.metrics import flicker, temporal
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import Bench
from unitemp_jax.video.frames import frame_steps, unit_pixels

Coder = Callable[[np.ndarray], np.ndarray]


def anchor_ceiling(
  decode: Coder,
  encode: Coder,
  latents: np.ndarray,
  video: np.ndarray,
  *,
  past: Sequence[int] = range(7),
  block: int = 3,
) -> dict[int, dict[str, dict[str, np.ndarray]]]:
  """Decodes each block in windows of P true past latents, raw and windowed.

  P = 0 is the block alone, whose first latent is then read as an image latent:
  it decodes to 1 + 4(block-1) frames, and its first frame is shown 4 times.
  That is what such a stream would show, and it inflates the ratio.

  Args:
    decode: latents [n, F, h, w, C] to frames [n, 1+4(F-1), H, W, 3], uint8 or
      floats in [0, 1].
    encode: frames, as `video` has them, to latents.
    latents: [n, N, h, w, C], the encoding of the whole clips.
    video: [n, 1+4(N-1), H, W, 3], the real clips.
    past: values of P.
    block: latent frames of a block.

  Returns:
    Boundary -> 'joint' and 'P = 0' ... as far as there are past latents ->
    'BFR, raw' and 'PSNR, raw', the same with 'windowed', [n] each: the flicker
    ratio where the block follows the joint decode of what is before it, and dB
    of its first 4 frames against that. raw: latents of the whole clip, sliced;
    windowed: the past's frames encoded by themselves, the block as it is.
  """
  starts = range(block, latents.shape[1] - block + 1, block)
  joint = unit_pixels(decode(latents))
  found: dict[int, dict] = {}
  for start in starts:
    at = timeline.last_frame(start - 1)
    own = joint[:, at + 1 : at + 1 + timeline.STRIDE * block]
    ratio = _compare(joint, own, at, 'raw')['BFR, raw']
    found[at] = {'joint': {'BFR, raw': ratio, 'BFR, windowed': ratio}}
  for count in past:
    for start in starts:
      if count > start:
        continue
      first, at = start - count, timeline.last_frame(start - 1)
      own, raw = latents[:, start : start + block], latents[:, first:start]
      begin = timeline.last_frame(first)
      windowed = encode(video[:, begin : at + 1]) if count else raw
      group = f'P = {count}' + (' (all there is)' if count == start else '')
      values = found[at][group] = {}
      for variant, before in (('raw', raw), ('windowed', windowed)):
        window = np.concatenate([before, own], axis=1)
        shown = _last_frames(unit_pixels(decode(window)), block)
        values |= _compare(joint, shown, at, variant)
  return found


def _last_frames(decoded: np.ndarray, block: int) -> np.ndarray:
  """The block's frames: the last 12; alone, the first frame is repeated."""
  wanted = timeline.STRIDE * block
  missing = max(0, wanted - decoded.shape[1])
  head = np.repeat(decoded[:, :1], missing, axis=1)
  return np.concatenate([head, decoded[:, -wanted:]], axis=1)


def _compare(
  joint: np.ndarray, shown: np.ndarray, boundary: int, variant: str
) -> dict[str, np.ndarray]:
  pieced = np.concatenate([joint[:, : boundary + 1], shown], axis=1)
  # No other boundary lies within reach of this one's neighbours.
  ratio = flicker.boundary_flicker_ratio(frame_steps(pieced), [boundary])
  first = slice(boundary + 1, boundary + 1 + timeline.STRIDE)
  psnr = temporal.psnr(pieced[:, first], joint[:, first])
  return {f'BFR, {variant}': ratio, f'PSNR, {variant}': psnr}


PAST = range(7)
_CLIPS = 64


def run(bench: Bench) -> list[Section]:
  """Decodes real latents in windows, at every boundary that has the past.

  The clips are made long enough that the last boundary has more past than the
  longest window; the VAE is convolutional in time and takes any length.
  """
  block = bench.card.block
  least = -(-(max(PAST) + 1) // block) + 1  # blocks
  frames = max(bench.card.frames, timeline.num_frames(block * least))
  video = bench.scene('fall', frames, most=_CLIPS)['video']
  found = anchor_ceiling(
    lambda latents: decode_in_blocks(bench.decode, latents, block),
    lambda pixels: encode_in_blocks(bench.encode, pixels, block),
    bench.encode(video),
    video,
    past=PAST,
    block=block,
  )
  return [
    bench.section(
      f'Ceiling for anchors at transition {at} of {frames} frames',
      {
        group: {
          'window {0} at {2}, {1}'.format(*name.split(', '), at): values
          for name, values in own.items()
        }
        for group, own in table.items()
      },
    )
    for at, table in sorted(found.items(), reverse=True)
  ]


def decode_in_blocks(
  decode: Callable, latents: np.ndarray, block: int
) -> np.ndarray:
  """Decodes latents as the beginning of whole blocks.

  The VAE is causal, so what is appended changes nothing before it, and windows
  of many lengths share few compiled programs.

  Args:
    decode: latents `[n, F, h, w, C]` to `[n, 1 + 4 (F - 1), H, W, 3]`.
    latents: any F.
    block: latents per block.
  """
  count = latents.shape[1]
  frames = decode(_extended(latents, -(-count // block) * block))
  return frames[:, : timeline.num_frames(count)]


def encode_in_blocks(
  encode: Callable, video: np.ndarray, block: int
) -> np.ndarray:
  """Encodes frames as the beginning of whole blocks; see `decode_in_blocks`."""
  count = timeline.num_latents(video.shape[1])
  longer = -(-count // block) * block
  return encode(_extended(video, timeline.num_frames(longer)))[:, :count]


def _extended(series: np.ndarray, length: int) -> np.ndarray:
  """Repeats the last entry along axis 1 up to a length."""
  rest = np.repeat(series[:, -1:], length - series.shape[1], axis=1)
  return np.concatenate([series, rest], axis=1)
