"""Suite `ceiling`: how well can *true* past latents hide a seam?

A streaming decoder shows a block as soon as it exists, in a short window whose
first latents stand in for the past. Here that past is the true one, so what
is left of the seam is what no student can remove.

With exactly P past latents in the clip, the window is the whole past and the
seam is gone by construction; such rows are marked `whole_past` and prove
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, flicker, temporal
from unitemp_jax.evaluation.suites.bench import Bench, Section, clip_spec
from unitemp_jax.video.frames import frame_steps, unit_pixels

Decode = Callable[[np.ndarray], np.ndarray]
Encode = Callable[[np.ndarray], np.ndarray]

_FRAMES_PER_LATENT = 4


@dataclasses.dataclass(frozen=True)
class WindowResult:
  """One block decoded in one kind of window.

  Attributes:
    variant: 'raw' (latents of the whole clip, sliced), 'windowed' (the past's
      frames encoded by themselves, so that its first is an image latent; the
      block as it is), or 'joint' (the reference).
    past: true past latents in the window, P; for 'joint', all of them.
    boundary: the transition before the block.
    whole_past: whether the window reaches back to the start of the clip.
    flicker: [n] boundary flicker ratio there, the frames before it being the
      joint decode.
    psnr: [n] dB of the block's first 4 frames against the joint decode.
  """

  variant: str
  past: int
  boundary: int
  whole_past: bool
  flicker: np.ndarray
  psnr: np.ndarray


def anchor_ceiling(
  decode: Decode,
  encode: Encode,
  latents: np.ndarray,
  video: np.ndarray,
  *,
  past: Sequence[int] = range(7),
  block: int = 3,
) -> list[WindowResult]:
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
    One 'joint' entry per boundary, then one entry for each variant, P and
    boundary that has at least P past latents.

  Raises:
    UserError: the clips hold a single block, or video and latents disagree.
  """
  num_latents = latents.shape[1]
  if video.shape[1] != 1 + _FRAMES_PER_LATENT * (num_latents - 1):
    raise UserError(
      f'{num_latents} latents code '
      f'{1 + _FRAMES_PER_LATENT * (num_latents - 1)} frames, but the clips '
      f'have {video.shape[1]}; pass the clips that were encoded.'
    )
  starts = range(block, num_latents - block + 1, block)
  if not starts:
    raise UserError(
      f'{num_latents} latents hold a single block of {block}, so there is no '
      'boundary; use longer clips.'
    )
  joint = unit_pixels(decode(latents))
  results = [
    _compare(joint, _block_of(joint, start, block), start, 'joint', start)
    for start in starts
  ]
  for count in past:
    for start in starts:
      if count > start:
        continue
      first = start - count
      own, raw = latents[:, start : start + block], latents[:, first:start]
      begin, end = _FRAMES_PER_LATENT * first, _FRAMES_PER_LATENT * (start - 1)
      windowed = encode(video[:, begin : end + 1]) if count else raw
      for variant, before in (('raw', raw), ('windowed', windowed)):
        window = np.concatenate([before, own], axis=1)
        shown = _last_frames(unit_pixels(decode(window)), block)
        results.append(_compare(joint, shown, start, variant, count))
  return results


def _block_of(joint: np.ndarray, start: int, block: int) -> np.ndarray:
  begin = _FRAMES_PER_LATENT * (start - 1) + 1
  return joint[:, begin : begin + _FRAMES_PER_LATENT * block]


def _last_frames(decoded: np.ndarray, block: int) -> np.ndarray:
  """The block's frames: the last 12; alone, the first frame is repeated."""
  wanted = _FRAMES_PER_LATENT * block
  missing = max(0, wanted - decoded.shape[1])
  head = np.repeat(decoded[:, :1], missing, axis=1)
  return np.concatenate([head, decoded[:, -wanted:]], axis=1)


def _compare(
  joint: np.ndarray, shown: np.ndarray, start: int, variant: str, past: int
) -> WindowResult:
  boundary = _FRAMES_PER_LATENT * (start - 1)
  pieced = np.concatenate([joint[:, : boundary + 1], shown], axis=1)
  # No other boundary lies within reach of this one's neighbours.
  ratio = flicker.boundary_flicker_ratio(frame_steps(pieced), [boundary])
  first = slice(boundary + 1, boundary + 1 + _FRAMES_PER_LATENT)
  return WindowResult(
    variant=variant,
    past=past,
    boundary=boundary,
    whole_past=past == start,
    flicker=ratio,
    psnr=temporal.psnr(pieced[:, first], joint[:, first]),
  )


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
  found = anchor_ceiling(
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
