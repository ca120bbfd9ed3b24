"""Decoding by a plan's decode schedule (`plans.decoding`), latents to pixels.

The decoder's causal conv cache, its memory, is handed from chunk to chunk, so
that a block costs the same however long its past is. `Codec` holds the VAE's
programs over bytes, both ways: whole batches, or clips piece by piece.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.models import vae3d
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
  """A chunked decoder without a conv cache: it decodes all latents again."""

  def chunk(latents, memory):
    if memory is None:
      return decode(latents), latents
    whole = np.concatenate([memory, latents], axis=1)
    return decode(whole)[:, -timeline.STRIDE * latents.shape[1] :], whole

  return chunk


class Decoder:
  """Decodes what a plan's rows make, as soon as its schedule allows."""

  def __init__(self, decode: Chunk, plan: Plan, schedule: Schedule):
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
  """Decodes a finished plan as if its rows were being made."""
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


_PIECE = 16  # frames that are encoded at a time, after the first


class Codec:
  """The VAE's programs over bytes; parameters are given with every call.

  With `large_frames` whole clips run latent by latent too: two programs.

  Attributes:
    piece: frames of a clip that are encoded at a time, after the first.
    decode_piece: (params, latents, memory) -> frames, memory, whether all are
      finite: one program, which takes the memory over.
    encode_piece: likewise, of pixels to latents.
  """

  def __init__(self, config: vae3d.VAEConfig):
    self.config = config
    self._vae = vae3d.VAE(config)
    self.piece = config.temporal_stride if config.large_frames else _PIECE
    self._decode_whole = jax.jit(self._decode_whole_fn)
    self._encode = jax.jit(self._encode_fn)
    self.decode_piece = jax.jit(self._decode_fn, donate_argnames='memory')
    self.encode_piece = jax.jit(self._encode_piece_fn, donate_argnames='memory')

  def check(self, frames: int, height: int, width: int) -> None:
    """Raises ValueError unless such a clip can be encoded by itself."""
    timeline.num_latents(frames, self.config.temporal_stride)
    vae3d.latent_grid(self.config, height, width)

  def latents_at_a_time(self, most: int) -> int:
    """How many of `most` latents are decoded at a time."""
    return 1 if self.config.large_frames else most

  def decode(self, params: Any, latents: Any) -> Any:
    """Latents `[B, F, h, w, C]` to bytes, from the start of a video."""
    if self.config.large_frames:
      return self.decode_chunk(params, latents, None)[0]
    return _checked(*self._decode_whole(params, latents))

  def decode_chunk(self, params: Any, latents: Any, memory: Any):
    """Latents to bytes, and the memory for those that follow.

    Raises:
      UserError: pixels came out that are not finite, which bytes cannot show.
    """
    size, parts = self.latents_at_a_time(latents.shape[1]), []
    for k in range(0, latents.shape[1], size):
      own = latents[:, k : k + size]
      frames, memory, finite = self.decode_piece(params, own, memory)
      parts.append(_checked(frames, finite))
    if len(parts) == 1:
      return parts[0], memory
    return np.concatenate([np.asarray(part) for part in parts], axis=1), memory

  def encode(self, params: Any, video: Any) -> Any:
    """Clips `[B, 1 + 4k, H, W, 3]` of bytes to latents."""
    if self.config.large_frames:
      return self.encode_clip(params, video)
    return self._encode(params, video)

  def encode_clip(self, params: Any, video: Any) -> np.ndarray:
    """Clips `[B, 1 + 4k, H, W, 3]` to latents, in constant device memory.

    Longer ones run in pieces of one length; what the last one is filled up
    with comes later in time and changes nothing.
    """
    if video.shape[1] == 1:
      return np.asarray(self._encode(params, video))
    stride = self.config.temporal_stride
    memory, parts = None, []
    # The first frame alone, or the first piece with it.
    start = 1 if self.config.large_frames else 1 + self.piece
    cuts = range(start, video.shape[1], self.piece)
    for first, end in itertools.pairwise([0, *cuts, video.shape[1]]):
      own = video[:, first:end]
      short = (self.piece if first else start) - own.shape[1]
      own = np.concatenate([own, np.repeat(own[:, -1:], short, axis=1)], 1)
      latents, memory = self.encode_piece(params, own, memory)
      kept = latents.shape[1] - short // stride
      parts.append(np.asarray(latents)[:, :kept])
    return np.concatenate(parts, axis=1)

  def _decode_whole_fn(self, params, latents):
    frames, _, finite = self._decode_fn(params, latents, None)
    return frames, finite

  def _decode_fn(self, params, latents, memory):
    frames, memory = self._vae.apply(
      {'params': params},
      latents.astype(self.config.decode_dtype),
      memory,
      method='decode',
    )
    bytes_ = jnp.round((frames.astype(jnp.float32) + 1.0) * 127.5)
    return bytes_.astype(jnp.uint8), memory, jnp.isfinite(frames).all()

  def _encode_fn(self, params, video):
    return self._encode_piece_fn(params, video, None)[0]

  def _encode_piece_fn(self, params, video, memory):
    pixels = video.astype(jnp.float32) / 127.5 - 1.0
    return self._vae.apply({'params': params}, pixels, memory, method='encode')


def _checked(frames: jax.Array, finite: jax.Array) -> jax.Array:
  if not bool(finite):
    raise UserError(
      'the pixels of a block came out with numbers that are not finite, and '
      'show nothing; check the weights of the VAE, or let it compute in '
      'float32.'
    )
  return frames
