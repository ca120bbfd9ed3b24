"""Blocks, seams and given frames of a clip, as its record says them.

Reports, drawings and metrics all read this. Transition j leads from frame j to
frame j + 1. A record (the sidecar, or the tags in the file) names them:
`boundary_frames` lists the transitions between blocks, `generation_order` the
temporal latent positions of each block in the order made, and `given_frames`
how many frames were given at the start and at the end.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

# Rates at which Wan 2.2 5B systems write; they make blocks of 8 latents.
_BLOCK_AT_RATE = {24: 8}
_BLOCK = 3

Spans = tuple[tuple[int, int], ...]

_MOST_FRAMES = 10_000_000  # days of video


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Block boundaries of clips that do not say: first one and period, frames."""

  first: int
  period: int

  @classmethod
  def parse(cls, text: str) -> 'Blocks':
    """Reads 'FIRST:PERIOD'; raises UserError for anything else."""
    try:
      first, period = map(int, text.split(':'))
    except ValueError:
      first = period = -1
    if first < 0 or period < 2:
      raise UserError(
        f'--blocks={text} is not FIRST:PERIOD in frames, such as 8:12 for the '
        'transition from frame 8 to 9 and every 12th after it.'
      )
    return cls(first, period)

  @classmethod
  def usual(cls, fps: float) -> 'Blocks':
    """Blocks of 3 latents, or of 8 at 24 frames per second."""
    latents = _BLOCK_AT_RATE.get(round(fps), _BLOCK)
    period = timeline.STRIDE * latents
    return cls(period - timeline.STRIDE, period)


@dataclasses.dataclass(frozen=True)
class Layout:
  """What must be known of a clip beyond its pixels."""

  boundaries: tuple[int, ...]  # transitions between blocks; may be empty
  period: int  # frames of a block, for the comb and the phase test
  conditioning: tuple[
    int, int
  ]  # number of given frames at the start and at the end
  # first and last frame of each block in the order made; () = as played
  spans: Spans
  fps: float  # frames per second

  @classmethod
  def read(
    cls,
    about: Mapping[str, Any],
    frames: int,
    fps: float,
    blocks: Blocks | None = None,
  ) -> 'Layout':
    """Reads a record.

    Args:
      about: the record; what it lacks is assumed.
      frames: number of frames of the clip.
      fps: frames per second.
      blocks: for a record without boundaries; None takes the usual ones.

    Raises:
      UserError: a key has another form than it must have.
    """
    field({'frames': frames}, 'frames', lambda count: count <= _MOST_FRAMES)
    usual = blocks or Blocks.usual(fps)
    at = tuple(range(usual.first, max(frames - 1, 0), usual.period))
    period = usual.period
    if about.get('boundary_frames') is not None:
      at = tuple(sorted(field(about, 'boundary_frames', is_list(is_int))))
      apart = {b - a for a, b in itertools.pairwise(at)}
      period = apart.pop() if len(apart) == 1 else period
    given = field(about, 'given_frames', _are_two, (0, 0))
    return cls(at, period, (given[0], given[1]), read_spans(about, frames), fps)

  def as_played(self, frames: int) -> Spans:
    """First and last frame of the blocks, if they were made as they play."""
    inside = [j for j in self.boundaries if 0 <= j < frames - 1]
    starts = [0, *(j + 1 for j in inside)]
    return tuple(zip(starts, [*inside, frames - 1], strict=True))


def read_spans(about: Mapping[str, Any], frames: int) -> Spans:
  """First and last frame of each block in the order made; () if unknown.

  Positions may be negative: only their distance to the first one counts.
  UserError if `generation_order` has another form than it must have.
  """
  blocks = field(about, 'generation_order', _are_blocks, ())
  positions = [p for block in blocks for p in block]
  if not positions or not frames:
    return ()
  first, last = min(positions), max(positions)
  # The first latent codes one frame, every later one the same number.
  rate = (frames - 1) / max(last - first, 1)

  def begin(position: int) -> int:
    return 0 if position == first else 1 + end(position - 1)

  def end(position: int) -> int:
    return round((position - first) * rate)

  return tuple((begin(min(block)), end(max(block))) for block in blocks)


def generation_order(spans: Spans, num_frames: int) -> np.ndarray:
  """Frame numbers in the order in which they were made, int [T].

  Within a block frames keep the order of time. Frames that no block made (they
  were given) are taken as made first.

  Args:
    spans: first and last frame of each block, first made first.
    num_frames: T.

  Raises:
    UserError: a frame outside the clip, or one that was made twice.
  """
  made = [t for first, last in spans for t in range(first, last + 1)]
  outside = [t for t in made if not 0 <= t < num_frames]
  if outside or len(set(made)) != len(made):
    raise UserError(
      f'the blocks {list(spans)} do not make each of {num_frames} frames at '
      'most once; mend the record of the clip.'
    )
  given = np.setdiff1d(np.arange(num_frames), made)
  return np.concatenate([given, np.array(made, dtype=int)])


def _are_two(value: Any) -> bool:
  return is_list(is_int)(value) and len(value) == 2 and min(value) >= 0


def _are_blocks(value: Any) -> bool:
  return is_list(is_list(is_int))(value) and all(value)


def field(
  about: Mapping[str, Any],
  key: str,
  check: Callable[[Any], bool],
  default: Any = None,
) -> Any:
  """A value of a record; UserError if it is of no use, or has no default."""
  value = about.get(key)
  if value is None and default is None:
    raise UserError(f'it has no {key!r}.')
  if value is None:
    return default
  if not check(value):
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f'{shown[:60]}...'
    raise UserError(
      f'{key} is {shown}, which cannot be read; mend or delete the record.'
    )
  return value


def is_int(value: Any) -> bool:
  """Whether it is a whole number, and neither True nor False."""
  return isinstance(value, int) and not isinstance(value, bool)


def is_list(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
  """Whether something is a list of what passes the check."""
  return lambda value: (
    isinstance(value, list | tuple) and all(map(check, value))
  )
