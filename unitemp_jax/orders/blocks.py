"""How a stretch of the timeline is cut into blocks, and in which sequence."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence

from unitemp_jax.errors import UserError

SIDES = ('past', 'future', 'outside_in', 'middle_out')


@dataclasses.dataclass(frozen=True)
class Block:
  """A row to be generated: positions first .. first + count - 1.

  `scope` are the positions low .. high - 1 that it may see; None is all.
  """

  first: int
  count: int
  scope: tuple[int, int] | None = None

  @property
  def last(self) -> int:
    """The last position."""
    return self.first + self.count - 1


def sequence(number: int, side: str) -> list[int]:
  """Returns the indices of blocks in time, in order of generation.

  Raises:
    UserError: an unknown side.
  """
  if side == 'past':
    return list(range(number))
  if side == 'future':
    return list(range(number))[::-1]
  if side == 'outside_in':
    return [
      i // 2 if i % 2 == 0 else number - 1 - i // 2 for i in range(number)
    ]
  if side == 'middle_out':
    # The middle, then one before, one after, two before, ...
    return sorted(range(number), key=lambda i: (abs(i - number // 2), i))
  raise UserError(f'order: unknown side {side!r}; use {", ".join(SIDES)}')


def cut(
  low: int,
  high: int,
  side: str,
  *,
  block: int,
  head: int = 0,
  switches: Collection[int] = (),
  scope: tuple[int, int] | None = None,
) -> list[Block]:
  """Returns the blocks of positions low .. high - 1, in order of generation.

  Args:
    low: first position.
    high: position after the last.
    side: one of `SIDES`.
    block: B, latents per block. What is left over makes one shorter block, as
      late in the order as possible.
    head: the first block is no shorter than this if another can be.
    switches: positions at which a block must begin, for its prompt.
    scope: what the blocks may see.
  """
  edges = [low, *sorted({s for s in switches if low < s < high}), high]
  pieces = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
  numbers = [-(-(b - a) // block) for a, b in pieces]
  order = sequence(sum(numbers), side)
  counts: list[int] = []
  for (begin, end), number in zip(pieces, numbers, strict=True):
    mine = range(len(counts), len(counts) + number)
    short = end - begin - (number - 1) * block
    latest = [i for i in order if i in mine][::-1]
    place = latest[0]
    if place == 0 and number > 1 and short < head:
      place = latest[1]
    counts += [short if i == place else block for i in mine]
  firsts = [low + sum(counts[:i]) for i in range(len(counts))]
  return [Block(firsts[i], counts[i], scope) for i in order]


def heads_first(
  blocks: Sequence[Block], begin: int, anchors: int, held: set[int]
) -> list[Block]:
  """Moves blocks so that no anchors begin before the video.

  Where a block stands so near to the start `begin` that its anchors would, what
  lies before it is generated first, and it sees that instead, whatever its
  scope.

  Args:
    blocks: in order of generation.
    begin: first position of the video.
    anchors: P.
    held: positions that are known from the start.
  """
  pending, done, known = list(blocks), [], set(held)

  def emit(block):
    pending.remove(block)
    done.append(block)
    known.update(range(block.first, block.last + 1))

  while pending:
    block = pending[0]
    if begin < block.first < begin + anchors:
      if block.first - 1 not in known:
        for earlier in sorted(pending, key=lambda one: one.first):
          if earlier.first < block.first:
            emit(earlier)
      if block.scope is not None and block.scope[0] >= block.first:
        scope = (begin, block.scope[1])
        pending[pending.index(block)] = dataclasses.replace(block, scope=scope)
        block = dataclasses.replace(block, scope=scope)
    emit(block)
  return done


def alternate(*lists: Sequence[Block]) -> list[Block]:
  """Returns one of each list in turn, as long as there are any."""
  longest = max(map(len, lists), default=0)
  return [one[i] for i in range(longest) for one in lists if i < len(one)]


def prompt_at(switches: Sequence[tuple[int, int]]) -> Callable[[int], int]:
  """Returns position -> prompt index, for (first position, index) switches."""
  ordered = sorted(switches)

  def prompt(position: int) -> int:
    earlier = [index for first, index in ordered if first <= position]
    return earlier[-1] if earlier else 0

  return prompt
