"""Writes a finished clip: video, poster, strip of frames, and last the sidecar.

The frames come piece by piece and are forgotten at once, so that a long clip
takes no more memory than a short one.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.generate.request import Given, Request
from unitemp_jax.plans import Plan
from unitemp_jax.plans.decoding import new_positions, with_ends
from unitemp_jax.video import frames as pixels
from unitemp_jax.video.write import open_video, write_image

_TILES = 64  # at most, in a strip


def made_blocks(plan: Plan) -> list[list[int]]:
  """Positions of the video in the order in which they were made or given.

  A given clip is one block, however many rows read it: it has no seam.
  """
  rows = new_positions(plan)
  given = sorted(p for row in np.flatnonzero(plan.given) for p in rows[row])
  clip_of: dict[int, list[int]] = {}
  for position in given:
    clip_of[position] = clip_of.get(position - 1, [])
    clip_of[position].append(position)
  blocks: list[list[int]] = []
  for row, own in enumerate(rows):
    if own and not plan.given[row]:
      blocks.append(own)
    for position in own if plan.given[row] else []:
      if clip_of[position] not in blocks:
        blocks.append(clip_of[position])
  return with_ends(plan, blocks)


class _Watch:
  """What is kept of frames that go by."""

  def __init__(self, request: Request):
    self.request = request
    self.count = 0
    self.steps: list[float] = []
    self.tiles: list[np.ndarray] = []
    self.poster = np.zeros((1, 1, 3), np.uint8)
    self.errors = [0.0] * len(request.given)
    # A strip shows every third frame, or fewer of a long clip.
    self._every = 3 * -(-request.num_frames // (3 * _TILES))
    self._last = np.zeros((0,), np.uint8)

  def add(self, decoded: np.ndarray) -> np.ndarray:
    """Takes decoded frames and returns them with the given ones in place."""
    shown = self.request.paste(self.count, decoded)
    for i, given in enumerate(self.request.given):
      self.errors[i] += _squared_error(given, self.count, decoded)
    for index, frame in enumerate(shown, start=self.count):
      if index:
        pair = np.stack([self._last, frame])[None]
        self.steps.append(float(pixels.frame_steps(pair)[0, 0]))
      if index % self._every == 1:
        self.tiles.append(frame.copy())
      if index == self.request.num_frames // 2:
        self.poster = frame.copy()
      self._last = frame
    self.count += len(decoded)
    return shown

  def given(self) -> list[dict[str, Any]]:
    """Where frames were given, and how near the decoded latents come to them.

    PSNR is in dB, 100 at most.
    """
    rows = []
    for given, error in zip(self.request.given, self.errors, strict=True):
      mean = error / given.video.size
      psnr = 100.0 if mean < 1e-10 else min(-10 * np.log10(mean), 100.0)
      rows.append(
        {
          'frame': given.frame,
          'frames': len(given.video),
          'psnr': round(float(psnr), 2),
        }
      )
    return rows


def _squared_error(given: Given, first: int, decoded: np.ndarray) -> float:
  """Sum of squared differences where decoded frames meet given ones."""
  low = max(first, given.frame)
  high = min(first + len(decoded), given.frame + len(given.video))
  if low >= high:
    return 0.0
  wanted = given.video[low - given.frame : high - given.frame]
  difference = pixels.unit_pixels(decoded[low - first : high - first])
  difference = difference - pixels.unit_pixels(wanted)
  return float(np.square(difference, dtype=np.float64).sum())


def about(request: Request, fps: float) -> dict[str, Any]:
  """What a clip says about itself, in its tags and in its sidecar."""
  blocks = made_blocks(request.plan)
  starts = {block[0] for block in blocks}
  first = request.plan.begin
  ends = [0, 0]
  for given in request.given:
    if given.frame == 0:
      ends[0] = len(given.video)
    if given.frame + len(given.video) == request.num_frames:
      ends[1] = len(given.video)
  more = {}
  if len(request.prompts) > 1:
    more['prompts'] = list(request.prompts)
  return {
    'prompt': request.prompts[0],
    **more,
    'seed': request.seed,
    'order': request.workflow,
    'frames': request.num_frames,
    'fps': fps,
    'boundary_frames': [
      4 * (p - first - 1) for p in sorted(starts) if p > first
    ],
    'generation_order': blocks,
    'given_frames': ends,
  }


def write(
  path: Path,
  request: Request,
  decoded: Iterable[np.ndarray],
  tags: dict[str, Any],
  more: dict[str, Any],
  *,
  lossless: bool,
) -> None:
  """Writes all files of a clip.

  Args:
    path: of the mp4; sidecar, poster and strip lie beside it.
    request: what was made.
    decoded: frames uint8 `[n, H, W, 3]` in temporal order, nothing pasted.
    tags: what mp4 and sidecar say, see `about`.
    more: what only the sidecar says.
    lossless: whether to write an mkv too, with every pixel as it was made.

  Raises:
    UserError: a file cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  watch = _Watch(request)
  with ExitStack() as stack:
    fps = tags['fps']
    outs = [stack.enter_context(open_video(path, fps, tags))]
    if lossless:
      exact = open_video(path.with_suffix('.mkv'), fps, lossless=True)
      outs.append(stack.enter_context(exact))
    for frames in decoded:
      shown = watch.add(frames)
      for append in outs:
        append(shown)
  write_image(path.with_suffix('.png'), watch.poster)
  if watch.tiles:
    strip = np.concatenate(watch.tiles, axis=1)
    write_image(path.with_suffix('.strip.png'), strip)
  sidecar = {
    **tags,
    'given': watch.given(),
    'frame_difference': [round(step, 6) for step in watch.steps],
    **more,
  }
  files.write_json(path.with_suffix('.json'), sidecar)
