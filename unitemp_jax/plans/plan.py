"""Temporal order as data: the plan.

A plan is a table with one row per generation step. One program scans the rows,
so that another order is another table and never another program. Axes: J plan
rows, B latents per block, P anchor latents, S sinks. Rows are numbered from 0.

A *sliding window* needs no field of its own: rows see a prefix of the cache,
and a latent that leaves the window has its slot written again. *Sinks* are the
latents in slots 0..S-1. Once there they stay, and every row says at which
temporal position it sees them (`unitemp_jax/README.md`, The cache).
"""

import dataclasses
import functools

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

PER_LATENT = ('target', 'latent', 'write')
FLAGS = ('given', 'anchor')
DATA_FIELDS = (
  'target',
  'count',
  'given',
  'latent',
  'anchor',
  'start',
  'visible',
  'write',
  'prompt',
  'sinks',
)
META_FIELDS = ('num_latents', 'num_slots', 'num_anchors', 'block', 'num_sinks')


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A temporal order: which latents are made when, and from what context.

  A row is generated, given, or inert (given with count 0, made by `pad`). A
  given row denoises nothing: it writes latents of the buffer to the cache. One
  that writes no slot computes nothing at all: it only says that these latents
  are part of the video.
  """

  target: np.ndarray  # int32 [J, B] consecutive temporal positions
  count: np.ndarray  # int32 [J] valid entries per row, 0..B
  given: np.ndarray  # bool [J] latents are read from the buffer, not made
  latent: np.ndarray  # int32 [J, B] buffer entries, -1 = padding
  anchor: np.ndarray  # bool [J] P anchors just before target[0] are made too
  start: np.ndarray  # int32 [J] 0 = noise; i = carried anchors at level i
  visible: np.ndarray  # int32 [J] cache slots attended to, a prefix
  write: np.ndarray  # int32 [J, B] slots for the clean keys, -1 = none
  prompt: np.ndarray  # int32 [J] which prompt conditions the row
  sinks: np.ndarray  # int32 [J, S] positions that slots 0..S-1 have in the row
  num_latents: int  # entries of the latent buffer
  num_slots: int  # slots of the cache, one latent each
  num_anchors: int  # P
  block: int  # B
  num_sinks: int = 0  # S

  @property
  def num_rows(self) -> int:
    """Number of rows J, the inert ones included."""
    return len(self.count)

  def entries(self, row: int) -> list[tuple[int, int]]:
    """Returns the valid (position, buffer entry) pairs of one row."""
    valid = slice(0, int(self.count[row]))
    target, latent = self.target[row][valid], self.latent[row][valid]
    return list(zip(target.tolist(), latent.tolist(), strict=True))

  def idle(self, row: int) -> bool:
    """Whether a row computes nothing: it is given and writes no slot."""
    return bool(self.given[row]) and not (self.write[row] >= 0).any()

  def homes(self) -> dict[int, int]:
    """Returns buffer entry -> the position at which it is part of the video.

    That is where it is made or, when it is given, where it is given first. A
    later given row that has it elsewhere, as in a loop, makes it context there.
    """
    homes: dict[int, int] = {}
    for given in (False, True):
      for row in np.flatnonzero(self.given == given):
        for position, entry in self.entries(row):
          homes.setdefault(entry, position)
    return homes

  def timeline(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the finished video consists of, in temporal order.

    Returns:
      positions int32 [N] and the buffer entries int32 [N] that hold them. What
      is given at a position that is generated too is context, not video.
    """
    # Made entries come first in `homes`, so that they win their positions.
    held: dict[int, int] = {}
    for entry, position in self.homes().items():
      held.setdefault(position, entry)
    positions = sorted(held)
    return (
      np.array(positions, np.int32),
      np.array([held[position] for position in positions], np.int32),
    )

  @functools.cached_property
  def opening(self) -> int | None:
    """The row that makes the first latent with anchors before it, if one does.

    Then the video has a past: all its latents are inner ones, of 4 frames each.
    In a loop that past is its end; else it is not shown but for frame 0, the
    last that the anchors stand for.
    """
    first = int(self.timeline()[0][0])
    for row in np.flatnonzero(self.anchor):
      if self.target[row, 0] == first:
        return int(row)
    return None

  @functools.cached_property
  def begin(self) -> int:
    """Temporal position of frame 0; frame f is of `begin + ceil(f / 4)`."""
    first = int(self.timeline()[0][0])
    return first if self.opening is None or self.loops else first - 1

  @functools.cached_property
  def num_frames(self) -> int:
    """Frames of the finished video, 1 + 4k."""
    if self.loops:
      return timeline.num_frames(1 + self._period)
    last = int(self.timeline()[0][-1])
    return timeline.num_frames(1 + last - self.begin)

  @property
  def _period(self) -> int:
    """Latents of a loop; an image latent at its start is not one of them."""
    return len(self.timeline()[0]) - (self.opening is None)

  @functools.cached_property
  def loops(self) -> bool:
    """Whether the end of the video sees its beginning behind it.

    Then its last frame is frame 0 again. In a loop whose start is open that is
    the last frame of the first latent, and the 3 before it end the video.
    """
    homes, period = self.homes(), self._period
    return any(
      position - homes[entry] == period > 0
      for row in np.flatnonzero(self.given)
      for position, entry in self.entries(row)
    )

  def preloaded(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what must be in the latent buffer before the first row.

    Returns:
      positions int32 [K] and buffer entries int32 [K], by position: for the
      plans of `orders`, the latents of one given clip after the other.
    """
    made = {
      entry
      for row in np.flatnonzero(~self.given)
      for _, entry in self.entries(row)
    }
    read = sorted(
      (position, entry)
      for entry, position in self.homes().items()
      if entry not in made
    )
    return (
      np.array([position for position, _ in read], np.int32),
      np.array([entry for _, entry in read], np.int32),
    )

  def context(self) -> list[list[int]]:
    """Returns per row the positions that the slots it sees have for it.

    Those of sinks are where the row has them, not where they were made.
    """
    slots: dict[int, int] = {}
    seen = []
    for row in range(self.num_rows):
      visible = int(self.visible[row])
      moved = self.sinks[row, :visible].tolist()
      seen.append(moved + [slots[s] for s in range(len(moved), visible)])
      for k, (position, _) in enumerate(self.entries(row)):
        if self.write[row, k] >= 0:
          slots[int(self.write[row, k])] = position
    return seen

  def pad(
    self,
    *,
    rows: int | None = None,
    num_latents: int | None = None,
    num_slots: int | None = None,
  ) -> 'Plan':
    """Returns the same plan in larger arrays, so that plans share a program.

    Inert rows are appended: they make, read and write nothing.

    Raises:
      UserError: a size is smaller than the plan needs.
    """
    sizes = {}
    for name, wanted, needed in (
      ('rows', rows, self.num_rows),
      ('num_latents', num_latents, self.num_latents),
      ('num_slots', num_slots, self.num_slots),
    ):
      sizes[name] = needed if wanted is None else wanted
      if sizes[name] < needed:
        raise UserError(
          f'plan: cannot be padded to {name}={wanted}, it has {needed}; '
          f'ask for at least {needed}'
        )
    extra = sizes['rows'] - self.num_rows
    block = self.block
    inert = {
      name: np.zeros(extra, getattr(self, name).dtype) for name in DATA_FIELDS
    }
    inert['target'] = np.tile(np.arange(block, dtype=np.int32), (extra, 1))
    inert['latent'] = inert['write'] = np.full((extra, block), -1, np.int32)
    inert['given'] = np.ones(extra, bool)
    inert['sinks'] = np.zeros((extra, self.num_sinks), np.int32)
    arrays = {
      name: np.concatenate([getattr(self, name), inert[name]])
      for name in DATA_FIELDS
    }
    return dataclasses.replace(
      self,
      **arrays,
      num_latents=sizes['num_latents'],
      num_slots=sizes['num_slots'],
    )
