"""Tables that map names and layouts of PyTorch weights to ours.

A table lists, for every parameter of a network, its path in our tree, its name
in each PyTorch layout, and an einops pattern from the PyTorch array to ours.
Read the other way round the same table exports. Fields in braces are numbers;
`{layer}` that is absent in our path is the leading axis of a stacked array.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import einops
import jax
import numpy as np
from flax import traverse_util


@dataclasses.dataclass(frozen=True)
class Pattern:
  """How an array changes between PyTorch and ours."""

  # Einops pattern 'torch axes -> our axes', None for no change.
  forward: str | None
  sizes: tuple[tuple[str, int], ...] = ()  # of axes that the pattern merges

  def to_flax(self, array: np.ndarray) -> np.ndarray:
    """Returns a PyTorch array in our layout, a view where possible."""
    if self.forward is None:
      return array
    return einops.rearrange(array, self.forward, **dict(self.sizes))

  def to_torch(self, array: np.ndarray) -> np.ndarray:
    """Returns one of our arrays in PyTorch's layout."""
    if self.forward is None:
      return array
    left, right = self.forward.split('->')
    return einops.rearrange(array, f'{right}->{left}', **dict(self.sizes))

  def torch_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape that our `shape` has in PyTorch."""
    return self.to_torch(np.broadcast_to(np.int8(0), tuple(shape))).shape


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table."""

  path: str  # template of our path, `a/b/{i}`
  names: Mapping[str, str]  # layout -> template of the PyTorch name
  pattern: Pattern  # how the array changes
  # Layout -> another name under which the same tensor may appear.
  aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
  """All that is known of one kind of network."""

  kind: str  # 'dit', 'vae' or 'umt5'
  rows: tuple[Row, ...]  # one per parameter; exactly one must match every path
  signatures: Mapping[str, str]  # layout -> a name that only this layout has
  # Regexes of names that carry nothing for us, in any layout.
  ignored: tuple[str, ...] = ()
  # From our paths to a function that adds fields to those that a path holds,
  # for layouts that count otherwise.
  numbering: (
    Callable[[Sequence[str]], Callable[[dict[str, int]], dict[str, int]]] | None
  ) = None


@dataclasses.dataclass(frozen=True)
class Entry:
  """One PyTorch tensor and where it goes."""

  name: str  # in the PyTorch layout, without prefix
  path: str  # of our array, `a/b/c`
  # Index into the leading axis of our array; None for the whole.
  layer: int | None
  pattern: Pattern  # how the array changes
  shape: tuple[int, ...]  # of the PyTorch tensor
  alias: str | None = None  # another name for the same tensor, or None


def flat_shapes(shapes: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns our paths `a/b/c` and their leaves, in sorted order."""
  return dict(sorted(traverse_util.flatten_dict(shapes, sep='/').items()))


def plain_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
  """Returns our paths and their shapes."""
  return {path: tuple(leaf.shape) for path, leaf in flat_shapes(shapes).items()}


def entries(table: Table, layout: str, shapes: Any) -> list[Entry]:
  """Lists every tensor that a network of these shapes has in a layout."""
  flat = plain_shapes(shapes)
  extend = table.numbering(list(flat)) if table.numbering else None
  rows = [(_regex(row.path), row) for row in table.rows]
  out: list[Entry] = []
  for path, shape in flat.items():
    found = [
      (match, row) for regex, row in rows if (match := regex.fullmatch(path))
    ]
    if len(found) != 1:
      raise ValueError(f'{len(found)} rows of {table.kind} match {path}')
    match, row = found[0]
    fields = {key: int(value) for key, value in match.groupdict().items()}
    if extend:
      fields = extend(fields)
    name, alias = row.names[layout], row.aliases.get(layout)
    layers: Sequence[int | None] = [None]
    if '{layer}' in name and 'layer' not in fields:
      layers, shape = range(shape[0]), shape[1:]
    theirs = row.pattern.torch_shape(shape)
    out += [
      Entry(
        name.format(**({'layer': n} | fields)),
        *(path, n, row.pattern, theirs, alias),
      )
      for n in layers
    ]
  return out


def _regex(template: str) -> re.Pattern[str]:
  parts = re.split(r'\{(\w+)\}', template)
  return re.compile(
    ''.join(
      f'(?P<{part}>\\d+)' if i % 2 else re.escape(part)
      for i, part in enumerate(parts)
    )
  )
