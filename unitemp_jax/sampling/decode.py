"""Latents to pixels: jointly when all exist, or block by block as made.

A causal decoder needs the past of a block. Jointly it has all of it. Streaming,
a block is decoded in the context that exists at that moment: what was decoded
before it in time, else the anchors it was denoised with, else nothing
(`unitemp_jax/README.md`, Decoding; P + B latents decode to 1 + 4 (P + B - 1)
frames, of which the last 4 B are kept). The decoder's memory is handed from
chunk to chunk, so that a block costs the same however long its past is.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from unitemp_jax.plans import Plan

# Latents [B, F, h, w, C] to frames [B, 1 + 4 (F - 1), H, W, 3].
Decode = Callable[[np.ndarray], np.ndarray]
# The same with the memory of what came before, and that of what came since.
# With memory every latent gives 4 frames; without it (None) the first is an
# image latent of one frame.
Chunk = Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]
Piece = tuple[int, np.ndarray]  # first frame on the timeline, frames [B, n, ..]


def remembering(decode: Decode) -> Chunk:
  """A decoder whose memory is all latents so far, which it decodes again."""

  def chunk(latents, memory):
    if memory is None:
      return decode(latents), latents
    whole = np.concatenate([memory, latents], axis=1)
    return decode(whole)[:, -4 * latents.shape[1] :], whole

  return chunk


def window(decode: Decode, past: np.ndarray, block: np.ndarray) -> np.ndarray:
  """Decodes a block after its past and keeps the block's own frames.

  Args:
    decode: of the VAE, starting from nothing.
    past: latents `[B, P, h, w, C]`, P may be 0.
    block: latents `[B, n, h, w, C]`.

  Returns:
    `4 n` frames. Without past the decoder takes the block's first latent for an
    image latent of one frame; that frame is repeated 4 times.
  """
  return _after(decode(np.concatenate([past, block], axis=1)), block.shape[1])


def _after(frames: np.ndarray, latents: int) -> np.ndarray:
  """The 4 frames of each of the last `latents` latents."""
  missing = 4 * latents - frames.shape[1]
  if missing > 0:
    repeated = np.repeat(frames[:, :1], missing, axis=1)
    return np.concatenate([repeated, frames], axis=1)
  return frames[:, -4 * latents :]


def new_positions(plan: Plan) -> list[list[int]]:
  """For each row, the positions of the video that exist since that row."""
  positions, entries = plan.timeline()
  where = dict(zip(positions.tolist(), entries.tolist(), strict=True))
  seen: set[int] = set()
  rows = []
  for row in range(plan.num_rows):
    own = [p for p, entry in plan.entries(row) if where.get(p) == entry]
    rows.append([p for p in own if p not in seen])
    seen.update(own)
  return rows


def with_ends(plan: Plan, blocks: list[list[int]]) -> list[list[int]]:
  """Blocks of a video, with what an open start shows beside them.

  Args:
    plan: of the video.
    blocks: positions that were made or given together, in that order.

  Returns:
    The blocks over all of `begin .. begin + frames / 4`: frame 0 is a part of
    the first block; a loop's last frames are one that is made with the first.
  """
  if plan.opening is None:
    return blocks
  first, found = int(plan.timeline()[0][0]), []
  for block in blocks:
    if block[0] != first:
      found.append(block)
    elif plan.loops:
      found += [block, [plan.begin + plan.num_frames // 4]]
    else:
      found.append([plan.begin, *block])
  return found


class Streamer:
  """Decodes the rows of a plan in the order in which they are made.

  A given clip that does not start the video is decoded from its own image
  latent on, as it was encoded, and so is what grows forward from it.
  """

  def __init__(self, decode: Chunk, plan: Plan):
    """Starts with nothing decoded.

    Args:
      decode: of the VAE.
      plan: checked rows.
    """
    self._decode = decode
    self._plan = plan
    self._own = new_positions(plan)
    positions, entries = plan.timeline()
    self._where = dict(zip(positions.tolist(), entries.tolist(), strict=True))
    self._start, self._begin = int(positions[0]), plan.begin
    self._beginnings = {own[0] for own in self._own if own}
    self._memory: dict[int, Any] = {}  # by the position that continues it
    self._heads: dict[int, np.ndarray] = {}  # image latents of given clips
    self._waiting: dict[int, np.ndarray] = {}  # given, their past is not there
    self._last = int(np.flatnonzero(plan.count > 0)[-1])

  def add(
    self, row: int, latents: np.ndarray, anchors: np.ndarray
  ) -> list[Piece]:
    """Decodes a row; call it for every row in turn.

    Args:
      row: its number.
      latents: its valid entries `[B, count, h, w, C]`.
      anchors: that it was denoised with, `[B, P, h, w, C]`; read if it has any.

    Returns:
      (first frame on the timeline, frames) of what is new in the video.
    """
    own = self._own[row]
    if self._plan.given[row]:
      for k, (position, entry) in enumerate(self._plan.entries(row)):
        if position in own:
          self._waiting[position] = latents[:, k : k + 1]
        elif self._where.get(position) != entry:
          self._heads[position] = latents[:, k : k + 1]
      pieces = self._flush()
    else:
      past = anchors if self._plan.anchor[row] else latents[:, :0]
      memory = self._memory.pop(own[0], None)
      pieces = self._pieces(own, latents, past, memory)
    if row == self._last:  # heads that no row has read will not come any more
      pieces += self._flush(all_of_it=True)
    if self._plan.loops and self._plan.opening is None:
      return self._closed(pieces)
    return pieces

  def _closed(self, pieces: list[Piece]) -> list[Piece]:
    """Shows the last frame of a loop first, too, as soon as it is there."""
    found = []
    for first, frames in pieces:
      if first == 0:
        first, frames = 1, frames[:, 1:]
      if frames.shape[1]:
        found.append((first, frames))
      if first + frames.shape[1] == self._plan.num_frames:
        found.append((0, frames[:, -1:]))
    return found

  def _flush(self, all_of_it: bool = False) -> list[Piece]:
    """Decodes given latents whose past is there."""
    pieces = []
    for first in sorted(self._waiting):
      if first not in self._waiting or first - 1 in self._waiting:
        continue
      head = self._heads.get(first - 1)
      memory = None if head is not None else self._memory.get(first)
      known = first == self._start or head is not None or memory is not None
      if not (known or all_of_it):
        continue
      own = [first]
      while own[-1] + 1 in self._waiting:
        own.append(own[-1] + 1)
      run = np.concatenate([self._waiting.pop(p) for p in own], axis=1)
      past = run[:, :0] if head is None or first == self._start else head
      pieces += self._pieces(own, run, past, memory)
    return pieces

  def _pieces(self, own, latents, past, memory) -> list[Piece]:
    """Decodes positions `own` after their past, or with memory of it."""
    if memory is None:
      latents = np.concatenate([past, latents], axis=1)
    # Block by block, so that long given clips run the same programs.
    parts = []
    for k in range(0, latents.shape[1], size := self._size(past)):
      frames, memory = self._decode(latents[:, k : k + size], memory)
      parts.append(frames)
    decoded = np.concatenate(parts, axis=1)
    frames = _after(decoded, len(own))
    following = own[-1] + 1
    self._beginnings.discard(own[0])
    if following in self._beginnings or following in self._waiting:
      self._memory[following] = memory
    first = 4 * (own[0] - self._begin) - 3
    if own[0] > self._start:
      return [(first, frames)]
    # Frame 0 is the last of the past, or of the first latent.
    pieces = [(0, decoded[:, -(first + frames.shape[1]) :])]
    if self._plan.loops and self._plan.opening is not None:
      # That one's others end the loop.
      pieces.append((self._plan.num_frames - 4, frames[:, :4]))
    return pieces

  def _size(self, past: np.ndarray) -> int:
    """Latents that are decoded at a time: a block, with its anchors if any."""
    return self._plan.block + (past.shape[1] if past.shape[1] > 1 else 0)


def stream(
  decode: Decode, plan: Plan, latents: np.ndarray, anchors: np.ndarray
) -> list[Piece]:
  """Decodes a finished plan as if each row were shown as soon as it exists.

  Args:
    decode: of the VAE.
    plan: what was run.
    latents: its buffer `[B, entries, h, w, C]`.
    anchors: of every row, `[J, B, P, h, w, C]`.

  Returns:
    In the order of generation: (first frame on the timeline, frames). Given
    clips on the timeline come first.
  """
  streamer = Streamer(remembering(decode), plan)
  pieces = []
  for row in range(plan.num_rows):
    entries = [entry for _, entry in plan.entries(row)]
    if entries:
      pieces += streamer.add(row, latents[:, entries], anchors[row])
  return pieces


def sequence(
  plan: Plan, latents: np.ndarray, anchors: np.ndarray
) -> np.ndarray:
  """The latents to decode, one after the other, for a finished video.

  A video whose start is open begins with the anchors of its first block. A loop
  is decoded once around first, so that its beginning has the decoder's memory
  of its end; with an open start it ends with the first frames of its first
  latent. `shown` keeps the frames of the video.

  Args:
    plan: what was run.
    latents: its buffer `[B, entries, h, w, C]`.
    anchors: of every row, `[J, B, P, h, w, C]`.

  Returns:
    `[B, F, h, w, C]`.
  """
  timeline = latents[:, plan.timeline()[1]]
  parts = [timeline]
  if plan.opening is not None:
    parts.insert(0, anchors[plan.opening])
    if plan.loops:
      parts += [timeline, timeline[:, :1]]
  elif plan.loops:
    parts.append(timeline[:, 1:])
  return np.concatenate(parts, axis=1)


def shown(plan: Plan, frames: np.ndarray) -> np.ndarray:
  """Of the decoded `sequence` the frames of the video, `[B, T, H, W, 3]`."""
  video = frames[:, -plan.num_frames :]
  if plan.loops:
    return np.concatenate([video[:, :-1], video[:, :1]], axis=1)
  return video


def joint(
  decode: Chunk, latents: np.ndarray, chunk: int
) -> Iterator[np.ndarray]:
  """Decodes a timeline piece by piece, in the memory that one piece needs.

  Args:
    decode: of the VAE.
    latents: the timeline `[B, N, h, w, C]`.
    chunk: latents per piece; the last piece is filled up to it, so that all
      pieces run the same two programs.

  Yields:
    Frames in temporal order, `[B, n, H, W, 3]`.
  """
  memory = None
  for first in range(0, latents.shape[1], chunk):
    own = latents[:, first : first + chunk]
    short = chunk - own.shape[1]
    filled = np.concatenate([own, np.repeat(own[:, -1:], short, axis=1)], 1)
    frames, memory = decode(filled, memory)
    yield frames[:, : frames.shape[1] - 4 * short]


def compose(pieces: list[Piece]) -> np.ndarray:
  """Puts streamed pieces in temporal order, `[B, T, H, W, 3]`."""
  ordered = sorted(pieces, key=lambda piece: piece[0])
  return np.concatenate([frames for _, frames in ordered], axis=1)


def delayed(
  decode: Decode, latents: np.ndarray, past: int, block: int
) -> np.ndarray:
  """Decodes every block in a window of `past` final latents before it.

  The baseline that waits for the block before (`past` = block) instead of
  using anchors; `latents` is the timeline `[B, N, h, w, C]`.
  """
  pieces = [(0, decode(latents[:, :block]))]
  for first in range(block, latents.shape[1], block):
    before = latents[:, max(first - past, 0) : first]
    own = latents[:, first : first + block]
    pieces.append((4 * first - 3, window(decode, before, own)))
  return compose(pieces)
