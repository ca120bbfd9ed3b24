"""Temporal order as data: the plan.

A plan is a table with one row per generation step. One program scans the rows,
so that another order is another table and never another program. Axes: J plan
rows, B latents per block, P anchor latents, S sinks. Rows are numbered from 0.

A *sliding window* needs no field of its own: rows see a prefix of the cache,
and a latent that leaves the window has its slot written again. *Sinks* are the
latents in slots 0..S-1. Once there they stay, and every row says at which
temporal position it sees them (`unitemp_jax/README.md`, The cache).

The *laws* (`check`) hold before anything is computed with a plan. Nothing is
read before it is written, nothing is made twice, the video has no hole, no
visible set is larger than the window, and with sinks no row sees temporal
positions farther apart than those the model was trained on. What is made from
nothing is the head of the video.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import NoReturn

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

PER_LATENT = ('target', 'latent', 'write')
FLAGS = ('conditioning', 'anchor')
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
  conditioning: (
    np.ndarray
  )  # bool [J] latents are read from the buffer, not made
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
    return self._entries[row]

  @functools.cached_property
  def _entries(self) -> list[list[tuple[int, int]]]:
    rows = zip(self.target.tolist(), self.latent.tolist(), strict=True)
    return [
      list(zip(target[:count], latent[:count], strict=True))
      for (target, latent), count in zip(rows, self.count.tolist(), strict=True)
    ]

  def idle(self, row: int) -> bool:
    """Whether a row computes nothing: it is given and writes no slot."""
    return bool(self.conditioning[row]) and not (self.write[row] >= 0).any()

  def homes(self) -> dict[int, int]:
    """Returns buffer entry -> the position at which it is part of the video.

    That is where it is made or, when it is given, where it is given first. A
    later given row that has it elsewhere, as in a loop, makes it context there.
    """
    homes: dict[int, int] = {}
    for given in (False, True):
      for row in np.flatnonzero(self.conditioning == given):
        for position, entry in self.entries(row):
          homes.setdefault(entry, position)
    return homes

  def timeline(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the finished video consists of, in temporal order.

    Returns:
      positions int32 [N] and the buffer entries int32 [N] that hold them. What
      is given at a position that is generated too is context, not video.
    """
    return self._timeline

  @functools.cached_property
  def _timeline(self) -> tuple[np.ndarray, np.ndarray]:
    # Made entries come first in `homes`, so that they win their positions.
    held: dict[int, int] = {}
    for entry, position in self.homes().items():
      held.setdefault(position, entry)
    return _columns(held.items())

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
      for row in np.flatnonzero(self.conditioning)
      for position, entry in self.entries(row)
    )

  def preloaded(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what must be in the latent buffer before the first row.

    Positions int32 [K] and buffer entries int32 [K], by position: for the plans
    of `orders`, the latents of one given clip after the other.
    """
    return self._preloaded

  @functools.cached_property
  def _preloaded(self) -> tuple[np.ndarray, np.ndarray]:
    made = set(self.latent[~self.conditioning].ravel().tolist())
    homes = self.homes().items()
    return _columns(
      (place, entry) for entry, place in homes if entry not in made
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
    """
    wanted = {'rows': rows, 'num_latents': num_latents, 'num_slots': num_slots}
    needed = (self.num_rows, self.num_latents, self.num_slots)
    sizes = {}
    for (name, size), least in zip(wanted.items(), needed, strict=True):
      sizes[name] = least if size is None else size
      if sizes[name] < least:
        raise UserError(
          f'plan: cannot be padded to {name}={size}, it has {least}; '
          f'ask for at least {least}'
        )
    extra = sizes.pop('rows') - self.num_rows
    inert = {'conditioning': True, 'latent': -1, 'write': -1}
    arrays = {}
    for name in DATA_FIELDS:
      own = getattr(self, name)
      more = np.full((extra, *own.shape[1:]), inert.get(name, 0), own.dtype)
      arrays[name] = np.concatenate([own, more])
    arrays['target'][self.num_rows :] = np.arange(self.block)
    return dataclasses.replace(self, **arrays, **sizes)


DATA_FIELDS = tuple(
  field.name
  for field in dataclasses.fields(Plan)
  if field.name not in META_FIELDS
)


def _columns(pairs: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
  table = np.array(sorted(pairs), np.int32).reshape(-1, 2)
  return table[:, 0], table[:, 1]


def align(*plans: Plan) -> list[Plan]:
  """Returns the plans padded to one shape, so that they share a program."""
  kinds = {(plan.block, plan.num_anchors, plan.num_sinks) for plan in plans}
  if len(kinds) > 1:
    raise UserError(
      'plans: they differ in block, number of anchors or of sinks, so that '
      'they cannot share a shape; build them with equal ones'
    )
  rows = max(plan.num_rows for plan in plans)
  latents = max(plan.num_latents for plan in plans)
  slots = max(plan.num_slots for plan in plans)
  return [
    plan.pad(rows=rows, num_latents=latents, num_slots=slots) for plan in plans
  ]


def check(
  plan: Plan,
  *,
  window: int | None = None,
  span: int | None = None,
  void: bool = False,
) -> None:
  """Checks every law of a plan before anything is computed with it.

  Args:
    plan: the plan.
    window: most latents that a row may see, sinks not counted; None = any.
    span: latents that the model was trained on: positions that meet in one row
      must differ by less; None = any.
    void: let rows be made from nothing anywhere; for negative controls alone.
  """
  _check_shapes(plan)
  for row in range(plan.num_rows):
    _check_row(plan, row)
  _check_cache(plan)
  _check_sinks(plan)
  _check_buffer(plan)
  _check_timeline(plan)
  _check_anchors(plan)
  if not void:
    _check_beginnings(plan)
  if window is not None:
    for row, seen in enumerate(plan.visible - plan.num_sinks):
      if seen > window:
        _fail(row, f'sees {seen} latents, but the window holds {window}')
  if span is not None:
    _check_span(plan, span)


def _fail(row: int, message: str) -> NoReturn:
  raise UserError(f'plan row {row}: {message}')


def _check_shapes(plan):
  for name in META_FIELDS:
    least = 0 if name in ('num_anchors', 'num_sinks') else 1
    if not least <= getattr(plan, name) <= timeline.MOST_FRAMES:
      raise UserError(
        f'plan: {name} must lie in {least}..{timeline.MOST_FRAMES}'
      )
  rows = len(plan.count)
  widths = dict.fromkeys(PER_LATENT, plan.block) | {'sinks': plan.num_sinks}
  for name in DATA_FIELDS:
    array = np.asarray(getattr(plan, name))
    shape = (rows, widths[name]) if name in widths else (rows,)
    kind = 'b' if name in FLAGS else 'i'
    if array.shape != shape or array.dtype.kind != kind:
      raise UserError(
        f'plan: {name} is {array.dtype} {list(array.shape)}; it must be '
        f'{"bool" if kind == "b" else "int32"} {list(shape)}'
      )


def _check_row(plan, row):
  count, given = int(plan.count[row]), bool(plan.conditioning[row])
  first, visible = int(plan.target[row, 0]), int(plan.visible[row])
  latent, write = plan.latent[row], plan.write[row]
  if not 0 <= count <= plan.block:
    _fail(row, f'count is {count}; it must lie in 0..{plan.block}')
  if count == 0 and not given:
    _fail(row, 'generates no latent; set count, or given for an inert row')
  if any(plan.target[row] != first + np.arange(plan.block)):
    _fail(row, f'target must be the positions {first}, {first + 1}, ...')
  if any(latent[:count] < 0) or any(latent[:count] >= plan.num_latents):
    _fail(row, f'latent must lie in 0..{plan.num_latents - 1}')
  if any(write[:count] < -1) or any(write[:count] >= plan.num_slots):
    _fail(row, f'write must lie in 0..{plan.num_slots - 1}, or be -1')
  if any(latent[count:] != -1) or any(write[count:] != -1):
    _fail(row, f'latent and write must be -1 from entry {count} on')
  written = write[write >= 0]
  if len(set(written.tolist())) < len(written):
    _fail(row, 'writes one cache slot twice; give each latent its own')
  if plan.anchor[row] and (given or plan.num_anchors == 0):
    _fail(row, 'has anchors, but is given or num_anchors is 0; unset anchor')
  if plan.start[row] < 0 or (given and plan.start[row] != 0):
    _fail(row, 'start must be 0 in a given row, and never negative')
  if plan.prompt[row] < 0:
    _fail(row, 'prompt must be 0 or more')
  if visible < 0 or _staging(plan, row).stop > plan.num_slots:
    _fail(
      row,
      f'needs cache slots {visible}..{_staging(plan, row).stop - 1}, but they '
      f'are 0..{plan.num_slots - 1}; raise num_slots or lower visible',
    )


def _staging(plan, row):
  # The row's own keys stand behind the visible prefix while it is computed.
  # Shapes are static: a short block occupies as many slots as a full one.
  width = plan.block + (plan.num_anchors if plan.anchor[row] else 0)
  first = int(plan.visible[row])
  return range(first, first + (0 if plan.idle(row) else width))


def _check_cache(plan):
  unwritten, good = -2, -1
  state = np.full(plan.num_slots, unwritten)  # else the row that spoilt it
  for row in range(plan.num_rows):
    visible, staging = int(plan.visible[row]), _staging(plan, row)
    for slot in np.flatnonzero(state[:visible] != good)[:1]:
      if state[slot] == unwritten:
        _fail(row, f'sees cache slot {slot}, which no earlier row has written')
      what = f'works in cache slot {slot}, which row {row} reads afterwards; '
      _fail(state[slot], what + 'raise its visible or write the slot again')
    staged = state[staging.start : staging.stop]
    staged[staged != unwritten] = row
    state[plan.write[row][plan.write[row] >= 0]] = good


def _check_sinks(plan):
  if plan.num_sinks > plan.num_slots:
    raise UserError(
      f'plan: {plan.num_sinks} sinks need as many cache slots, but there are '
      f'{plan.num_slots}; raise num_slots'
    )
  owner = {}
  for row in range(plan.num_rows):
    for slot, entry in zip(plan.write[row], plan.latent[row], strict=True):
      if 0 <= slot < plan.num_sinks and owner.setdefault(slot, entry) != entry:
        _fail(
          row,
          f'writes latent {entry} to slot {slot}, where the sink is latent '
          f'{owner[slot]}; write it to slot {plan.num_sinks} or later',
        )


def _check_span(plan, span):
  context = plan.context()
  for row in range(plan.num_rows):
    if plan.idle(row):
      continue
    anchors = plan.num_anchors if plan.anchor[row] else 0
    first, count = int(plan.target[row, 0]), int(plan.count[row])
    met = [*context[row], first - anchors, first + count - 1]
    if max(met) - min(met) >= span:
      _fail(
        row,
        f'positions {min(met)} and {max(met)} meet, but the model was trained '
        f'on {span} latents; use a smaller window',
      )


def _check_buffer(plan):
  made = {}
  for row in np.flatnonzero(~plan.conditioning):
    for _, entry in plan.entries(row):
      if entry in made:
        _fail(row, f'makes latent {entry} again after row {made[entry]}')
      made[entry] = row
  for row in np.flatnonzero(plan.conditioning):
    for _, entry in plan.entries(row):
      if made.get(entry, -1) > row:
        _fail(
          row,
          f'reads latent {entry}, which row {made[entry]} makes only later; '
          'move it behind that row',
        )


def _check_timeline(plan):
  made, held, given, homes = {}, {}, {}, plan.homes()
  for row in np.flatnonzero(~plan.conditioning):
    for at, _ in plan.entries(row):
      if at in made:
        _fail(row, f'makes position {at} again after row {made[at]}')
      made[at] = row
  for row in np.flatnonzero(plan.conditioning):
    for at, entry in plan.entries(row):
      if homes[entry] != at or at in made:
        continue  # context, not video
      if given.setdefault(at, entry) != entry:
        _fail(row, f'gives position {at} again after row {held[at]}')
      held.setdefault(at, row)
  held.update(made)
  if not held:
    raise UserError('plan: every row is inert; add a row that makes a latent')
  for position in sorted(held)[1:]:
    if position - 1 not in held:
      _fail(
        held[position],
        f'holds position {position}, but no row makes or gives position '
        f'{position - 1}, so that the video has a hole',
      )


def _check_anchors(plan):
  begin, is_open = int(plan.timeline()[0][0]), plan.opening is not None
  carried = None  # first position of the anchors that are carried
  for row in range(plan.num_rows):
    first = int(plan.target[row, 0])
    if plan.start[row] > 0 and (
      carried != first or not plan.count[row] == plan.num_anchors == plan.block
    ):
      _fail(
        row,
        'starts from carried anchors, but the latest ones do not stand at '
        'exactly its positions or are no whole block; set start to 0',
      )
    if plan.anchor[row]:
      # If the earliest block has anchors, there is a past for all others too.
      if not is_open and begin < first < begin + plan.num_anchors:
        _fail(
          row,
          f'has anchors at {first - plan.num_anchors}..{first - 1}, before the '
          f'video begins at {begin}; make the blocks before it longer',
        )
      carried = first - plan.num_anchors


def _check_beginnings(plan):
  # Attention sees relative positions only. Without context and anchors a row
  # has the very inputs of a forward run's first one, and makes an opening.
  begin = int(plan.timeline()[0][0])
  for row in np.flatnonzero(
    ~plan.conditioning & ~plan.anchor & (plan.visible == 0)
  ):
    first, count = int(plan.target[row, 0]), int(plan.count[row])
    if first != begin:
      low = timeline.first_frame(first - plan.begin)
      high = timeline.last_frame(first - plan.begin + count - 1)
      raise UserError(
        f'frames {low}..{high} would be made from nothing, as if the video '
        'began there; give a frame beside them (--last=PICTURE for the last '
        'one), or use anchors (--anchors).'
      )
