"""The ceiling for anchors: how well can *true* past latents hide a seam?

A streaming decoder shows a block as soon as it exists, in a short window whose
first latents stand in for the past. Here that past is the true one, so what
is left of the seam is what no student can remove. The decoder and the encoder
are passed in.

With exactly P past latents in the clip, the window is the whole past and the
seam is gone by construction; such rows are marked `whole_past` and prove
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import flicker, temporal
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
