"""Suite `ceiling`: how well true past latents can hide a seam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.evaluation.metrics import bootstrap, windows
from unitemp_jax.evaluation.suites.bench import Bench, Section, clip_spec

PAST = range(7)
_CLIPS = 64
_BFR = (
  'geometric mean over clips of the boundary flicker ratio where a block of '
  'real latents is decoded in a window of P true past latents (raw: sliced '
  'from the encoding of the clip; windowed: their frames encoded by '
  'themselves, so that the first is an image latent)'
)
_PSNR = 'PSNR of the first 4 frames of that block against joint decoding'


def run(bench: Bench) -> list[Section]:
  """Decodes real latents in windows, at every boundary that has the past.

  The clips are made long enough that the last boundary has more past than the
  longest window; the VAE is convolutional in time and takes any length.
  """
  block, frames = bench.card.block, bench.card.frames
  least = -(-(max(PAST) + 1) // block) + 1  # blocks
  frames = max(frames, 1 + 4 * (block * least - 1))
  count = min(_CLIPS, bench.settings.num_clips)
  video = sample_clips(clip_spec(bench.card, frames), range(count))['video']
  found = windows.anchor_ceiling(
    lambda latents: decode_in_blocks(bench.decode, latents, block),
    lambda pixels: encode_in_blocks(bench.encode, pixels, block),
    bench.encode(video),
    video,
    past=PAST,
    block=block,
  )
  boundaries = sorted({entry.boundary for entry in found}, reverse=True)
  return [_section(bench, found, at, frames) for at in boundaries]


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
  return frames[:, : 1 + 4 * (count - 1)]


def encode_in_blocks(
  encode: Callable, video: np.ndarray, block: int
) -> np.ndarray:
  """Encodes frames as the beginning of whole blocks; see `decode_in_blocks`."""
  count = 1 + (video.shape[1] - 1) // 4
  longer = -(-count // block) * block
  return encode(_extended(video, 1 + 4 * (longer - 1)))[:, :count]


def _extended(series: np.ndarray, length: int) -> np.ndarray:
  """Repeats the last entry along axis 1 up to a length."""
  rest = np.repeat(series[:, -1:], length - series.shape[1], axis=1)
  return np.concatenate([series, rest], axis=1)


def _section(bench, found, boundary, frames) -> Section:
  rows = []
  for entry in found:
    if entry.boundary != boundary:
      continue
    joint = entry.variant == 'joint'
    group = 'joint' if joint else f'P = {entry.past}'
    if entry.whole_past and not joint:
      group += ' (all there is)'
    # The reference stands in both columns.
    for kind in ('raw', 'windowed') if joint else (entry.variant,):
      flicker = bootstrap.geometric_mean(entry.flicker)
      metric = f'window BFR at {boundary}, {kind}'
      rows.append(bench.row(metric, group, flicker, 'ratio', _BFR))
      if not joint:
        psnr = bootstrap.mean(entry.psnr)
        metric = f'window PSNR at {boundary}, {kind}'
        rows.append(bench.row(metric, group, psnr, 'dB', _PSNR))
  title = f'Ceiling for anchors at transition {boundary} of {frames} frames'
  return Section(title, tuple(rows))
