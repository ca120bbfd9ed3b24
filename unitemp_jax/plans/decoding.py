"""Decode schedules: which latents of a plan become which frames, and when.

A causal decoder needs the past of a block. The three schedules are tables that
one decoder runs (`sampling.decode`):

* joint: by time, when all latents exist. A block has its whole past.
* stream: in order of generation, each block as soon as it exists. Its past is
  what was decoded before it in time, else the anchors that it was denoised with
  (P + B latents give 1 + 4 (P + B - 1) frames, of which the last 4 B are kept),
  else nothing, so that its first latent is taken for an image latent.
* lag: as stream. A block that was shown without its past is decoded again when
  the block before it exists, behind that block and its anchors: `[A_k-1, B_k-1,
  B_k]`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from unitemp_jax import timeline
from unitemp_jax.plans.plan import Plan

MODES = ('joint', 'stream', 'lag')


class Cut(NamedTuple):
  """Frames that are kept: from `low` to `high`, counted from the end (<= 0).

  `first` is where they begin in the video. Frames before the first decoded one
  are copies of it.
  """

  first: int
  low: int
  high: int


@dataclasses.dataclass(frozen=True)
class DecodeRow:
  """Latents that are decoded one after the other."""

  row: int  # of the plan; when it is done, all of them exist
  latents: tuple[int, ...]  # buffer entries, those of the past first
  cuts: tuple[Cut, ...]  # which frames are kept
  chunk: int = 0  # latents that are decoded at a time; 0 = all
  # Row of the plan whose anchors are decoded first; -1 = none.
  anchors: int = -1
  # Row of the schedule whose decoder memory is continued; -1 = none.
  after: int = -1
  refines: bool = False  # whether the frames have been shown before
  # Whether the last chunk is filled up with copies of its last latent, so that
  # all chunks run the same two programs.
  filled: bool = False


Schedule = tuple[DecodeRow, ...]


def schedule(plan: Plan, mode: str) -> Schedule:
  """The decode schedule of a plan in one of `MODES`."""
  if mode == 'joint':
    return joint(plan)
  return _Stream(plan, lag=mode == 'lag').rows


def needs_lag(plan: Plan) -> bool:
  """Whether any block is shown before its past exists."""
  return any(row.refines for row in schedule(plan, 'lag'))


def lag_notes(plans: Mapping[str, Plan]) -> list[str]:
  """Says which of the named plans decode in lag as they stream."""
  return [
    f'{name}: no block waits for its past, so that it needs no lag'
    for name, plan in plans.items()
    if not needs_lag(plan)
  ]


def new_positions(plan: Plan) -> list[list[int]]:
  """For each row, the positions of the video that exist since that row."""
  where = _entries(plan)
  seen: set[int] = set()
  rows = []
  for row in range(plan.num_rows):
    own = [p for p, entry in plan.entries(row) if where.get(p) == entry]
    rows.append([p for p in own if p not in seen])
    seen.update(own)
  return rows


def describe_blocks(plan: Plan) -> dict[str, Any]:
  """What sidecars, pages and metrics know of the blocks of a video.

  Returns:
    `generation_order`: temporal positions of each block, in the order in which
    they were made or given; a given clip is one block, however many rows read
    it. Frame 0 belongs to the first block, the frames with which a loop closes
    are one of their own. `boundary_frames`: the transitions between blocks, by
    the frame before.
  """
  rows = new_positions(plan)
  clips: dict[int, list[int]] = {}  # position -> all of its given clip
  for position in sorted(
    p for r in np.flatnonzero(plan.conditioning) for p in rows[r]
  ):
    clips[position] = clips.get(position - 1, [])
    clips[position].append(position)
  found: dict[int, list[int]] = {}  # by first position
  for row, own in enumerate(rows):
    for block in [clips[p] for p in own] if plan.conditioning[row] else [own]:
      if block:
        found.setdefault(block[0], block)
  blocks = list(found.values())
  if plan.opening is not None:
    blocks = _with_ends(plan, blocks)
  firsts = sorted(own[0] for own in blocks if own[0] > plan.begin)
  return {
    'generation_order': blocks,
    'boundary_frames': [timeline.STRIDE * (p - plan.begin - 1) for p in firsts],
  }


def _with_ends(plan: Plan, blocks: list[list[int]]) -> list[list[int]]:
  """Adds what an open start shows: frame 0, or the frames that close a loop."""
  first, found = int(plan.timeline()[0][0]), []
  for block in blocks:
    if block[0] != first:
      found.append(block)
    elif plan.loops:
      found += [block, [plan.begin + plan.num_frames // timeline.STRIDE]]
    else:
      found.append([plan.begin, *block])
  return found


def _entries(plan: Plan) -> dict[int, int]:
  """Position -> buffer entry, over the video."""
  positions, entries = plan.timeline()
  return dict(zip(positions.tolist(), entries.tolist(), strict=True))


def _shown(plan: Plan, own: list[int]) -> tuple[Cut, ...]:
  """The frames of consecutive positions, where their latents come last."""
  count = timeline.STRIDE * len(own)
  first = timeline.STRIDE * (own[0] - plan.begin - 1) + 1
  end, cuts = plan.num_frames, [Cut(first, -count, 0)]
  if own[0] == int(plan.timeline()[0][0]):
    # Frame 0 is the last of the past, or of the first latent.
    cuts = [Cut(0, -count - first, 0)]
    if plan.loops and plan.opening is not None:
      stride = timeline.STRIDE  # its others end the loop
      cuts.append(Cut(end - stride, -count, stride - count))
  if plan.loops and plan.opening is None:
    # Its last frame is shown first, too.
    cuts = [cut if cut.first else Cut(1, cut.low + 1, 0) for cut in cuts]
    cuts += [Cut(0, -1, 0)] if first + count == end else []
  return tuple(cut for cut in cuts if cut.low < cut.high)


class _Stream:
  """Decodes a plan's rows in the order in which they are made.

  A given clip that does not start the video is decoded from its own image
  latent on, as it was encoded, and so is what grows forward from it.
  """

  def __init__(self, plan: Plan, lag: bool):
    self.rows: Schedule = ()
    self._plan, self._lag = plan, lag
    self._where = _entries(plan)
    self._start, self._end = min(self._where), max(self._where)
    blocks = new_positions(plan)
    self._coming = {own[0] for own in blocks if own}
    self._memory: dict[
      int, int
    ] = {}  # position -> decode row that it continues
    self._heads: dict[int, int] = {}  # image latents of given clips
    self._waiting: set[int] = set()  # given, their past is not there
    self._previews: dict[int, list[int]] = {}  # shown without past, by position
    last = int(np.flatnonzero(plan.count > 0)[-1])
    for row, own in enumerate(blocks):
      if plan.conditioning[row]:
        self._waiting.update(own)
        for position, entry in plan.entries(row):
          if self._where.get(position) != entry:
            self._heads[position] = entry
        self._flush(row)
      elif own:
        after = self._memory.pop(own[0], -1)
        self._decode(row, own, after, anchored=bool(plan.anchor[row]))
      if row == last:  # heads that no row has read will not come any more
        self._flush(row, all_of_it=True)

  def _flush(self, row: int, all_of_it: bool = False) -> None:
    """Decodes given latents whose past is there."""
    for first in sorted(self._waiting):
      if first not in self._waiting or first - 1 in self._waiting:
        continue
      head = self._heads.get(first - 1)
      after = self._memory.get(first, -1) if head is None else -1
      known = first == self._start or head is not None or after >= 0
      if not (known or all_of_it):
        continue
      own = [first]
      while own[-1] + 1 in self._waiting:
        own.append(own[-1] + 1)
      self._waiting.difference_update(own)
      self._decode(row, own, after, None if first == self._start else head)

  def _decode(self, row, own, after, head=None, anchored=False) -> None:
    """Appends the decode row of positions `own`."""
    past = [] if head is None or after >= 0 else [head]
    number = self._plan.num_anchors if anchored else len(past)
    self._append(
      own,
      DecodeRow(
        row,
        tuple(past + [self._where[p] for p in own]),
        _shown(self._plan, own),
        # Block by block, so that long given clips run the same programs.
        self._plan.block + (number if number > 1 else 0),
        row if anchored and after < 0 else -1,
        after,
      ),
    )
    made = not self._plan.conditioning[row]
    if made and after < 0 and (anchored or own[0] > self._start):
      self._previews[own[0]] = own

  def _append(self, own: list[int], row: DecodeRow) -> None:
    index, following = len(self.rows), own[-1] + 1
    self.rows += (row,)
    self._coming.discard(own[0])
    if following in self._coming or following in self._waiting:
      self._memory[following] = index
    if own[-1] == self._end and self._plan.loops:
      following = self._start
    preview = self._previews.pop(following, None) if self._lag else None
    if preview is not None:
      entries = tuple(self._where[p] for p in preview)
      cuts = _shown(self._plan, preview)
      block = self._plan.block
      again = DecodeRow(row.row, entries, cuts, block, -1, index, True)
      self._append(preview, again)


def joint(
  plan: Plan,
  rows: Collection[int] | None = None,
  *,
  clips: bool = True,
  chunk: int | None = None,
) -> Schedule:
  """The schedule by time of what exists of a video.

  A given clip was encoded by itself, so it begins a row, from its own image
  latent on. So does whatever follows a gap, as long as not all rows are made. A
  finished loop begins behind its end, with the decoder's memory of it.

  Args:
    plan: of the video.
    rows: of the plan that exist; None = all.
    clips: False decodes given clips as if they had been made.
    chunk: latents decoded at a time; by default a block, 0 = all.
  """
  where = _entries(plan)
  there = [
    row
    for row in (range(plan.num_rows) if rows is None else sorted(rows))
    if plan.count[row]
  ]
  runs = _runs(plan, where, there, clips)
  if plan.loops:
    _close(plan, runs, sum(len(run.latents) for run in runs) == len(where))
  chunk = plan.block if chunk is None else chunk
  return tuple(
    DecodeRow(
      there[-1],
      tuple(run.past + run.latents),
      tuple(run.cuts),
      chunk,
      run.anchors,
      filled=True,
    )
    for run in runs
  )


@dataclasses.dataclass
class _Run:
  """Latents that follow each other in time, after their past."""

  anchors: int
  past: list[int]
  latents: list[int]
  cuts: list[Cut]


def _runs(plan, where, there, clips) -> list[_Run]:
  made = set(plan.latent[~plan.conditioning].ravel().tolist())
  held: set[int] = set()
  heads: dict[int, int] = {}
  anchors: dict[int, int] = {}
  for row in there:
    for position, entry in plan.entries(row):
      if where.get(position) == entry:
        held.add(position)
      else:
        heads[position] = entry
    if plan.anchor[row]:
      anchors[int(plan.target[row, 0])] = row
  start, runs = min(where), {}
  for position in sorted(held):
    clip = clips and position > start and where[position] not in made
    clip = clip and position - 1 in heads
    if clip or position - 1 not in held:
      past = [heads[position - 1]] if clip else []
      run = _Run(-1 if clip else anchors.get(position, -1), past, [], [])
      runs[position] = run
    run.latents.append(where[position])
  for position, run in runs.items():
    count = timeline.STRIDE * len(run.latents)
    first = timeline.STRIDE * (position - plan.begin - 1) + 1
    if position == start:
      run.cuts = [Cut(0, -count - first, 0)]
      continue
    # Without a past, its first latent is taken for an image latent.
    lost = 0 if run.past or run.anchors >= 0 else 3
    run.cuts = [Cut(first + lost, lost - count, 0)]
  return list(runs.values())


def _close(plan: Plan, runs: list[_Run], whole: bool) -> None:
  """Decodes a loop's beginning behind its end; its last frame is its first."""
  first, last = runs[0], runs[-1]
  if whole:
    again = first.latents[:1]
    first.anchors, first.past = last.anchors, last.past + last.latents
    if plan.opening is None:
      # Its image latent is of the same frame as the last latent's last.
      first.latents = first.latents[1:]
    else:
      last.latents = last.latents + again
      low = last.cuts[0].low - timeline.STRIDE
      last.cuts[0] = last.cuts[0]._replace(low=low)
  start, end = first.cuts[0], last.cuts[0]
  if start.first == 0 and end.first - end.low == plan.num_frames:
    last.cuts[0] = end._replace(high=-1)
    first.cuts.append(Cut(plan.num_frames - 1, start.low, start.low + 1))
