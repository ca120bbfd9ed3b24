"""Reader of YAML and JSON whose values know their line.

A complaint about a value names its file and line. JSON is read as the part of
YAML that it is.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from unitemp_jax import files
from unitemp_jax.errors import UserError, nearest

# Numbers of base 2, 8, 16 and 60, which nobody means.
_OTHER_BASE = re.compile(r'[-+]?0[\dbx_]|.*:')
# Deeper than any list; an alias that contains itself would never end.
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
        near = nearest(str(key), allowed)
        hint = f'did you mean {near!r}? ' if near else ''
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


def read(path: Path) -> Node:
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
