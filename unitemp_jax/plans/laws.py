"""The laws of a plan, checked before anything is computed with it.

Nothing is read before it is written, nothing is made twice, the video has no
hole, no visible set is larger than the window, and with sinks no row sees
temporal positions farther apart than those the model was trained on. What is
made from nothing is the head of the video.
"""

from typing import NoReturn

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.plans.plan import (
  DATA_FIELDS,
  FLAGS,
  META_FIELDS,
  PER_LATENT,
  Plan,
)


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

  Raises:
    UserError: a law is broken; the sentence names the row.
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
    _check_window(plan, window)
  if span is not None:
    _check_span(plan, span)


def _fail(row: int, message: str) -> NoReturn:
  raise UserError(f'plan row {row}: {message}')


def _check_shapes(plan):
  for name in META_FIELDS:
    least = 0 if name in ('num_anchors', 'num_sinks') else 1
    if getattr(plan, name) < least:
      raise UserError(f'plan: {name} must be at least {least}')
  rows = len(plan.count)
  for name in DATA_FIELDS:
    array = np.asarray(getattr(plan, name))
    shape: tuple[int, ...] = (rows,)
    if name in PER_LATENT:
      shape = (rows, plan.block)
    elif name == 'sinks':
      shape = (rows, plan.num_sinks)
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
  if plan.idle(row):
    return range(int(plan.visible[row]), int(plan.visible[row]))
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


def _check_window(plan, window):
  for row in range(plan.num_rows):
    seen = int(plan.visible[row]) - plan.num_sinks
    if seen > window:
      _fail(row, f'sees {seen} latents, but the window holds {window}')


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
  made, held, homes = {}, {}, plan.homes()
  for row in np.flatnonzero(~plan.given):
    for position, _ in plan.entries(row):
      if position in made:
        _fail(
          row, f'makes position {position} again after row {made[position]}'
        )
      made[position] = row
  given = {}
  for row in np.flatnonzero(plan.given):
    for position, entry in plan.entries(row):
      if homes[entry] != position or position in made:
        continue  # context, not video
      if given.setdefault(position, entry) != entry:
        _fail(
          row, f'gives position {position} again after row {held[position]}'
        )
      held.setdefault(position, row)
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
      carried != first or plan.count[row] != plan.num_anchors
    ):
      _fail(
        row,
        'starts from carried anchors, but the latest ones do not stand at '
        'exactly its positions; set start to 0',
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
  for row in np.flatnonzero(~plan.given & ~plan.anchor & (plan.visible == 0)):
    first, count = int(plan.target[row, 0]), int(plan.count[row])
    if first != begin:
      low = timeline.first_frame(first - plan.begin)
      high = timeline.last_frame(first - plan.begin + count - 1)
      _fail(
        row,
        f'makes frames {low}..{high} from nothing, as if the video began '
        'there; give a frame beside them (--last=PICTURE for the last one), or '
        'use anchors',
      )
