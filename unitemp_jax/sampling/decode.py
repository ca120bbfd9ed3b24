"""Latents to pixels: runs the decode schedule of a plan (`plans.decoding`).

The decoder's memory is handed from chunk to chunk, so that a block costs the
same however long its past is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.plans import Plan
from unitemp_jax.plans.decoding import Schedule

# Latents [B, F, h, w, C] to frames [B, 1 + 4 (F - 1), H, W, 3].
Decode = Callable[[np.ndarray], np.ndarray]
# The same with the memory of what came before, and that of what came since.
# With memory every latent gives 4 frames; without it (None) the first is an
# image latent of one frame.
Chunk = Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]


class Piece(NamedTuple):
  """Frames `[B, n, H, W, 3]` that begin at frame `first` of the video.

  `refines`: these frames have been shown before, with less of their past.
  """

  first: int
  frames: np.ndarray
  refines: bool = False

  @property
  def last(self) -> int:
    """The last of them."""
    return self.first + self.frames.shape[1] - 1


def remembering(decode: Decode) -> Chunk:
  """A decoder whose memory is all latents so far, which it decodes again."""

  def chunk(latents, memory):
    if memory is None:
      return decode(latents), latents
    whole = np.concatenate([memory, latents], axis=1)
    return decode(whole)[:, -timeline.STRIDE * latents.shape[1] :], whole

  return chunk


class Decoder:
  """Decodes what a plan's rows make, as soon as its schedule allows."""

  def __init__(self, decode: Chunk, plan: Plan, schedule: Schedule):
    """Starts with nothing decoded.

    Args:
      decode: of the VAE.
      plan: checked rows.
      schedule: of the plan.
    """
    self._decode, self._plan, self._schedule = decode, plan, schedule
    self._next = 0
    self._latents: dict[int, np.ndarray] = {}
    self._anchors: dict[int, np.ndarray] = {}
    self._memory: dict[int, Any] = {}
    self._continued = {row.after for row in schedule}
    # Source -> the last row of the schedule that reads it.
    self._read: dict[tuple[str, int], int] = {}
    for index, row in enumerate(schedule):
      self._read[('anchors', row.anchors)] = index
      self._read.update({('latent', entry): index for entry in row.latents})

  def add(
    self, row: int, latents: np.ndarray, anchors: np.ndarray
  ) -> Iterator[Piece]:
    """Takes what a row made and yields what can be shown since.

    Args:
      row: its number; every row that has entries, in turn.
      latents: its valid entries `[B, count, h, w, C]`.
      anchors: that it was denoised with, `[B, P, h, w, C]`; read if it has any.
    """
    for k, (_, entry) in enumerate(self._plan.entries(row)):
      if self._read.get(('latent', entry), -1) >= self._next:
        self._latents[entry] = latents[:, k : k + 1]
    if ('anchors', row) in self._read:
      self._anchors[row] = anchors
    schedule = self._schedule
    while self._next < len(schedule) and schedule[self._next].row <= row:
      yield from self._run(self._next)
      self._next += 1

  def _run(self, index: int) -> Iterator[Piece]:
    row = self._schedule[index]
    parts = [self._latents[entry] for entry in row.latents]
    if row.anchors >= 0:
      parts.insert(0, self._anchors[row.anchors])
    for kind, held in (('latent', self._latents), ('anchors', self._anchors)):
      for key in [k for k in held if self._read[(kind, k)] == index]:
        del held[key]
    latents = np.concatenate(parts, axis=1)
    memory = self._memory.pop(row.after, None)
    at = -timeline.STRIDE * latents.shape[1] + (
      timeline.STRIDE - 1 if memory is None else 0
    )
    chunks = self._chunks(index, row, latents, memory)
    if not row.filled:  # short: shown as a whole
      chunks = iter([np.concatenate(list(chunks), axis=1)])
    missing = at - min((cut.low for cut in row.cuts), default=at)
    for frames in chunks:
      if missing > 0:  # nothing is known of them but the image latent
        before = np.repeat(frames[:, :1], missing, axis=1)
        frames, at = np.concatenate([before, frames], axis=1), at - missing
        missing = 0
      for first, low, high in row.cuts:
        own = frames[:, max(low - at, 0) : max(high - at, 0)]
        if own.shape[1]:
          yield Piece(first + max(at - low, 0), own, row.refines)
      at += frames.shape[1]

  def _chunks(self, index, row, latents, memory) -> Iterator[np.ndarray]:
    size = row.chunk or latents.shape[1]
    for k in range(0, latents.shape[1], size):
      own = latents[:, k : k + size]
      short = size - own.shape[1] if row.filled else 0
      if row.filled:
        own = np.concatenate([own, np.repeat(own[:, -1:], short, axis=1)], 1)
      frames, memory = self._decode(own, memory)
      yield frames[:, : frames.shape[1] - timeline.STRIDE * short]
    if index in self._continued:
      self._memory[index] = memory


def run(
  decode: Chunk,
  plan: Plan,
  schedule: Schedule,
  latents: np.ndarray,
  anchors: np.ndarray,
) -> Iterator[Piece]:
  """Decodes a finished plan as if its rows were being made.

  Args:
    decode: of the VAE.
    plan: what was run.
    schedule: of the plan.
    latents: its buffer `[B, entries, h, w, C]`.
    anchors: of every row, `[J, B, P, h, w, C]`.
  """
  decoder = Decoder(decode, plan, schedule)
  for row in range(plan.num_rows):
    entries = [entry for _, entry in plan.entries(row)]
    if entries:
      yield from decoder.add(row, latents[:, entries], anchors[row])


def by_time(pieces: Iterable[Piece], num_frames: int) -> Iterator[Piece]:
  """Pieces of a joint schedule by time: the last frame of a loop waits."""
  last = []
  for piece in pieces:
    if piece.last + 1 == num_frames:
      last.append(piece)
    else:
      yield piece
  yield from last


def compose(pieces: Iterable[Piece]) -> np.ndarray:
  """Puts pieces in temporal order, refined ones in the place of others.

  Returns:
    `[B, T, H, W, 3]`.
  """
  latest = {piece.first: piece.frames for piece in pieces}
  return np.concatenate([latest[first] for first in sorted(latest)], axis=1)
