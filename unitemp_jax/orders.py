"""The temporal orders: functions that return plans.

Every order fills the timeline 0..N-1 in blocks of B latents and differs from
the others in the sequence of the blocks only. A block has anchors when the
position before it is neither generated nor given yet, unless it starts the
video. Whatever is generated or given is appended to the cache and is seen by
all later rows.

Conditioning, at either end (`given_first`, `given_last` count latents):

* 1, a single image: context at position 0 or N-1, in a buffer entry of its own
  behind the timeline's. The block with that position is generated as well.
* g > 1 at the start, a clip: its latents are the timeline's first g.
* g > 1 at the end, a clip encoded by itself: its latents 1.. are the timeline's
  last g-1. Its first, an image latent, is context at position N-g; the latent
  of the timeline there codes the 4 frames that end with the clip's first, and
  is generated.
"""

import functools
from collections.abc import Callable

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.plans import Plan, check

SIDES = ('past', 'future', 'outside_in', 'middle_out')


class _Builder:
  """Collects rows, and keeps what is known and cached after each of them."""

  def __init__(self, block: int, anchors: int, start: int):
    self.block = block
    self.anchors = anchors
    self.start = start
    self.rows: list[dict] = []
    self.known: set[int] = set()
    self.cached = 0
    self.carried: int | None = None

  def give(self, first: int, entries: list[int]):
    """Appends rows that give buffer entries at positions from `first` on."""
    for k in range(0, len(entries), self.block):
      self._append(first + k, entries[k : k + self.block], given=True)

  def generate(self, first: int, count: int):
    """Appends a row that generates `count` positions from `first` on."""
    anchor = self.anchors > 0 and first > 0 and first - 1 not in self.known
    carries = self.carried == first and count == self.anchors
    self._append(
      first,
      list(range(first, first + count)),
      anchor=anchor,
      start=self.start if carries else 0,
    )
    if anchor:
      self.carried = first - self.anchors

  def _append(self, first, entries, given=False, anchor=False, start=0):
    count = len(entries)
    padding = [-1] * (self.block - count)
    self.rows.append(
      {
        'target': list(range(first, first + self.block)),
        'count': count,
        'given': given,
        'latent': entries + padding,
        'anchor': anchor,
        'start': start,
        'visible': self.cached,
        'write': list(range(self.cached, self.cached + count)) + padding,
        'prompt': 0,
      }
    )
    self.known.update(range(first, first + count))
    self.cached += count

  def plan(self, num_latents: int, rows: int | None) -> Plan:
    """Returns the checked plan of the collected rows, padded to `rows`."""
    width = [
      row['visible'] + self.block + self.anchors * row['anchor']
      for row in self.rows
    ]
    arrays = {
      name: np.array([row[name] for row in self.rows]) for name in self.rows[0]
    }
    plan = Plan(
      **{
        name: array if array.dtype == bool else array.astype(np.int32)
        for name, array in arrays.items()
      },
      num_latents=num_latents,
      num_slots=max(width),
      num_anchors=self.anchors,
      block=self.block,
    ).pad(rows=rows)
    check(plan)
    return plan


def forward(num_latents: int, **settings) -> Plan:
  """Returns the plan that generates from the past to the future.

  Args:
    num_latents: N, the length of the timeline in latents.
    **settings: as for `inbetween`, but nothing has to be given.

  Raises:
    UserError: the sizes do not fit together.
  """
  return _fill(num_latents, side='past', **settings)


def backward(num_latents: int, **settings) -> Plan:
  """Returns the plan that generates from the future to the past.

  Args:
    num_latents: N, the length of the timeline in latents.
    **settings: as for `inbetween`, but nothing has to be given.

  Raises:
    UserError: the sizes do not fit together.
  """
  return _fill(num_latents, side='future', **settings)


def inbetween(
  num_latents: int,
  *,
  side: str = 'past',
  block: int = 3,
  anchors: int = 3,
  start: int = 0,
  given_first: int = 1,
  given_last: int = 1,
  rows: int | None = None,
) -> Plan:
  """Returns the plan that fills the time between two given ends.

  Args:
    num_latents: N, the length of the timeline in latents.
    side: from which side: past, future, outside_in (past and future in turn) or
      middle_out (the middle, then its past and its future in turn).
    block: B, latents per row. What is left over makes one shorter block, as
      late in the order as anchors inside the video allow.
    anchors: P, anchor latents per anchored row, 0..B; 0 = none.
    start: level at which a row that the carried anchors cover starts from them;
      0 = every row starts from noise.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: latents given at the end: 1 = an image, more = a clip.
    rows: pad to this many rows; None = no padding.

  Raises:
    UserError: the sizes do not fit together.
  """
  if num_latents < 2 or given_first < 1 or given_last < 1:
    raise UserError(
      'order inbetween: needs at least 2 latents and something given at both '
      f'ends, but has {num_latents} latents, {given_first} given first and '
      f'{given_last} last; use forward or backward with one end'
    )
  return _fill(
    num_latents,
    side=side,
    block=block,
    anchors=anchors,
    start=start,
    given_first=given_first,
    given_last=given_last,
    rows=rows,
  )


def loop(
  num_latents: int,
  *,
  side: str = 'past',
  block: int = 3,
  anchors: int = 3,
  start: int = 0,
  given_first: int = 0,
  given_last: int = 0,
  rows: int | None = None,
) -> Plan:
  """Returns the plan of a video whose last frame is its first frame.

  The first block is generated (or a clip given in its place); then its image
  latent, copied to position N-1, is context for everything in between.

  Args:
    num_latents: N, the length of the timeline in latents.
    side: from which side the rest is filled, as for `inbetween`.
    block: B, latents per row.
    anchors: P, anchor latents per anchored row, 0..B; 0 = none.
    start: as for `inbetween`.
    given_first: latents given at the start: 1 = an image, more = a clip.
    given_last: must be 0, since the loop gives its own last frame.
    rows: pad to this many rows; None = no padding.

  Raises:
    UserError: the sizes do not fit together.
  """
  _check_sizes(num_latents, side, block, anchors, start, given_first, 0)
  if given_last != 0:
    raise UserError(
      'order loop: its last frame is its first, so that given_last must be 0; '
      'use inbetween to give the last frame'
    )
  head = given_first if given_first > 1 else block
  if num_latents <= head:
    raise UserError(
      f'order loop: {num_latents} latents leave nothing to close the loop '
      f'after the first {head}; ask for at least {head + 1}'
    )
  builder = _Builder(block, anchors, start)
  _give_first(builder, num_latents, given_first)
  if given_first < 2:
    builder.generate(0, head)
  builder.give(num_latents - 1, [0])
  for first, count in _blocks(head, num_latents, block, anchors, side):
    builder.generate(first, count)
  return builder.plan(num_latents + (given_first == 1), rows)


def _fill(
  num_latents,
  *,
  side,
  block=3,
  anchors=3,
  start=0,
  given_first=0,
  given_last=0,
  rows=None,
):
  _check_sizes(
    num_latents, side, block, anchors, start, given_first, given_last
  )
  builder = _Builder(block, anchors, start)
  _give_first(builder, num_latents, given_first)
  low = given_first if given_first > 1 else 0
  high = num_latents - max(given_last - 1, 0)
  extra = num_latents + (given_first == 1)
  if given_last > 0:
    # The clip's image latent has an entry of its own behind the timeline's.
    first = num_latents - given_last
    builder.give(first, [extra, *range(first + 1, num_latents)])
  for first, count in _blocks(low, high, block, anchors, side):
    builder.generate(first, count)
  return builder.plan(extra + (given_last > 0), rows)


def _give_first(builder, num_latents, given_first):
  if given_first == 1:
    builder.give(0, [num_latents])
  elif given_first > 1:
    builder.give(0, list(range(given_first)))


def _blocks(low, high, block, anchors, side):
  """Returns (first position, count) of low..high-1 in order of generation."""
  number = -(-(high - low) // block)
  sequence = _sequence(number, side)
  short = high - low - (number - 1) * block
  place = sequence[-1]
  # The second block's anchors must not begin before the video: where the first
  # would be too short for them, the block generated before it is the short one.
  if place == 0 and number > 1 and low + short < anchors:
    place = sequence[-2]
  counts = [short if i == place else block for i in range(number)]
  firsts = [low + sum(counts[:i]) for i in range(number)]
  return [(firsts[i], counts[i]) for i in sequence]


def _sequence(number, side):
  """Returns the indices of blocks in time, in order of generation."""
  if side == 'past':
    return list(range(number))
  if side == 'future':
    return list(range(number))[::-1]
  if side == 'outside_in':
    return [
      i // 2 if i % 2 == 0 else number - 1 - i // 2 for i in range(number)
    ]
  # middle_out: the middle, then one before, one after, two before, ...
  middle = number // 2
  return sorted(range(number), key=lambda i: (abs(i - middle), i))


def _check_sizes(
  num_latents, side, block, anchors, start, given_first, given_last
):
  if side not in SIDES:
    raise UserError(f'order: unknown side {side!r}; use {", ".join(SIDES)}')
  if min(num_latents, block) < 1 or min(start, given_first, given_last) < 0:
    raise UserError(
      'order: num_latents and block must be at least 1, and start, given_first '
      'and given_last at least 0'
    )
  if not 0 <= anchors <= block:
    # More would begin before the video when the second block has them.
    raise UserError(
      f'order: {anchors} anchors do not fit blocks of {block} latents; '
      f'use 0..{block}'
    )
  kept = (given_first if given_first > 1 else 0) + max(given_last - 1, 0)
  if kept >= num_latents or given_last >= max(num_latents, 2):
    raise UserError(
      f'order: {given_first} latents given first and {given_last} last leave '
      f'nothing to generate of {num_latents}; ask for a longer video'
    )


ORDERS: dict[str, Callable[..., Plan]] = {
  'forward': forward,
  'backward': backward,
  'inbetween': inbetween,
  'inbetween_future': functools.partial(inbetween, side='future'),
  'inbetween_outside_in': functools.partial(inbetween, side='outside_in'),
  'inbetween_middle_out': functools.partial(inbetween, side='middle_out'),
  'loop': loop,
}
