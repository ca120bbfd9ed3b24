"""A storyboard: scenes, what is given in them, and how one leads to the next.

    size: 32x32              # height x width; may be left out
    seed: 3
    loop: true               # the last scene leads back to the first
    scenes:
      - name: fall
        prompt: a red seven falls
        length: 2s           # or 24, which are frames
        first: start.png     # image or clip that the scene begins with
        at: {16: middle.png, 1.5s: clip.mp4}
      - name: bounce
        prompt: a red two bounces
        length: 32
        last: end.png        # image or clip that the scene ends with
    transitions:             # one block long where it is left out
      - from: fall
        to: bounce
        length: 12
        prompt: a red seven turns into a two

Lengths are time between frames: 32 frames lead from frame 0 to frame 32. Every
one is a whole number of latents; the video has one frame more than their sum,
frame 0, and in a loop its last frame is its first. A transition without a
prompt has those of its two scenes, half each. A time in `at` counts from the
begin of its scene. Paths are relative to the storyboard's folder.

A `Node` is a value of a YAML or JSON file that knows its line: every complaint
names file and line. JSON is read as the part of YAML that it is.
"""

import dataclasses
import difflib
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from unitemp_jax import files, timeline
from unitemp_jax.errors import UserError, is_blank

_BOARD = ('size', 'seed', 'loop', 'anchors', 'window', 'scenes')
_BOARD += ('transitions',)
_SCENE = ('name', 'prompt', 'length', 'first', 'last', 'at')
_TRANSITION = ('from', 'to', 'length', 'prompt')
_SIZE = re.compile(r'(\d+)\s*x\s*(\d+)')
_TIME = 'frames, such as 32, or seconds, such as 2s'
# Numbers of base 2, 8, 16 and 60, which nobody means.
_OTHER_BASE = re.compile(r'[-+]?0[\dbx_]|.*:')
# Deeper than any storyboard; an alias that contains itself would never end.
_DEEPEST = 8
_MOST = 10_000
_TOO_DEEP = f'this is nested too deeply; use at most {_DEEPEST} levels.'
_MAPPING = 'a mapping of keys to values'
_KINDS = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
  str: 'text',
  list: 'a list',
  dict: _MAPPING,
}


@dataclasses.dataclass(frozen=True)
class Node:
  """One value of a file."""

  path: Path  # of the file
  line: int  # on which the value begins, counted from 1
  value: Any  # bool, int, float, str, None, list of Nodes, or dict of Nodes
  # Lines of the keys, if it is a mapping.
  keys: dict[Any, int] = dataclasses.field(default_factory=dict)

  def fail(self, message: str, line: int | None = None) -> NoReturn:
    """Raises a UserError that names the file and the line at fault."""
    raise UserError(f'{self.path}:{line or self.line}: {message}')

  def expect(self, *kinds: type, what: str, hint: str = '') -> Any:
    """Returns the value if it is of one of the kinds."""
    if type(self.value) in kinds:
      return self.value
    allowed = hint or ' or '.join(_KINDS[kind] for kind in kinds)
    quotes = ''
    if str in kinds and not isinstance(self.value, list | dict):
      quotes = '; put it in quotes if it is meant as text'
    self.fail(f'{what} must be {allowed}, not {self.shown()}{quotes}.')

  def fields(
    self, allowed: Sequence[str], required: Sequence[str], what: str
  ) -> dict[str, 'Node']:
    """Returns the values of a mapping by key."""
    entries = self.expect(dict, what=what)
    for key in entries:
      if key not in allowed:
        near = difflib.get_close_matches(str(key), allowed, n=1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        self.fail(
          f'{what} has no key {key!r}; {hint}It takes {", ".join(allowed)}.',
          self.keys[key],
        )
    for key in required:
      if key not in entries:
        self.fail(f'{what} lacks {key!r}; add it.')
    return entries

  def plain(self) -> Any:
    """The value without its lines."""
    if isinstance(self.value, dict):
      return {key: node.plain() for key, node in self.value.items()}
    if isinstance(self.value, list):
      return [node.plain() for node in self.value]
    return self.value

  def shown(self) -> str:
    """Describes the value in a complaint."""
    if self.value is None:
      return 'empty'
    if isinstance(self.value, list | dict):
      return _KINDS[type(self.value)]
    return repr(self.value)


def read_nodes(path: Path) -> Node:
  """Reads a file of one YAML or JSON document."""
  text = files.read_text(path)
  if path.suffix.lower() == '.json':
    # JSON may be indented by tabs, YAML may not; lines stay what they are.
    text = text.replace('\t', '  ')
  try:
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if root is None:
      raise UserError(f'{path}:1: the file is empty.')
    return _convert(loader, root, path, 0, itertools.count())
  except yaml.MarkedYAMLError as error:
    mark = error.problem_mark or error.context_mark
    line = f':{mark.line + 1}' if mark else ''
    problem = error.problem or error.context
    raise UserError(
      f'{path}{line}: this is no valid YAML ({problem}); check the '
      'indentation, colons and quotes there.'
    ) from error
  except yaml.YAMLError as error:
    raise UserError(f'{path} is no valid YAML: {error}.') from error
  except RecursionError:
    raise UserError(f'{path}: {_TOO_DEEP}') from None


def _convert(loader, node, path, depth, count) -> Node:
  line = node.start_mark.line + 1
  here = Node(path, line, None)
  if depth > _DEEPEST:
    here.fail(_TOO_DEEP)
  if next(count) > _MOST:  # aliases can repeat one another
    here.fail(f'there are more than {_MOST} values; make several files.')
  if isinstance(node, yaml.SequenceNode):
    items = [
      _convert(loader, item, path, depth + 1, count) for item in node.value
    ]
    return Node(path, line, items)
  if not isinstance(node, yaml.MappingNode):
    return Node(path, line, _scalar(loader, node, here))
  entries: dict[Any, Node] = {}
  keys: dict[Any, int] = {}
  for key_node, value_node in node.value:
    at = key_node.start_mark.line + 1
    if not isinstance(key_node, yaml.ScalarNode):
      here.fail('a key must be a word or a number.', at)
    # Keys stay as they are written: "on" is a word, 12 is the text "12".
    key = key_node.value
    if key in entries:
      here.fail(f'{key!r} is here again after line {keys[key]}.', at)
    entries[key] = _convert(loader, value_node, path, depth + 1, count)
    keys[key] = at
  return Node(path, line, entries, keys)


def _scalar(loader, node, here):
  try:
    if node.tag.endswith((':int', ':float')) and _OTHER_BASE.match(node.value):
      here.fail(
        f'{node.value:.60} would be read as {loader.construct_object(node)}; '
        'write digits without 0 before them, seconds such as 90s, or put it in '
        'quotes.'
      )
    # JSON escapes a character in two halves, which YAML does not join.
    halves = node.value.encode('utf-16', 'surrogatepass')
    node.value = halves.decode('utf-16')
    return loader.construct_object(node)
  except UnicodeDecodeError:
    here.fail(f'{node.value!a} holds half a character; write it whole.')
  except ValueError as error:
    here.fail(f'{node.value!r} cannot be read ({error}); put it in quotes.')


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
  node = read_nodes(path)
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
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
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
