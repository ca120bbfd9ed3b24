"""Compiles an order to the rows of its plan: cache slots, window and sinks.

What a block should see but the cache does not hold is loaded by given rows
first: what is given, and, with a window, what had left it. A slot whose latent
is no longer wanted is written again. A window sees the nearest in time, and
those next to the row on either side in any case, so that both ends of a gap
guide it. Only differences between positions matter to attention; a sink is seen
at its own position while that is near enough, and then at the farthest that the
range allows.
"""

import bisect
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.orders.script import (
  Block,
  Item,
  Script,
  heads_first,
  prompt_at,
)
from unitemp_jax.plans import Plan, check


def nearest(
  items: Collection[Item],
  first: int,
  last: int,
  *,
  window: int | None,
  block: int,
  low: int | None = None,
  reach: int | None = None,
) -> list[Item]:
  """Returns the items that a row at positions first .. last sees, by time."""
  if window is None and reach is None:
    return sorted(items)
  low = first if low is None else low

  def rank(item):
    distance = max(first - item.position, item.position - last, 0)
    return distance, item.position > last, item.entry

  ranked = sorted(items, key=rank)
  if reach is not None:
    ranked = _within(ranked, low, last, reach)
  elif window is not None:
    ranked = _both_sides(ranked, first, last, min(block, window // 2))
  return sorted(ranked[:window])


def _within(ranked, low, high, reach):
  kept = []
  for item in ranked:
    low_, high_ = min(low, item.position), max(high, item.position)
    if high_ - low_ < reach:
      kept.append(item)
      low, high = low_, high_
  return kept


def _both_sides(ranked, first, last, places):
  """Puts what lies next to the row on either side before all others."""
  inside = [item for item in ranked if first <= item.position <= last]
  beside = []
  for past in (True, False):
    run: list[Item] = []
    for item in ranked:
      if (item.position < first) if past else (item.position > last):
        if run and abs(item.position - run[-1].position) > 1:
          break
        run.append(item)
    beside += run[:places]
  front = dict.fromkeys([*inside, *beside, *ranked])  # each once, in order
  return list(front)


def place_sinks(
  past: Sequence[int],
  future: Sequence[int],
  low: int,
  high: int,
  span: int,
  forward: bool = True,
) -> tuple[list[int], list[int]]:
  """Returns the positions at which a row sees its sinks.

  `past` and `future` are true positions of the sinks, consecutive; low .. high
  what the row sees else, or makes. `forward` is which end the video is on its
  way to: that one's sinks keep their distance first, or the video would seem to
  be about to end.

  Returns:
    For past and future sinks the true positions if all fit in the span; else
    they move nearer.
  """
  gap_past = max(low - 1 - past[-1], 0) if past else 0
  gap_future = max(future[0] - high - 1, 0) if future else 0
  # Near an end, sinks may stand where the row has its anchors or its block.
  taken = sum(position < low for position in past)
  taken += sum(position > high for position in future)
  room = max(span - (high - low + 1) - taken, 0)
  if forward:
    kept_future = min(gap_future, room)
    kept_past = min(gap_past, room - kept_future)
  else:
    kept_past = min(gap_past, room)
    kept_future = min(gap_future, room - kept_past)
  return (
    [position + gap_past - kept_past for position in past],
    [position - gap_future + kept_future for position in future],
  )


def compile_plan(script: Script) -> Plan:
  """Returns the checked plan of an order."""
  if not script.blocks:
    raise UserError(
      'what is given leaves nothing to make; make the video longer.'
    )
  blocks = script.blocks
  if not script.is_open:
    anchors = script.settings.anchors
    blocks = heads_first(blocks, script.begin, anchors, script.known)
  rows = _Rows(script)
  for block, following in zip(blocks, [*blocks[1:], None], strict=True):
    rows.load(rows.wanted(block))
    rows.generate(block, following)
  return rows.plan()


class _Rows:
  """Collects rows, and keeps what is known and cached after each of them."""

  def __init__(self, script: Script):
    self.script = script
    self.settings = script.settings
    self.prompt = prompt_at(script.settings.prompts)
    self.sinks = [item for item, _ in script.sinks]
    self.known: set[Item] = set()
    self.visible: list[Item] = []  # what is known but the sinks, by time
    self.copies: dict[Item, list[Item]] = {}
    for item, home in script.copies.items():
      self.copies.setdefault(home, []).append(item)
    self._learn(script.items)
    self.held = script.known  # positions whose latents of the video are known
    self.cache: list[Item] = []  # what each slot holds
    self.carried: int | None = None
    self.first: dict[int, int] = {}  # entry -> where it is read or made first
    self.rows: list[dict[str, Any]] = []

  def prompt_of(self, item: Item) -> int:
    """The prompt of an item, that of its own place in the video for a copy."""
    return self.prompt(self.script.copies.get(item, item).position)

  def anchored(self, block: Block) -> bool:
    """Whether the latent before a block is unknown, or not to be seen."""
    before = block.first - 1
    hidden = block.scope is not None and before < block.scope[0]
    return (
      self.settings.anchors > 0
      and (self.script.is_open or block.first > self.script.begin)
      and (hidden or before not in self.held)
    )

  def wanted(self, block: Block) -> list[Item]:
    """What a block sees: sinks in the order of their slots, the rest by time.

    As long as sinks are missing, those before them are all that is seen: what
    is visible is a prefix of the cache, and sinks stand at its start.
    """
    script, settings = self.script, self.settings
    for ready, item in enumerate(self.sinks):
      if item not in self.known:
        return self.sinks[:ready]
    low = block.first - (settings.anchors if self.anchored(block) else 0)
    reach = None if script.span is None else script.span - len(self.sinks)
    seen = nearest(
      self._near(block, low, reach),
      block.first,
      block.last,
      window=settings.window,
      block=settings.block,
      low=low,
      reach=reach,
    )
    return [*self.sinks, *seen]

  def _near(self, block: Block, low: int, reach: int | None) -> list[Item]:
    """What `nearest` need look at, so that long videos take linear time."""
    items, window = self.visible, self.settings.window

    def index(position):
      return bisect.bisect_left(items, (position,))

    begin, end = map(index, block.scope) if block.scope else (0, len(items))
    if reach is not None:
      begin = max(begin, index(block.last - reach + 1))
      end = min(end, index(low + reach))
    if window is not None:  # so many on either side, and all of the last time
      first, last = index(block.first) - window, index(block.last + 1) + window
      if first > begin:
        begin = max(begin, index(items[first].position))
      if last < end:
        end = min(end, index(items[last].position + 1))
    return items[begin:end]

  def _learn(self, items: Iterable[Item]) -> None:
    """Adds what is known from now on, here and where else it is seen."""
    for item in items:
      for one in (item, *self.copies.get(item, ())):
        if one not in self.known and one not in self.sinks:
          bisect.insort(self.visible, one)
        self.known.add(one)

  def load(self, wanted: Sequence[Item]) -> None:
    """Makes the cache hold exactly what is wanted, by given rows."""
    good, all_wanted = 0, set(wanted)
    while good < len(self.cache) and self.cache[good] in all_wanted:
      good += 1
    self.cache = self.cache[:good]
    cached = set(self.cache)
    missing = [item for item in wanted if item not in cached]
    while missing:
      run = missing[: self._run(missing)]
      missing = missing[len(run) :]
      row = self._append(run, conditioning=True)
      for k, item in enumerate(run):
        row['write'][k] = len(self.cache)
        self.cache.append(item)

  def _run(self, items: Sequence[Item]) -> int:
    """How many of the first items one given row can hold."""
    for k in range(1, min(self.settings.block, len(items))):
      one, other = items[k - 1 : k + 1]
      strange = not self.script.is_home(other) and (
        other.entry >= self.script.length or other.entry != one.entry + 1
      )
      if (
        strange
        or other.position != one.position + 1
        or self.prompt_of(one) != self.prompt_of(other)
        or (one in self.sinks) != (other in self.sinks)
      ):
        return k
    return min(self.settings.block, len(items))

  def generate(self, block: Block, following: Block | None) -> None:
    """Appends the row of a block, and keeps of it what the next one wants."""
    anchors, anchored = self.settings.anchors, self.anchored(block)
    made = [
      Item(position, self.script.entry(position))
      for position in range(block.first, block.last + 1)
    ]
    row = self._append(made, anchor=anchored)
    # The sampler starts a whole block from as many anchors, no part of one.
    whole = block.count == anchors == self.settings.block
    if self.carried == block.first and whole:
      row['start'] = self.settings.start
    if anchored:
      self.carried = block.first - anchors
    self._learn(made)
    self.held.update(item.position for item in made)
    kept = set(self.wanted(following or block))
    free = [
      slot
      for slot in range(len(self.sinks), len(self.cache))
      if self.cache[slot] not in kept
    ]
    # Sinks first: their slots come before those of the window.
    for item in sorted(made, key=lambda item: item not in self.sinks):
      slot = len(self.cache)
      if item not in self.sinks:
        slot = free.pop(0) if free and item in kept else slot
        if slot < len(self.sinks):
          continue  # that slot waits for a sink
      if item in kept:
        self.cache[slot : slot + 1] = [item]
        row['write'][made.index(item)] = slot

  def _append(self, items, conditioning=False, anchor=False):
    block, first = self.settings.block, items[0].position
    before = self.settings.anchors if anchor else 0
    padding = [-1] * (block - len(items))
    row = {
      'target': list(range(first, first + block)),
      'count': len(items),
      'conditioning': conditioning,
      'latent': [item.entry for item in items] + padding,
      'anchor': anchor,
      'start': 0,
      'visible': len(self.cache),
      'write': [-1] * block,
      'prompt': self.prompt_of(items[0]),
      'sinks': self._sinks(first - before, items[-1].position),
    }
    self.rows.append(row)
    for item in items:
      self.first.setdefault(item.entry, item.position)
    return row

  def _sinks(self, low: int, high: int) -> list[int]:
    """Where a row at positions low .. high sees its sinks; 0 = not yet."""
    number, span = len(self.sinks), self.script.span
    filled = self.script.sinks[: len(self.cache)]
    seen = [item.position for item in self.cache[number:]]
    ends = {True: [], False: []}
    for item, is_past in filled:
      ends[is_past].append(item.position)
    if filled and span is not None:
      low, high = min([low, *seen]), max([high, *seen])
      ends[True], ends[False] = place_sinks(
        ends[True], ends[False], low, high, span, self.script.forward
      )
    places = [ends[is_past].pop(0) for _, is_past in filled]
    return places + [0] * (number - len(places))

  def plan(self) -> Plan:
    """Returns the checked plan of the collected rows."""
    script, settings = self.script, self.settings
    room = settings.block + settings.anchors
    slots = max(
      row['visible'] + settings.block + settings.anchors * row['anchor']
      for row in self.rows
    )
    most = settings.window or settings.span
    if most is not None:
      # The same for videos of all lengths, so that they share programs. Only
      # where the span is filled twice, by images and their latents, are more.
      slots = max(slots, len(self.sinks) + most + room)
    rows = self._unread()
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    arrays['sinks'] = arrays['sinks'].reshape(len(rows), len(self.sinks))
    plan = Plan(
      **{
        name: array if array.dtype == bool else array.astype(np.int32)
        for name, array in arrays.items()
      },
      num_latents=script.entries,
      num_slots=slots,
      num_anchors=settings.anchors,
      block=settings.block,
      num_sinks=len(self.sinks),
    ).pad(rows=settings.rows)
    check(plan, window=settings.window, span=script.span)
    return plan

  def _unread(self):
    """Rows that say what is part of the video though no row reads it there.

    They see nothing and write nothing, so that nothing is computed for them.
    """
    rows, self.rows, self.cache = self.rows, [], []
    items = sorted(
      item
      for item in self.script.items
      if self.first.get(item.entry) != item.position
    )
    while items:
      run = items[: self._run(items)]
      items = items[len(run) :]
      self._append(run, conditioning=True)
    kept, self.rows = self.rows, []
    read = {
      (position, entry)
      for row in rows
      for position, entry in zip(row['target'], row['latent'], strict=True)
    }
    # So that a loop is one though its window is too small to see it.
    for item in [] if read & {*self.script.copies} else [*self.script.copies]:
      self._append([item], conditioning=True)
    return kept + rows + self.rows
