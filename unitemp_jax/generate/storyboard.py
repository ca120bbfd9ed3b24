"""Storyboards: from the file to the request, and to a text that shows it.

`storyboard_file` has the format. On the timeline every scene and
every transition is a stretch of whole latents; frame 0 belongs to the first
scene besides. Given frames stand where a latent ends, so that what is given
`first` stands 4 frames into every scene but the first.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitemp_jax import orders, timeline
from unitemp_jax.errors import UserError, shown
from unitemp_jax.generate.request import Draft, Request
from unitemp_jax.generate.storyboard_file import (
  Conditioning,
  Scene,
  Storyboard,
  Time,
  Transition,
  read,
)
from unitemp_jax.sampling.model_folder import ModelCard

__all__ = ['Storyboard', 'Stretch', 'describe', 'read', 'stretches']

_WIDTH = 60  # characters of a drawn timeline


@dataclasses.dataclass(frozen=True)
class Stretch:
  """A scene or a transition on the timeline."""

  what: Scene | Transition  # the scene or the transition
  begin: int  # frame at which it begins: the last one of the stretch before it
  end: int  # its last frame


def stretches(board: Storyboard, card: ModelCard) -> list[Stretch]:
  """Returns scenes and transitions in the order of play, on the timeline."""
  found: list[Stretch] = []
  end = 0
  for k, scene in enumerate(board.scenes):
    both: list[Scene | Transition] = [scene]
    both += board.transitions[k : k + 1]
    for what in both:
      begin, end = end, end + _frames(what, card)
      found.append(Stretch(what, begin, end))
  return found


def _frames(what: Scene | Transition, card: ModelCard) -> int:
  if what.length is None:
    return timeline.STRIDE * card.block
  if isinstance(what, Scene):
    name = f'the length of scene {what.name!r}'
  else:
    name = f'the length of the transition {what.source!r} to {what.target!r}'
  return what.length.frames(card.fps, name)


def to_request(board: Storyboard, model: Any) -> Request:
  """Returns what is to be generated."""
  card = getattr(model, 'card', model)
  line = stretches(board, card)
  height, width = board.size or (None, None)
  settings = {'seed': board.seed, 'height': height, 'width': width}
  settings |= {'anchors': board.anchors, 'window': board.window}
  try:
    draft = Draft(model, settings)
    given = _give(draft, line, card)
    prompts, scenes, connections = _script(board, line, card)
    return draft.finish(
      'story',
      prompts,
      1 + line[-1].end,
      orders.story,
      scenes,
      connections,
      given=given,
      loop=board.loop,
    )
  except UserError as error:
    if str(error).startswith(str(board.path)):
      raise
    raise UserError(f'{board.path}: {error}') from error


def _script(board, line, card):
  """Prompts, scenes and connections as `orders.story` takes them."""
  prompts = [scene.prompt for scene in board.scenes]
  scenes, connections = [], []
  for stretch in line:
    latents = (stretch.end - stretch.begin) // timeline.STRIDE
    if isinstance(stretch.what, Scene):
      # The first frame of the video has a latent of its own.
      first = int(stretch.begin == 0)
      scenes.append(orders.Scene(latents + first, len(scenes)))
      continue
    own = None
    if stretch.what.prompt is not None:
      own = len(prompts)
      prompts.append(stretch.what.prompt)
    connections.append(orders.Connection(latents, prompt=own))
  return prompts, scenes, connections


def _give(
  draft: Draft, line: Sequence[Stretch], card
) -> list[orders.Conditioning]:
  """Puts the given files into the draft, and returns their places."""
  places: list[tuple[int, int, Conditioning]] = []
  for stretch in line:
    if isinstance(stretch.what, Scene):
      name = stretch.what.name
      for given in stretch.what.conditioning:
        frames = _read(draft, given)
        begin = begin_of(given, name, frames, stretch, card)
        places.append((begin, begin + len(frames) - 1, given))
        draft.give(begin, frames)
  places.sort(key=lambda place: place[0])
  for (_, end, one), (begin, _, other) in itertools.pairwise(places):
    if begin <= end:
      other.node.fail(
        f'{other.path.name} begins at frame {begin}, but {one.path.name} of '
        f'line {one.node.line} lasts until frame {end}; move one of them.'
      )
  return [
    orders.Conditioning(
      begin // timeline.STRIDE, 1 + (end - begin) // timeline.STRIDE
    )
    for begin, end, _ in places
  ]


def _read(draft: Draft, given: Conditioning) -> np.ndarray:
  try:
    return draft.read(given.path, given.path.name)
  except UserError as error:
    given.node.fail(str(error))


def begin_of(
  given: Conditioning,
  scene: str,
  frames: np.ndarray,
  stretch: Stretch,
  card: ModelCard,
) -> int:
  """Frame of the video at which something given begins."""
  # Before this frame the scene has no latent of its own.
  least = 0 if stretch.begin == 0 else timeline.STRIDE
  most = stretch.end - stretch.begin - (len(frames) - 1)
  what = f'{given.path.name} of scene {scene!r}'
  if most < least:
    given.node.fail(
      f'{what} has {len(frames)} frames, which do not fit: the scene lasts '
      f'{stretch.end - stretch.begin}, of which {least} are before the first '
      f'picture that can be given. Make the scene longer or the clip shorter.'
    )
  if isinstance(given.at, Time):
    at = given.at.frames(card.fps, f'the time of {what}')
  else:
    at = least if given.at == 'first' else most
  if not least <= at <= most:
    given.node.fail(
      f'{what} begins {at} frames into the scene and has {len(frames)}; it can '
      f'begin at {least} to {most}.'
    )
  return stretch.begin + at


def describe(board: Storyboard, card: ModelCard) -> str:
  """Draws the timeline of a storyboard in text: one line per stretch."""
  line = stretches(board, card)
  total = line[-1].end
  lines = [
    f'{board.path}: {len(board.scenes)} scenes, {total + 1} frames, '
    f'{total / card.fps:.2f} s at {card.fps} frames per second'
    + (', a loop' if board.loop else '')
  ]
  for stretch in line:
    lines.append(_drawn(stretch, total, card.fps))
    if isinstance(stretch.what, Scene):
      lines += [_shown(given) for given in stretch.what.conditioning]
  return '\n'.join(lines) + '\n'


def _drawn(stretch: Stretch, total: int, fps: float) -> str:
  low = round(_WIDTH * stretch.begin / total)
  high = max(low + 1, round(_WIDTH * stretch.end / total))
  if isinstance(stretch.what, Scene):
    mark, name = '#', stretch.what.name
    text = stretch.what.prompt
  else:
    mark, name = '~', f'to {stretch.what.target}'
    text = stretch.what.prompt or '(the prompts of both scenes, half each)'
  bar = '.' * low + mark * (high - low) + '.' * (_WIDTH - high)
  return (
    f'  |{bar}| {stretch.begin / fps:7.2f} s  {stretch.begin:>5} .. '
    f'{stretch.end:<5} {shown(name)}: {shown(text)}'
  )


def _shown(given: Conditioning) -> str:
  if isinstance(given.at, Time):
    unit = '' if given.at.written.seconds else ' frames'
    when = f'{given.at.written}{unit} into it'
  else:
    when = {'first': 'at its start', 'last': 'at its end'}[given.at]
  return f'   {" " * _WIDTH}  given: {given.path.name} {when}'
