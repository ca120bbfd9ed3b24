"""What stands on the page's timeline, and the command that makes it.

A timeline is turned into the words of `unitemp generate` and in no other way
into a request, so that the page, the command and Python make the same video.
Its times are frames of the finished video.
"""

import dataclasses
import itertools
import re
import shlex
import typing
from collections.abc import Mapping, Sequence
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
    texts = {p.at: p.text.strip() for p in self.prompts if p.text or not p.link}
    if not texts or not texts.get(0):
      raise UserError('write a prompt: what the video shows from frame 0 on.')
    if any('\n' in text for text in texts.values()):
      raise UserError('a prompt is one line of text.')
    return texts


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
    elif type(found) is not wanted or (wanted is str and len(found) > 5000):
      raise UserError(_WRONG)
    known[name] = found
  try:
    return kind(**known)
  except TypeError:
    raise UserError(_WRONG) from None


Files = Mapping[Piece, Path]


def workflow(
  line: Timeline, files: Files, short: int
) -> tuple[str, dict[str, Any]]:
  """Name and arguments of the workflow, as `unitemp_jax.workflows` has them.

  Args:
    line: the timeline, not one of scenes.
    files: of its pieces.
    short: frames up to which a video needs no sinks.

  Raises:
    UserError: the order needs something that is not there.
  """
  side = {} if line.order == 'auto' else {'side': line.order}
  ends = {}
  for piece in line.pieces:
    if piece.at == 0:
      ends['first'] = str(files[piece])
    elif piece.at + piece.count == line.length:
      ends['last'] = str(files[piece])
  if line.loop:
    if len(line.pieces) > len(ends) or 'last' in ends:
      raise UserError(
        'joined ends: only what stands at frame 0 can be given to a loop; '
        'remove the rest, or open the ends.'
      )
    return 'loop', {'length': line.length, **ends, **side}
  sinks = {'sinks': line.sinks} if line.sinks else {}
  if not line.pieces or (sinks and len(ends) == len(line.pieces)):
    if line.order not in _DIRECTIONS:
      raise UserError(
        f'{_said(line.order)} fills between what is given: put a picture on '
        'the timeline, or choose another order.'
      )
    own = {'length': line.length, 'direction': _DIRECTIONS[line.order]}
    if not sinks and line.length <= short:
      sinks = {'sinks': 'none'}
    return 'long_video', {**own, **sinks, **ends}
  if len(line.pieces) > 1 and not side:
    side = {'side': 'outside_in'}
  given = {
    piece.at: str(files[piece])
    for piece in sorted(line.pieces, key=lambda piece: piece.at)
  }
  if len(given) < len(line.pieces):
    raise UserError('two pieces stand at one frame; move one of them.')
  return 'fill', {'keyframes': given, 'length': line.length, **side, **sinks}


def _said(order: str) -> str:
  return {'outside_in': 'from both ends', 'middle_out': 'middle out'}[order]


def words(line: Timeline, files: Files, board: Path, short: int) -> list[str]:
  """Options of `unitemp generate`, but for --model and --out.

  Args:
    line: the timeline.
    files: of its pieces.
    board: the storyboard, if it is one of scenes.
    short: see `workflow`.

  Raises:
    UserError: it cannot be said.
  """
  shared = [f'--decode={line.decode}', '--lossless']
  if line.order == 'scenes':
    return [f'--storyboard={board}', *shared]
  name, options = workflow(line, files, short)
  found = ['--loop'] if name == 'loop' else []
  for key, value in options.items():
    if key == 'keyframes':
      found += [f'--keyframe={at}:{path}' for at, path in value.items()]
    elif name == 'long_video' and key == 'length':
      found.append(f'--long={value}')
    else:
      found.append(f'--{key}={value}')
  (_, first), *later = line.schedule().items()
  found.append(f'--prompt={first}')
  found += [f'--prompt_at={at}:{text}' for at, text in later]
  found += [f'--{key}={value}' for key, value in line.settings().items()]
  return [*found, f'--seed={line.seed}', *shared]


def command(options: Sequence[str]) -> str:
  """What is typed in a shell."""
  return shlex.join(['unitemp', 'generate', *options])


def python(
  line: Timeline, files: Files, board: Path, short: int, model: Path
) -> str:
  """A script that makes the same frames."""
  head = ['import unitemp_jax', '', f'model = unitemp_jax.load({str(model)!r})']
  if line.order == 'scenes':
    head[0] += '\nfrom unitemp_jax.generate import storyboard'
    made = f'storyboard.to_request(storyboard.read({str(board)!r}), model)'
  else:
    name, options = workflow(line, files, short)
    texts = line.schedule()
    prompt = texts[0] if len(texts) == 1 else texts
    options |= {'prompt': prompt, 'seed': line.seed, **line.settings()}
    own = ''.join(f'  {key}={value!r},\n' for key, value in options.items())
    made = f'unitemp_jax.workflows.{name}(\n  model,\n{own})'
  run = ['video = model.video(request)  # uint8 [T, H, W, 3]']
  if line.decode != 'joint':
    head[0] = f'import numpy as np\n{head[0]}'
    run = [
      'shape = (request.num_frames, request.height, request.width, 3)',
      'video = np.zeros(shape, np.uint8)',
      f'for piece in model.run(request, mode={line.decode!r}):',
      '  video[piece.first : piece.first + len(piece.frames)] = piece.frames',
    ]
  return '\n'.join([*head, f'request = {made}', *run, ''])


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
  scenes, links, spans = [], [], _spans(line)
  names = [f'scene {k + 1}' for k, _ in enumerate(spans)]
  held = dict(line=len(line.pieces))
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
    held['line'] -= len(at)
    scenes.append(scene | ({'at': at} if at else {}))
  if held['line']:
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
    for given in what.given:
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
