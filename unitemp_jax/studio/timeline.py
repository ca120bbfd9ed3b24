"""What stands on the page's timeline, and what it asks for.

A timeline is turned into a call of a workflow and in no other way into a
request, so that the page, the command and Python make the same video. Its times
are frames of the finished video.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unitemp_jax import orders, timeline
from unitemp_jax.data.typed_json import from_json
from unitemp_jax.errors import UserError
from unitemp_jax.generate.call import Call
from unitemp_jax.plans import decoding

ORDERS = ('auto', *orders.SIDES, 'scenes')
_MOST = 1000  # prompts and pieces
_HALF = re.compile(r'[\ud800-\udfff]')  # of a character; no file can hold it
_WRONG = 'this is no timeline of the studio; reload the page.'
# Where the order only says from which side gaps are filled.
_DIRECTIONS = {'auto': 'forward', 'past': 'forward', 'future': 'backward'}
_SIDES = {'auto': 'alternate', 'past': 'past', 'future': 'future'}
_ENDS = {False: 'first', True: 'last'}
_SAID = {'outside_in': 'from both ends', 'middle_out': 'middle out'}


@dataclasses.dataclass(frozen=True)
class Piece:
  """Frames `first`..`last` of a source, which stand at frame `at`."""

  source: str
  at: int
  first: int
  last: int

  @property
  def count(self) -> int:
    """How many frames they are."""
    return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What the video shows from a frame on; `link`: a storyboard's transition."""

  at: int
  text: str
  link: bool = False


@dataclasses.dataclass(frozen=True)
class Timeline:
  """All that a person has set on the page."""

  length: int
  prompts: tuple[Prompt, ...] = (Prompt(0, ''),)
  pieces: tuple[Piece, ...] = ()
  order: str = 'auto'
  sinks: str = ''
  decode: str = 'joint'
  loop: bool = False
  seed: int = 0
  window: int = 0  # latents; 0: the model's own
  anchors: int = -1  # -1: the model's own
  size: str = ''  # HEIGHTxWIDTH

  @classmethod
  def read(cls, value: Any) -> 'Timeline':
    """Reads what a page sent; UserError if it is anything else."""
    try:
      line = from_json(cls, value)
    except ValueError:
      raise UserError(_WRONG) from None
    texts = [p.text for p in line.prompts] + [p.source for p in line.pieces]
    if not (
      line.order in ORDERS
      and line.sinks in ('', *orders.SINKS)
      and line.decode in decoding.MODES
      and len(texts) <= _MOST
      and all(len(t) <= 5000 and not _HALF.search(t) for t in texts)
      and all(piece.first >= 0 < piece.count for piece in line.pieces)
    ):
      raise UserError(_WRONG)
    if not 1 <= line.length <= timeline.MOST_FRAMES:
      raise UserError(
        f'the length is {line.length} frames; use 5 to {timeline.MOST_FRAMES}.'
      )
    if line.size and not re.fullmatch(r'\d{1,5}x\d{1,5}', line.size):
      raise UserError(
        f'the size is {line.size!r}; write height x width, such as 32x32.'
      )
    prompts = sorted(line.prompts, key=lambda prompt: prompt.at)
    return dataclasses.replace(line, prompts=tuple(prompts))

  def record(self) -> dict[str, Any]:
    """JSON that `read` reads."""
    return dataclasses.asdict(self)

  def settings(self) -> dict[str, int]:
    """What is not the model's own, as workflows and options name it."""
    found = {'window': self.window} if self.window else {}
    if self.anchors >= 0:
      found['anchors'] = self.anchors
    if self.size:
      found['height'], found['width'] = map(int, self.size.split('x'))
    return found

  def schedule(self) -> dict[int, str]:
    """Text by the frame from which it holds; the first one is at 0."""
    all_ = [(p.at, p.text.strip(), p.link) for p in self.prompts]
    texts = {at: text for at, text, link in all_ if text or not link}
    if not texts.get(0):
      raise UserError('write a prompt: what the video shows from frame 0 on.')
    for at, text in texts.items():
      if not text:
        raise UserError(f'write the prompt from frame {at} on, or remove it.')
      if '\n' in text:
        raise UserError('a prompt is one line of text.')
    return texts


class Source(NamedTuple):
  """A file that pieces are parts of, and how many frames it has."""

  path: Path
  frames: int


Cut = Callable[[Piece], str]


def call(
  line: Timeline, sources: Mapping[str, Source], cut: Cut, short: int
) -> Call:
  """What a person would choose on the command line for a timeline.

  Args:
    line: the timeline, which is none of scenes.
    sources: of its pieces, by name.
    cut: gives the file of a piece.
    short: frames up to which a video needs no sinks.

  Raises:
    UserError: the order needs something that is not there.
  """
  pieces = sorted(line.pieces, key=lambda piece: piece.at)
  if len({piece.at for piece in pieces}) < len(pieces):
    raise UserError('two pieces stand at one frame; move one of them.')
  ends = {bool(p.at): p for p in pieces if not (p.at and _after(line, p))}
  if line.sinks and (line.loop or len(ends) < len(pieces)):
    raise UserError(
      'sinks are of a video of which at most the ends are given; set them to '
      'automatic, or open the ends and remove what stands between.'
    )
  if pieces and not (line.loop or line.sinks):
    workflow, own = _given(line, pieces, sources, cut)
  else:
    workflow, own = _loop(line, pieces) if line.loop else _long(line, short)
    own |= {_ENDS[at]: cut(piece) for at, piece in ends.items()}
  own |= {'prompt': line.schedule(), 'seed': line.seed, **line.settings()}
  return Call(workflow, own)


def _after(line: Timeline, piece: Piece) -> int:
  """Frames of the video after a piece."""
  return line.length - piece.at - piece.count


def _side(line: Timeline) -> dict[str, str]:
  return {} if line.order == 'auto' else {'side': line.order}


def _loop(line: Timeline, pieces: list[Piece]) -> tuple[str, dict[str, Any]]:
  if any(piece.at for piece in pieces):
    raise UserError(
      'joined ends: only what stands at frame 0 can be given to a loop; '
      'remove the rest, or open the ends.'
    )
  return 'loop', {'length': line.length, **_side(line)}


def _given(
  line: Timeline, pieces: list[Piece], sources: Mapping[str, Source], cut: Cut
) -> tuple[str, dict[str, Any]]:
  end = max(piece.at + piece.count for piece in pieces)
  if end > line.length:
    raise UserError(
      f'what is given lasts until frame {end - 1}, the video until '
      f'{line.length - 1}; move it, trim it, or make the video longer.'
    )
  if sum(piece.count for piece in pieces) >= line.length:
    raise UserError(
      f'all {line.length} frames of the video are given, so that nothing is '
      'left to make; make it longer.'
    )
  side, (one, *rest) = _side(line), pieces
  if not rest and one.count > 1 and line.order in _SIDES:
    added = {'before': one.at, 'after': _after(line, one)}
    return 'extend', {'clip': cut(one), **added, 'sides': _SIDES[line.order]}
  if not rest and one.count == 1 and not side:
    own = {'image': cut(one), 'at': one.at, 'length': line.length}
    return 'image_to_video', own
  if len(rest) == 1 and one.source == rest[0].source:
    path, frames = sources[one.source]
    low, high = one.last + 1, rest[0].first - 1
    in_place = one.at == one.first == 0 and rest[0].at == rest[0].first
    if in_place and low <= high and rest[0].last + 1 == frames == line.length:
      return 'regenerate', {'clip': str(path), 'span': (low, high), **side}
  if rest and not side:
    side = {'side': 'outside_in'}
  keyframes = {piece.at: cut(piece) for piece in pieces}
  return 'fill', {'keyframes': keyframes, 'length': line.length, **side}


def _long(line: Timeline, short: int) -> tuple[str, dict[str, Any]]:
  """A video of which at most the ends are given."""
  if line.order not in _DIRECTIONS:
    raise UserError(
      f'the order {_SAID[line.order]!r} fills between what is given: put a '
      'picture on the timeline, or choose another order.'
    )
  own = {'length': line.length, 'direction': _DIRECTIONS[line.order]}
  sinks = line.sinks or ('none' if line.length <= short else '')
  return 'long_video', own | ({'sinks': sinks} if sinks else {})
