"""What a user asks for: one video, as a plan with prompts and given frames."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.plans import Plan, check, decoding


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
  """Frames that are given, and where they stand on the finished timeline.

  They appear in the video pixel for pixel. A given clip is encoded by itself:
  its first latent is an image latent (`unitemp_jax/README.md`, Given frames).

  Attributes:
    frame: timeline index of the first of them, 0 or a multiple of 4; frame 0
      starts the video.
    video: uint8 `[n, H, W, 3]`, n = 1 for an image, 1 + 4k for a clip.
  """

  frame: int
  video: np.ndarray

  @property
  def num_latents(self) -> int:
    """Latents that code it: 1 + k."""
    return 1 + (len(self.video) - 1) // timeline.STRIDE


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """One video to be made; it decides every bit of the result.

  Attributes:
    workflow: name of what is done: 'forward', 'extend', 'story', ...
    plan: checked rows; its timeline need not start at position 0.
    prompts: texts that `plan.prompt` points into.
    seed: of all noise, 0 .. 2**32 - 1.
    height: pixels.
    width: pixels.
    given: frames by time.
    remarks: sentences on what of the input the video will not have.
  """

  workflow: str
  plan: Plan
  prompts: tuple[str, ...]
  seed: int
  height: int
  width: int
  given: tuple[Given, ...] = ()
  remarks: tuple[str, ...] = ()

  def __post_init__(self):
    """Refuses what cannot be run.

    Raises:
      UserError: given frames overlap, lie outside the video, have another size
        or do not stand where the plan reads them; a prompt is missing or empty;
        the plan breaks a law.
    """
    check(self.plan)
    _check_prompts(self)
    _check_given(self)

  @property
  def num_frames(self) -> int:
    """Frames of the finished video, 1 + 4k."""
    return self.plan.num_frames

  def position(self, frame: int) -> int:
    """Temporal position of the latent that ends with a frame (or holds it)."""
    return self.plan.begin + -(-frame // timeline.STRIDE)

  def paste(self, first: int, frames: np.ndarray) -> np.ndarray:
    """Frames `[n, H, W, 3]` from index `first` on, with given ones in place."""
    frames = frames.copy()
    shown = list(self.given)
    if self.plan.loops:  # the first frame is the last one too
      shown += [
        Given(self.num_frames - 1, given.video[:1])
        for given in self.given
        if given.frame == 0
      ]
    for given in shown:
      low = max(first, given.frame)
      high = min(first + len(frames), given.frame + len(given.video))
      if low < high:
        own = given.video[low - given.frame : high - given.frame]
        frames[low - first : high - first] = own
    return frames


def _check_prompts(request: Request) -> None:
  needed = int(request.plan.prompt.max()) + 1
  if len(request.prompts) < needed:
    raise UserError(
      f'the plan asks for {needed} prompts, but {len(request.prompts)} are '
      'given; give one text for each.'
    )
  for prompt in request.prompts:
    if not prompt.strip():
      raise UserError('the prompt is empty; say what the video should show.')
  if not 0 <= request.seed < 2**32:
    raise UserError(f'seed {request.seed} must lie in 0..{2**32 - 1}.')


def _check_given(request: Request) -> None:
  end = -1
  for given in sorted(request.given, key=lambda given: given.frame):
    frames, last = len(given.video), given.frame + len(given.video) - 1
    where = f'the frames given at {given.frame}..{last}'
    if given.video.shape != (frames, request.height, request.width, 3):
      raise UserError(
        f'{where} have shape {list(given.video.shape)}; the video has '
        f'{request.height}x{request.width} pixels, so fit them first.'
      )
    if frames % timeline.STRIDE != 1 or given.frame % timeline.STRIDE:
      raise UserError(
        f'{where} must be 1 + 4k frames and begin at a multiple of 4; the '
        f'nearest that fit are {4 * round(given.frame / 4)}..'
        f'{4 * round(given.frame / 4) + 4 * (frames // 4)}.'
      )
    if given.frame <= end or last >= request.num_frames:
      raise UserError(
        f'{where} overlap others or end after the video, whose frames are '
        f'0..{request.num_frames - 1}; move or shorten them.'
      )
    end = last
  places(request.plan, request.given)


def describe_blocks(plan: Plan) -> dict[str, Any]:
  """What reports, pages and metrics know of the blocks of a video.

  Returns:
    `generation_order`: temporal positions of each block, in the order in which
    they were made or given; a given clip is one block, however many rows read
    it. Frame 0 belongs to the first block, the frames with which a loop closes
    are one of their own. `boundary_frames`: the transitions between blocks, by
    the frame before.
  """
  rows = decoding.new_positions(plan)
  clips: dict[int, list[int]] = {}  # position -> all of its given clip
  for position in sorted(
    p for r in np.flatnonzero(plan.given) for p in rows[r]
  ):
    clips[position] = clips.get(position - 1, [])
    clips[position].append(position)
  blocks: list[list[int]] = []
  for row, own in enumerate(rows):
    for block in [clips[p] for p in own] if plan.given[row] else [own]:
      if block and block not in blocks:
        blocks.append(block)
  blocks = decoding.with_ends(plan, blocks)
  firsts = sorted(own[0] for own in blocks if own[0] > plan.begin)
  return {
    'generation_order': blocks,
    'boundary_frames': [timeline.STRIDE * (p - plan.begin - 1) for p in firsts],
  }


def places(plan: Plan, given: Sequence[Given]) -> list[tuple[int, int]]:
  """Where the latents come from that must be there before the first row.

  Returns:
    For each of `plan.preloaded()`: the index of the given frames, and which of
    their latents.

  Raises:
    UserError: the plan reads a latent at a position where nothing is given.
  """
  held = {
    plan.begin + clip.frame // timeline.STRIDE + k: (index, k)
    for index, clip in enumerate(given)
    for k in range(clip.num_latents)
  }
  positions = plan.preloaded()[0].tolist()
  missing = [position for position in positions if position not in held]
  if missing:
    raise UserError(
      f'this order is conditioned on the latents at positions {positions}, but '
      f'nothing is given for {missing}; give the frames they code.'
    )
  return [held[position] for position in positions]


def given_latents(
  requests: Sequence[Request], encode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
  """Latents given to a batch, in the order of `Plan.preloaded`.

  Args:
    requests: of one plan, with frames given at the same places.
    encode: clips `[B, n, H, W, 3]` to latents, each clip by itself, so that its
      first latent is an image latent.

  Returns:
    `[B, K, h, w, C]`, or None if nothing is given.
  """
  first = requests[0]
  clips = [
    encode(np.stack([request.given[i].video for request in requests]))
    for i in range(len(first.given))
  ]
  order = places(first.plan, first.given)
  parts = [clips[clip][:, k] for clip, k in order]
  return np.stack(parts, axis=1) if parts else None
