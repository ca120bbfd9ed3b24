"""Temporal order as data: the plan and the laws that it obeys.

A plan is a table with one row per generation step. One program scans the rows,
so that another order is another table and never another program. Axes: J plan
rows, B latents per block, P anchor latents. Rows are numbered from 0.
"""

import dataclasses
import functools
from typing import NoReturn

import jax
import numpy as np

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
)
META_FIELDS = ('num_latents', 'num_slots', 'num_anchors', 'block')


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=DATA_FIELDS,
  meta_fields=META_FIELDS,
)
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A temporal order: which latents are made when, and from what context.

  A row is generated, given, or inert (given with count 0, made by `pad`). A
  given row denoises nothing: it writes latents of the buffer to the cache.
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
  num_latents: int  # entries of the latent buffer
  num_slots: int  # slots of the cache, one latent each
  num_anchors: int  # P
  block: int  # B

  @property
  def num_rows(self) -> int:
    """Number of rows J, the inert ones included."""
    return len(self.count)

  def entries(self, row: int) -> list[tuple[int, int]]:
    """Returns the valid (position, buffer entry) pairs of one row."""
    valid = slice(0, int(self.count[row]))
    target, latent = self.target[row][valid], self.latent[row][valid]
    return list(zip(target.tolist(), latent.tolist(), strict=True))

  def timeline(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the finished video consists of, in temporal order.

    Returns:
      positions int32 [N] and the buffer entries int32 [N] that hold them. What
      is given at a position that is generated too is context, not video.
    """
    held = {}
    for given in (True, False):
      for row in np.flatnonzero(self.given == given):
        held.update(self.entries(row))
    positions = sorted(held)
    return (
      np.array(positions, np.int32),
      np.array([held[position] for position in positions], np.int32),
    )

  def preloaded(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what must be in the latent buffer before the first row.

    Returns:
      positions int32 [K] and buffer entries int32 [K], in row order: for the
      plans of `orders`, the latents of the first clip, then of the last.
    """
    made = {
      entry
      for row in np.flatnonzero(~self.given)
      for _, entry in self.entries(row)
    }
    read = {}
    for row in np.flatnonzero(self.given):
      for position, entry in self.entries(row):
        if entry not in made:
          read.setdefault(entry, position)
    return (
      np.array(list(read.values()), np.int32),
      np.array(list(read), np.int32),
    )

  def context(self) -> list[list[int]]:
    """Returns per row the temporal positions in the slots that it sees."""
    slots: dict[int, int] = {}
    seen = []
    for row in range(self.num_rows):
      seen.append([slots[slot] for slot in range(int(self.visible[row]))])
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


def align(*plans: Plan) -> list[Plan]:
  """Returns the plans padded to one shape, so that they share a program.

  Raises:
    UserError: the plans differ in block or in number of anchors.
  """
  if len({(plan.block, plan.num_anchors) for plan in plans}) > 1:
    raise UserError(
      'plans: they differ in block or number of anchors, so that they cannot '
      'share a shape; build them with equal block and anchors'
    )
  sizes = {
    'rows': max(plan.num_rows for plan in plans),
    'num_latents': max(plan.num_latents for plan in plans),
    'num_slots': max(plan.num_slots for plan in plans),
  }
  return [plan.pad(**sizes) for plan in plans]


def check(plan: Plan) -> None:
  """Checks every law of a plan before anything is computed with it.

  Raises:
    UserError: a law is broken; the sentence names the row.
  """
  _check_shapes(plan)
  for row in range(plan.num_rows):
    _check_row(plan, row)
  _check_cache(plan)
  _check_buffer(plan)
  _check_timeline(plan)
  _check_anchors(plan)


def _fail(row: int, message: str) -> NoReturn:
  raise UserError(f'plan row {row}: {message}')


def _check_shapes(plan):
  for name in META_FIELDS:
    least = 0 if name == 'num_anchors' else 1
    if getattr(plan, name) < least:
      raise UserError(f'plan: {name} must be at least {least}')
  rows = len(plan.count)
  for name in DATA_FIELDS:
    array = np.asarray(getattr(plan, name))
    shape = (rows, plan.block) if name in PER_LATENT else (rows,)
    kind = 'b' if name in FLAGS else 'i'
    if array.shape != shape or array.dtype.kind != kind:
      raise UserError(
        f'plan: {name} is {array.dtype} {list(array.shape)}; it must be '
        f'{"bool" if kind == "b" else "int32"} {list(shape)}'
      )


def _check_row(plan, row):
  count, given = int(plan.count[row]), bool(plan.given[row])
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
  return range(int(plan.visible[row]), int(plan.visible[row]) + width)


def _check_cache(plan):
  clean = {}  # slot -> None when its keys are good, else the row that spoilt it
  for row in range(plan.num_rows):
    visible, staging = int(plan.visible[row]), _staging(plan, row)
    for slot in range(visible):
      if slot not in clean:
        _fail(row, f'sees cache slot {slot}, which no earlier row has written')
      if clean[slot] is not None:
        _fail(
          clean[slot],
          f'works in cache slot {slot}, which row {row} reads afterwards; '
          'raise its visible or write the slot again',
        )
    clean.update({slot: row for slot in staging if slot in clean})
    clean.update({int(slot): None for slot in plan.write[row] if slot >= 0})


def _check_buffer(plan):
  made = {}
  for row in np.flatnonzero(~plan.given):
    for _, entry in plan.entries(row):
      if entry in made:
        _fail(row, f'makes latent {entry} again after row {made[entry]}')
      made[entry] = row
  for row in np.flatnonzero(plan.given):
    for _, entry in plan.entries(row):
      if made.get(entry, -1) > row:
        _fail(
          row,
          f'reads latent {entry}, which row {made[entry]} makes only later; '
          'move it behind that row',
        )


def _check_timeline(plan):
  made, held = {}, {}
  for row in np.flatnonzero(~plan.given):
    for position, _ in plan.entries(row):
      if position in made:
        _fail(
          row, f'makes position {position} again after row {made[position]}'
        )
      made[position] = row
  for row in np.flatnonzero(plan.given):
    for position, _ in plan.entries(row):
      if position in held and position not in made:
        _fail(
          row, f'gives position {position} again after row {held[position]}'
        )
      held[position] = row
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
  begin = int(plan.timeline()[0][0])
  carried = None  # first position of the anchors that are carried
  for row in range(plan.num_rows):
    first = int(plan.target[row, 0])
    if plan.start[row] > 0 and (
      carried != first or plan.count[row] != plan.num_anchors
    ):
      _fail(
        row,
        'starts from carried anchors, but the latest ones do not stand at '
        'exactly its positions; set start to 0',
      )
    if plan.anchor[row]:
      # The earliest block may have anchors: its video can be extended later.
      if begin < first < begin + plan.num_anchors:
        _fail(
          row,
          f'has anchors at {first - plan.num_anchors}..{first - 1}, before the '
          f'video begins at {begin}; make the blocks before it longer',
        )
      carried = first - plan.num_anchors
