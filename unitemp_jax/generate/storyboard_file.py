"""A storyboard: scenes, what is given in them, and how one leads to the next.

`unitemp_jax/generate/README.md` (Storyboards) shows one; `size`, height x width
as in 32x32, is known too. Lengths are time between frames: 32 frames lead from
frame 0 to frame 32. Every one is a whole number of latents; the video has one
frame more than their sum, frame 0, and in a loop its last frame is its first. A
transition without a prompt has those of its two scenes, half each. A time in
`at` counts from the begin of its scene. Paths are relative to the storyboard's
folder. Every complaint names file and line, see `yaml_reader`.
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from unitemp_jax import files, timeline
from unitemp_jax.data import yaml_reader
from unitemp_jax.data.yaml_reader import Node
from unitemp_jax.errors import UserError, is_blank, nearest

_BOARD = ('size', 'seed', 'loop', 'anchors', 'window', 'scenes')
_BOARD += ('transitions',)
_SCENE = ('name', 'prompt', 'length', 'first', 'last', 'at')
_TRANSITION = ('from', 'to', 'length', 'prompt')
_SIZE = re.compile(r'(\d+)\s*x\s*(\d+)')
_TIME = 'frames, such as 32, or seconds, such as 2s'


@dataclasses.dataclass(frozen=True)
class Time:
  """A length or a moment, and where it is written."""

  written: timeline.Time
  node: Node

  def frames(self, fps: float, what: str) -> int:
    """A whole number of latents in frames; UserError names the nearest."""
    try:
      return timeline.fit(self.written, what, fps, rounded=False)
    except UserError as error:
      self.node.fail(str(error))


@dataclasses.dataclass(frozen=True)
class Conditioning:
  """An image or a clip that the user gives."""

  path: Path  # of the file
  # When it begins, counted from the begin of its scene; or 'first', or 'last':
  # it ends where the scene ends.
  at: Time | str
  node: Node  # where it is written


@dataclasses.dataclass(frozen=True)
class Scene:
  """One scene; attributes as the keys of the file."""

  name: str
  prompt: str
  length: Time
  conditioning: tuple[Conditioning, ...]
  node: Node


@dataclasses.dataclass(frozen=True)
class Transition:
  """The connection of two scenes."""

  source: str  # name of the scene before
  target: str  # name of the scene after
  length: Time | None  # None = one block of the model
  prompt: str | None  # None = those of the two scenes, half each
  node: Node  # where it is written, or the scene before if it is not


@dataclasses.dataclass(frozen=True)
class Storyboard:
  """All that a storyboard file says."""

  path: Path  # of the file
  scenes: tuple[Scene, ...]  # in the order of play
  # The one after each scene, in the order of play; after the last scene only in
  # a loop.
  transitions: tuple[Transition, ...]
  loop: bool  # whether the last scene leads back to the first
  seed: int  # of the noise
  # (height, width), None = that of the first given frames, or else the model's.
  size: tuple[int, int] | None
  anchors: int | None  # anchor latents, None = the model's
  window: int | None  # latents that are visible at once, None = all
  node: Node  # the whole file


def read(
  path: str | Path, is_file: Callable[[Path], bool] = os.path.isfile
) -> Storyboard:
  """Reads a storyboard and checks all that needs no model.

  Args:
    path: of the file.
    is_file: whether a file that it names is there.
  """
  path = Path(path)
  node = yaml_reader.read(path)
  entries = node.fields(_BOARD, ('scenes',), 'a storyboard')
  scenes = _scenes(entries['scenes'])
  for scene in scenes:
    for given in scene.conditioning:
      if not is_file(given.path):
        given.node.fail(
          f'scene {scene.name!r} is given {given.node.value!r}, but there is '
          f'no file {given.path}; paths are relative to the storyboard.'
        )
  loop = 'loop' in entries and entries['loop'].expect(bool, what='loop')
  if len(scenes) == 1 and not loop:
    entries['scenes'].fail(
      'one scene alone is no story; add another one, or loop: true.'
    )
  return Storyboard(
    path=path,
    scenes=scenes,
    transitions=_transitions(entries.get('transitions'), scenes, loop),
    loop=loop,
    seed=_count(entries, 'seed', least=0) or 0,
    size=_size(entries.get('size')),
    anchors=_count(entries, 'anchors', least=0),
    window=_count(entries, 'window', least=1),
    node=node,
  )


def _count(entries, key, least) -> int | None:
  if key not in entries:
    return None
  value = entries[key].expect(int, what=key)
  if not least <= value < 2**32:
    entries[key].fail(f'{key} is {value}; it must lie in {least}..{2**32 - 1}.')
  return value


def _size(node: Node | None) -> tuple[int, int] | None:
  if node is None:
    return None
  hint = 'height x width in pixels, such as 32x32'
  match = _SIZE.fullmatch(node.expect(str, what='size', hint=hint))
  if match:
    return int(match[1]), int(match[2])
  node.fail(f'size is {node.value!r}; it must be {hint}.')


def _text(node, what) -> str:
  value = node.expect(str, what=what).strip()
  if is_blank(value):
    node.fail(f'{what} is empty; write some words.')
  return value


def _time(node, what, text=None) -> Time:
  """Reads a time from a node, or from a key of it that reads `text`."""
  if text is None:
    text = str(node.expect(int, str, what=what, hint=_TIME))
  try:
    time = timeline.parse(text, what)
  except UserError as error:
    node.fail(str(error))
  if time.amount < 0:
    node.fail(f'{what} is {text!r}; it must be {_TIME}.')
  return Time(time, node)


def _length(node, what) -> Time:
  time = _time(node, what)
  if time.written.amount == 0:
    node.fail(f'{what} is 0; it must be longer.')
  return time


def _scenes(node) -> tuple[Scene, ...]:
  scenes: list[Scene] = []
  for item in node.expect(list, what='scenes'):
    scene = _scene(item)
    for other in scenes:
      if other.name == scene.name:
        item.fields(_SCENE, (), 'a scene')['name'].fail(
          f'the name {scene.name!r} is taken by the scene of line '
          f'{other.node.line}; give each scene its own.'
        )
    scenes.append(scene)
  if not scenes:
    node.fail('scenes is empty; add one with name, prompt and length.')
  return tuple(scenes)


def _scene(node) -> Scene:
  entries = node.fields(_SCENE, ('name', 'prompt', 'length'), 'a scene')
  name = _text(entries['name'], 'the name of a scene')
  given = [
    _given(entries[key], entries[key], key, name)
    for key in ('first', 'last')
    if key in entries
  ]
  if 'at' in entries:
    at = entries['at']
    moments = at.expect(
      dict, what='at', hint='a mapping of times to files, such as {16: a.png}'
    )
    for key, file in moments.items():
      spot = dataclasses.replace(file, line=at.keys[key])
      time = _time(spot, f'a time in "at" of scene {name!r}', key)
      given.append(_given(file, spot, time, name))
  return Scene(
    name=name,
    prompt=_text(entries['prompt'], f'the prompt of scene {name!r}'),
    length=_length(entries['length'], f'the length of scene {name!r}'),
    conditioning=tuple(given),
    node=node,
  )


def _given(file, node, at, name) -> Conditioning:
  written = _text(file, f'a file of scene {name!r}')
  if files.is_web_address(written):
    file.fail(str(files.no_file(written)))
  path = file.path.parent / written
  return Conditioning(path, at, node)


def _transitions(node, scenes, loop) -> tuple[Transition, ...]:
  names = [scene.name for scene in scenes]
  after = dict(itertools.pairwise(names))
  if loop:
    after[names[-1]] = names[0]
  found: dict[str, Transition] = {}
  for item in node.expect(list, what='transitions') if node else ():
    entries = item.fields(_TRANSITION, ('from', 'to'), 'a transition')
    source, target = (_known(entries[key], names) for key in ('from', 'to'))
    _check_neighbours(item, source, target, after, loop)
    if source in found:
      item.fail(
        f'line {found[source].node.line} has the transition from {source!r} to '
        f'{target!r} already; remove one.'
      )
    what = f'of the transition from {source!r} to {target!r}'
    prompt = length = None
    if 'prompt' in entries:
      prompt = _text(entries['prompt'], f'the prompt {what}')
    if 'length' in entries:
      length = _length(entries['length'], f'the length {what}')
    found[source] = Transition(source, target, length, prompt, item)
  for scene in scenes:
    if scene.name in after and scene.name not in found:
      found[scene.name] = Transition(
        scene.name, after[scene.name], None, None, scene.node
      )
  return tuple(found[name] for name in names if name in found)


def _known(node, names: Sequence[str]) -> str:
  name = _text(node, 'the scene of a transition')
  if name not in names:
    near = nearest(name, names)
    hint = f'did you mean {near!r}? ' if near else ''
    node.fail(
      f'there is no scene {name!r}; {hint}The scenes are {", ".join(names)}.'
    )
  return name


def _check_neighbours(node, source, target, after, loop):
  if after.get(source) == target:
    return
  if source not in after:
    allowed = f'{source!r} is the last scene; set loop: true to lead back'
  else:
    allowed = f'{source!r} leads to {after[source]!r}'
  node.fail(
    f'no transition leads from {source!r} to {target!r}, since scenes play in '
    f'the order in which they are listed: {allowed}.'
  )
