"""Scripts: conditioning frames and blocks of an order, before it is a plan."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from unitemp_jax import timeline
from unitemp_jax.errors import UserError

_MOST = 1000  # latents of a block, sigmas
MOST_SEEN = 2501  # latents: all pairs of more would take minutes to lay out
_LONGEST = timeline.num_latents(timeline.MOST_FRAMES)
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
  """Returns the indices of blocks in time, in order of generation."""
  check_word('side', side)
  if side == 'past':
    return list(range(number))
  if side == 'future':
    return list(range(number))[::-1]
  if side == 'outside_in':
    return [
      i // 2 if i % 2 == 0 else number - 1 - i // 2 for i in range(number)
    ]
  # The middle, then one before, one after, two before, ...
  return sorted(range(number), key=lambda i: (abs(i - number // 2), i))


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
  firsts = list(itertools.accumulate(counts, initial=low))
  return [Block(firsts[i], counts[i], scope) for i in order]


def heads_first(
  blocks: Sequence[Block], begin: int, anchors: int, held: set[int]
) -> list[Block]:
  """Moves blocks so that no anchors begin before the video.

  Where a block stands so near to the start `begin` that its anchors would, what
  lies before it is generated first, and it sees that instead, whatever its
  scope.
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
    number = bisect.bisect_left(ordered, (position + 1,))
    return ordered[number - 1][1] if number else 0

  return prompt


class Item(NamedTuple):
  """A latent that can be seen: buffer entry `entry` at a position."""

  position: int
  entry: int


class Conditioning(NamedTuple):
  """What is given: `count` latents from a position on (1 = an image)."""

  position: int
  count: int  # type: ignore[assignment]  # the name that users know


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all orders have in common."""

  # B, latents per row. What is left over makes one shorter block, as late in
  # the order as anchors inside the video allow.
  block: int = 3
  anchors: int = 3  # P, anchor latents per anchored row, 0..B; 0 = none
  # Level at which a row that the carried anchors cover starts from them; 0 =
  # every row starts from noise.
  start: int = 0
  # Most latents that a row sees, sinks not counted; the cache stays as small
  # however long the video is. None = everything.
  window: int | None = None
  # Latents that the model was trained on. A row sees nothing that is farther
  # away: positions that meet in it differ by less, however long the video is.
  # None = any.
  span: int | None = None
  # Give the video a past that is not shown, unless its beginning is given. A
  # model that was trained on longer videos takes a block for an inner one if
  # less follows it than followed the first one in training; so it is made as
  # one, with anchors, the last frame of which is frame 0.
  open_start: bool = False
  # (first position, prompt index) of every switch; prompt 0 holds before the
  # first. Blocks are cut at switches.
  prompts: Sequence[tuple[int, int]] = ()
  rows: int | None = None  # pad to this many rows; None = no padding

  def __post_init__(self):
    for name, option, least in (('block', '', 1), ('start', '_level', 0)):
      value = getattr(self, name)
      if not least <= value <= _MOST:
        raise UserError(f'{name}{option} is {value}; use {least}..{_MOST}.')
    if not 0 <= self.anchors <= self.block:
      # More would begin before the video when the second block has them.
      raise UserError(
        f'anchors is {self.anchors}, and a block has {self.block}; use 0..'
        f'{self.block}.'
      )
    if self.open_start and not self.anchors:
      raise UserError(
        'an open start needs anchors, from which the video begins; ask for '
        'anchors, or for a closed start.'
      )
    if self.window is not None and self.window < 1:
      raise UserError(
        f'a window of {self.window} shows nothing; use 1 or more, or leave it '
        'out to see everything (--window).'
      )
    least = self.block + self.anchors + 1
    if self.span is not None and self.span < least:
      raise UserError(
        f'a trained span of {self.span} holds no more than a block of '
        f'{self.block} and its {self.anchors} anchors; use {least} or more.'
      )
    for name, value in (('window', self.window), ('span', self.span)):
      if value is not None and value > _LONGEST:
        raise UserError(
          f'a {name} of {value} is longer than any video; use up to '
          f'{_LONGEST}, or leave it out to see everything.'
        )
    firsts = [first for first, _ in self.prompts]
    if len(set(firsts)) < len(firsts):
      raise UserError('two prompts begin within 4 frames; keep one.')
    if any(index < 0 for _, index in self.prompts):
      raise UserError('the number of a prompt must be 0 or more.')


@dataclasses.dataclass
class Script:
  """An order, to be compiled by `rows.compile_plan`."""

  begin: int  # first position of the video
  length: int  # N, its latents
  settings: Settings  # what all orders have in common
  # Whether anchors stand before the first position, as of a video that has
  # begun before; see `Plan.opening`.
  is_open: bool = False
  conditioning: Sequence[Conditioning] = ()  # what is given, by position
  # Positions given as part of the video though nothing says so, as the single
  # first latent of a video of which a span is made anew.
  held: frozenset[int] = frozenset()
  # In order of generation.
  blocks: list[Block] = dataclasses.field(default_factory=list)
  # What is context elsewhere too, once known: where it is then, and where it is
  # known from.
  copies: Mapping[Item, Item] = dataclasses.field(default_factory=dict)
  # Latents in the order of their slots, and whether each stands for the past
  # end.
  sinks: Sequence[tuple[Item, bool]] = ()
  # Latents that the model was trained on, those of the settings if not said;
  # needed with sinks.
  span: int | None = None
  # Whether the video is on its way to the future, for sinks.
  forward: bool = True

  def __post_init__(self):
    """Finds what is given, and refuses what does not fit the video."""
    if self.span is None:
      self.span = self.settings.span
    _check_length(self.length, self.span, self.settings.window)
    first = self.begin - self.is_open
    _check_given(self.begin, self.length, self.conditioning, first)
    # If the start is open, frame 0 may belong to the position before.
    first, end = self.begin - self.is_open, self.begin + self.length
    for position, _ in self.settings.prompts:
      if not first <= position < end:
        raise UserError(
          'a prompt begins outside of the video, which has frames 0..'
          f'{timeline.STRIDE * (end - 1 - first)}; let it begin at one of them.'
        )
    self.items: list[Item] = []  # everything given
    own = self.length
    for given in sorted(self.conditioning):
      # Only at the start of a video does it have an image latent itself.
      inner = self.is_open or given.position > self.begin
      image = given.position not in self.held and (given.count == 1 or inner)
      for position in range(given.position, given.position + given.count):
        alone = image and position == given.position
        self.items.append(
          Item(position, own if alone else self.entry(position))
        )
      own += image
    self.entries = own
    # Positions whose latents of the video are given.
    self.homes = {item.position for item in self.items if self.is_home(item)}

  def entry(self, position: int) -> int:
    """Returns the buffer entry of a position of the timeline."""
    return position - self.begin

  def is_home(self, item: Item) -> bool:
    """Whether an item is part of the video, rather than context only."""
    return item.entry == self.entry(item.position)

  @property
  def known(self) -> set[int]:
    """Positions whose latents of the video are given.

    An image at the start counts: there the video has an image latent too.
    """
    if self.is_open:
      return {*self.homes}
    return self.homes | ({self.begin} & {item.position for item in self.items})

  def free(self, low: int, high: int) -> list[tuple[int, int]]:
    """Returns the stretches of low .. high - 1 that are to be generated."""
    free: list[tuple[int, int]] = []
    low, high = max(low, self.begin), min(high, self.begin + self.length)
    for position in range(low, high):
      if position in self.homes:
        continue
      if free and free[-1][1] == position:
        free[-1] = (free[-1][0], position + 1)
      else:
        free.append((position, position + 1))
    return free

  def gaps(self) -> list[tuple[int, int]]:
    """Returns all that is to be generated, cut behind what is given, by time.

    The latent that a given image or the first frame of a clip belongs to ends a
    gap, but for an image at the very start: that belongs to the first gap.
    """
    end = self.begin + self.length
    inner = {one.position + 1 for one in self.conditioning} - {self.begin + 1}
    edges = [self.begin, *sorted(inner - {end}), end]
    return [
      gap
      for low, high in itertools.pairwise(edges)
      for gap in self.free(low, high)
    ]

  def cut(self, low: int, high: int, side: str, scope=None) -> list[Block]:
    """Returns the blocks of positions low .. high - 1, see `blocks.cut`."""
    settings = self.settings
    return cut(
      low,
      high,
      side,
      block=settings.block,
      head=0 if self.is_open else settings.anchors - (low - self.begin),
      switches=[position for position, _ in settings.prompts],
      scope=scope,
    )


def _check_length(length, span, window):
  """Refuses videos that would take minutes to lay out."""
  frames = timeline.num_frames(length)
  if frames > timeline.MOST_FRAMES:
    raise UserError(
      f'a video of {frames} frames is too long; use at most '
      f'{timeline.MOST_FRAMES}'
    )
  if min(length, span or length, window or length) * length > MOST_SEEN**2:
    raise UserError(
      f'in a video of {frames} frames a block cannot see all others; use at '
      f'most {timeline.num_frames(MOST_SEEN)}, --long, or a window, such as '
      f'--window=9 ({MOST_SEEN**2 // length} at most).'
    )


def _check_given(begin, length, given, zero):
  end = begin
  for position, count in sorted(given):
    frame = timeline.STRIDE * (position - zero)
    if count < 1 or position < begin or position + count > begin + length:
      raise UserError(
        f'{timeline.num_frames(count)} frames given at frame {frame} do not '
        'lie in the video; make it longer, or give fewer.'
      )
    if position < end:
      raise UserError(
        f'what is given at frame {frame} overlaps what is given before it; '
        f'begin at frame {timeline.STRIDE * (end - zero)} or later.'
      )
    end = position + count


def new_script(
  begin: int,
  num_latents: int,
  settings: Settings,
  given: Sequence[Conditioning | tuple[int, int]] = (),
  *,
  held: frozenset[int] = frozenset(),
) -> Script:
  """Returns an order without blocks, of a video of 4 N - 3 frames.

  `begin` is the position of frame 0. If the start is open, that frame belongs
  to the anchors, and the latents of the video begin one position later.
  """
  placed = [Conditioning(*one) for one in given]
  is_open = settings.open_start and all(one.position > begin for one in placed)
  if num_latents < 1 + is_open:
    raise UserError(
      f'a video of {timeline.num_frames(num_latents)} frames is too short; use '
      f'{timeline.num_frames(1 + is_open)} or more.'
    )
  length = num_latents - is_open
  return Script(begin + is_open, length, settings, is_open, placed, held)


def check_word(what: str, word: str, words: Sequence[str] = SIDES) -> None:
  """Refuses, as a `what`, a word that is none of those."""
  if not isinstance(word, str) or word not in words:
    raise UserError(f'{what} is {word!r:.60}; use {", ".join(words)}.')


def given_ends(num_latents: int, first: int, last: int) -> list[Conditioning]:
  """Returns what is given at both ends; UserError if it leaves nothing."""
  if min(first, last) < 0:
    raise UserError('give 0 or more at each end (--first, --last).')
  kept = (first if first > 1 else 0) + max(last - 1, 0)
  if num_latents >= 1 and (kept >= num_latents or last >= max(num_latents, 2)):
    raise UserError(
      f'what is given leaves nothing to make of '
      f'{timeline.num_frames(num_latents)} frames; use '
      f'{timeline.num_frames(max(kept + 1, last + 1))} or more.'
    )
  given = [Conditioning(0, first)] if first else []
  return given + ([Conditioning(num_latents - last, last)] if last else [])
