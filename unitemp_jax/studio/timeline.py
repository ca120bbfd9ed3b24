"""What stands on the page's timeline, and the command that makes it.

A timeline is turned into the words of `unitemp generate` and in no other way
into a request, so that the page, the command and Python make the same video.
Its times are frames of the finished video.
"""

import dataclasses
import itertools
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unitemp_jax import orders, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.generate import storyboard, storyboard_file
from unitemp_jax.plans import decoding

ORDERS = ('auto', *orders.SIDES, 'scenes')
_MOST = 1000  # prompts or pieces
_WRONG = 'this is no timeline of the studio; reload the page.'
# Where the order only says from which side gaps are filled.
_DIRECTIONS = {'auto': 'forward', 'past': 'forward', 'future': 'backward'}
_SIDES = {'auto': 'alternate', 'past': 'past', 'future': 'future'}
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
    line = _read(cls, value)
    allowed = (ORDERS, ('', *orders.SINKS), decoding.MODES)
    chosen = (line.order, line.sinks, line.decode)
    if any(one not in own for one, own in zip(chosen, allowed, strict=True)):
      raise UserError(_WRONG)
    if not 1 <= line.length <= timeline.MOST_FRAMES:
      raise UserError(
        f'the length is {line.length} frames; use 5 to {timeline.MOST_FRAMES}.'
      )
    prompts = tuple(sorted(line.prompts, key=lambda prompt: prompt.at))
    if any(piece.first < 0 or piece.count < 1 for piece in line.pieces):
      raise UserError(_WRONG)
    if line.size and not re.fullmatch(r'\d{1,5}x\d{1,5}', line.size):
      raise UserError(
        f'the size is {line.size!r}; write height x width, such as 32x32.'
      )
    return dataclasses.replace(line, prompts=prompts)

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
    if not texts or not texts.get(0):
      raise UserError('write a prompt: what the video shows from frame 0 on.')
    for at in [at for at, text in texts.items() if not text]:
      raise UserError(f'write the prompt from frame {at} on, or remove it.')
    if any('\n' in text for text in texts.values()):
      raise UserError('a prompt is one line of text.')
    return texts


def _is_text(found: str) -> bool:
  return len(found) <= 5000 and not re.search(r'[\ud800-\udfff]', found)


def _read(kind: Any, value: Any) -> Any:
  """A dataclass of plain values, tuples of such, from JSON."""
  if not isinstance(value, dict):
    raise UserError(_WRONG)
  hints, known = typing.get_type_hints(kind), {}
  for name, found in value.items():
    wanted = hints.get(name)
    if typing.get_origin(wanted) is tuple:
      if not isinstance(found, list) or len(found) > _MOST:
        raise UserError(_WRONG)
      found = tuple(_read(typing.get_args(wanted)[0], one) for one in found)
    elif type(found) is not wanted or (wanted is str and not _is_text(found)):
      raise UserError(_WRONG)
    known[name] = found
  try:
    return kind(**known)
  except TypeError:
    raise UserError(_WRONG) from None


Files = Mapping[Piece, Path]


def hole(line: Timeline, frames: Mapping[str, int]) -> bool:
  """Whether the pieces are a clip in its place, without a span inside.

  Args:
    line: the timeline.
    frames: of the sources, by name.
  """
  if line.loop or line.sinks or line.order == 'scenes' or len(line.pieces) != 2:
    return False
  one, other = sorted(line.pieces, key=lambda piece: piece.at)
  return (
    one.source == other.source
    and frames[one.source] == line.length == other.last + 1
    and one.at == one.first == 0
    and one.last + 1 < other.first == other.at
  )


def words(line: Timeline, files: Files, board: Path, short: int) -> list[str]:
  """Options of `unitemp generate`, but for --model and --out.

  Args:
    line: the timeline.
    files: of its pieces; both have the same one around a `hole`.
    board: the storyboard, if it is one of scenes.
    short: frames up to which a video needs no sinks.

  Raises:
    UserError: the order needs something that is not there.
  """
  shared = [f'--decode={line.decode}', '--lossless']
  if line.order == 'scenes':
    return [f'--storyboard={board}', *shared]
  found = _given(line, files) or _long(line, files, short)
  (_, first), *later = line.schedule().items()
  found.append(f'--prompt={first}')
  found += [f'--prompt_at={at}:{text}' for at, text in later]
  found += [f'--{key}={value}' for key, value in line.settings().items()]
  return [*found, f'--seed={line.seed}', *shared]


def _given(line: Timeline, files: Files) -> list[str]:
  """The workflow that makes a video of what is given; [] if it is a long one.

  It is the one that a person would choose on the command line.
  """
  pieces = sorted(line.pieces, key=lambda piece: piece.at)
  ends = _ends(line, files)
  side = [] if line.order == 'auto' else [f'--side={line.order}']
  length = f'--length={line.length}'
  if line.sinks and (line.loop or len(ends) < len(pieces)):
    raise UserError(
      'sinks are of a video of which at most the ends are given; set them to '
      'automatic, or open the ends and remove what stands between.'
    )
  if line.loop:
    if len(pieces) > len(ends) or 'last' in ends:
      raise UserError(
        'joined ends: only what stands at frame 0 can be given to a loop; '
        'remove the rest, or open the ends.'
      )
    first = [f'--first={path}' for path in ends.values()]
    return ['--loop', length, *first, *side]
  if not pieces or line.sinks:
    return []
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
  one, rest = pieces[0], pieces[1:]
  after = line.length - one.at - one.count
  if rest and files[one] == files[rest[0]] and one.last < rest[0].first:
    span = f'--span={one.last + 1}:{rest[0].first - 1}'
    return [f'--regenerate={files[one]}', span, *side]
  if not rest and one.count > 1 and line.order in _SIDES:
    found = [f'--extend={files[one]}', f'--before={one.at}']
    return [*found, f'--after={after}', f'--sides={_SIDES[line.order]}']
  if not rest and one.count == 1 and not side:
    return [f'--image={files[one]}', f'--at={one.at}', length]
  if len({piece.at for piece in pieces}) < len(pieces):
    raise UserError('two pieces stand at one frame; move one of them.')
  if rest and not side:
    side = ['--side=outside_in']
  keys = [f'--keyframe={piece.at}:{files[piece]}' for piece in pieces]
  return [*keys, length, *side]


def _ends(line: Timeline, files: Files) -> dict[str, Path]:
  """Files of the pieces that the video begins and ends with."""
  ends = {}
  for piece in line.pieces:
    if piece.at == 0:
      ends['first'] = files[piece]
    elif piece.at + piece.count == line.length:
      ends['last'] = files[piece]
  return ends


def _long(line: Timeline, files: Files, short: int) -> list[str]:
  """The workflow of a video of which at most the ends are given."""
  if line.order not in _DIRECTIONS:
    raise UserError(
      f'{_SAID[line.order]} fills between what is given: put a picture on '
      'the timeline, or choose another order.'
    )
  found = [f'--long={line.length}', f'--direction={_DIRECTIONS[line.order]}']
  sinks = line.sinks or ('none' if line.length <= short else '')
  found += [f'--sinks={sinks}'] if sinks else []
  ends = _ends(line, files).items()
  return found + [f'--{end}={path}' for end, path in ends]


def _spans(line: Timeline) -> list[tuple[Prompt, int, int]]:
  """Prompts with the frames before their first one and of their last."""
  begins = [max(prompt.at - 1, 0) for prompt in line.prompts]
  ends = [*begins[1:], line.length - 1]
  return list(zip(line.prompts, begins, ends, strict=True))


def to_storyboard(line: Timeline, files: Mapping[Piece, str]) -> str:
  """The timeline as a storyboard: each prompt a scene, or a transition.

  Args:
    line: the timeline.
    files: names of its pieces, as the storyboard's folder has them.

  Raises:
    UserError: a piece stands in a transition, or two transitions meet.
  """
  if not line.prompts:
    raise UserError('write a prompt: what the video shows from frame 0 on.')
  scenes, links, spans = [], [], _spans(line)
  names = [f'scene {k + 1}' for k, _ in enumerate(spans)]
  left = len(line.pieces)
  for k, (prompt, begin, end) in enumerate(spans):
    if prompt.link:
      after = (k + 1) % len(spans)
      if k == 0 or spans[after][0].link or (after == 0 and not line.loop):
        raise UserError(
          f'the transition from frame {prompt.at} on leads from one scene to '
          'another; put a scene on both of its sides.'
        )
      link = {'from': names[k - 1], 'to': names[after], 'length': end - begin}
      links.append(link | ({'prompt': prompt.text} if prompt.text else {}))
      continue
    scene = {'name': names[k], 'prompt': prompt.text, 'length': end - begin}
    low = 4 if begin else 0
    at = {
      piece.at - begin: files[piece]
      for piece in line.pieces
      if begin + low <= piece.at and piece.at + piece.count - 1 <= end
    }
    left -= len(at)
    scenes.append(scene | ({'at': at} if at else {}))
  if left:
    raise UserError('every picture and clip of a storyboard lies in one scene.')
  both = itertools.pairwise([*spans, *spans[: int(line.loop)]])
  if any(not a.link and not b.link for (a, *_), (b, *_) in both):
    raise UserError(
      'between two scenes of a storyboard there is a transition: mark one '
      f'prompt as such{", also at the end of a loop" if line.loop else ""}.'
    )
  board: dict[str, Any] = {'seed': line.seed, 'loop': line.loop}
  own: dict[str, Any] = {'size': line.size, **line.settings()}
  board |= {
    k: own[k] for k in ('size', 'anchors', 'window') if own.get(k, '') != ''
  }
  board |= {'scenes': scenes, 'transitions': links}
  return yaml.safe_dump(board, sort_keys=False, allow_unicode=True)


def from_storyboard(
  path: Path, model: Any, sources: Mapping[str, tuple[str, int]]
) -> Timeline:
  """The timeline of a storyboard that a page sent.

  Args:
    path: of the file, alone in its folder.
    model: a pipeline, a `Model` or a card.
    sources: source and frames by the name that the storyboard gives a file.

  Raises:
    UserError: it is wrong, or names a file that is not there.
  """
  board = storyboard_file.read_nodes(path).expect(dict, what='a storyboard')
  for name in _named(board):
    if name not in sources:
      raise UserError(
        f'the storyboard names {name!r}; put that file on the page first.'
      )
    (path.parent / name).touch()
  board = storyboard_file.read(path)
  card = getattr(model, 'card', model)
  prompts, pieces, line = [], [], storyboard.stretches(board, card)
  for stretch in line:
    begin, what = stretch.begin, stretch.what
    at = begin + 1 if begin else 0
    if isinstance(what, storyboard_file.Transition):
      prompts.append(Prompt(at, what.prompt or '', link=True))
      continue
    prompts.append(Prompt(at, what.prompt))
    for given in what.conditioning:
      source, count = sources[given.path.name]
      at = storyboard.begin_of(given, what.name, np.empty(count), stretch, card)
      pieces.append(Piece(source, at, 0, count - 1))
  length = 1 + line[-1].end
  return Timeline(
    length,
    tuple(prompts),
    tuple(pieces),
    'scenes',
    loop=board.loop,
    seed=board.seed,
    window=board.window or 0,
    anchors=-1 if board.anchors is None else board.anchors,
    size='{}x{}'.format(*board.size) if board.size else '',
  )


def _named(value: Mapping[str, storyboard_file.Node]) -> set[str]:
  """File names in a storyboard's nodes: plain ones, of its own folder."""
  found: set[str] = set()
  scenes = value['scenes'].value if 'scenes' in value else None
  for scene in scenes if isinstance(scenes, list) else ():
    own = scene.value if isinstance(scene.value, dict) else {}
    places = [own[key] for key in ('first', 'last') if key in own]
    if 'at' in own and isinstance(own['at'].value, dict):
      places += own['at'].value.values()
    found |= {str(place.value) for place in places}
  return found
