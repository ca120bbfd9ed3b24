"""What a row sees: the nearest latents, and sinks at either end.

A window holds at most so many latents. The nearest in time are seen, and those
next to the row on either side in any case, so that both ends of a gap guide it.
Only differences between positions matter to attention, so a window that slides
along never leaves the range of positions that a model was trained on. A sink
would: it is seen at its own position while that is near enough, and at the
farthest that the range allows from then on.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Item(NamedTuple):
  """A latent that can be seen: buffer entry `entry` at a position."""

  position: int
  entry: int


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
  """Returns the items that a row at positions first .. last sees, by time.

  Args:
    items: what could be seen.
    first: first position of the row.
    last: last position of the row.
    window: most items seen; None = all.
    block: B; so many consecutive items next to the row on either side have a
      place of their own, if the window holds two of that.
    low: first position of the row's anchors, if it has any.
    reach: most positions that items and row may extend over; None = any.
  """
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

  Args:
    past: true positions of the past sinks, consecutive.
    future: true positions of the future sinks, consecutive.
    low: first position of what the row sees else, or makes.
    high: last position of that.
    span: latents that the model was trained on.
    forward: which end the video is on its way to: that one's sinks keep their
      distance first, or the video would seem to be about to end.

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
