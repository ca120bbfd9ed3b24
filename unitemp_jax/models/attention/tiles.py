"""Sizes of the blocks that kernels compute in, by generation of hardware.

Which are fast is found by measuring. The tables in `assets/tiles` say for each
entry how it is known; `unitemp bench attention` writes one in their form, and
the environment variable UNITEMP_ATTENTION_TILES names the files to use then,
with colons between.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitemp_jax.errors import UserError

ENVIRONMENT = 'UNITEMP_ATTENTION_TILES'
TABLES = Path(__file__).parents[2] / 'assets' / 'tiles'
_LANES, _SUBLANES = 128, 8
_WASTE = 1 / 8  # of padding that whole blocks to compute are worth


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Wanted sizes; a call takes the nearest that divide its padded tokens."""

  block_q: int = 1560  # queries per block, forward
  block_kv: int = 1024  # keys that are fetched at a time, forward
  block_kv_compute: int = 512  # keys that are computed at a time, forward
  # queries per block, for the gradients of keys and values
  block_q_dkv: int = 1664
  block_kv_dkv: int = 1024  # keys that are fetched at a time there
  block_kv_dkv_compute: int = 256  # keys that are computed at a time there
  # queries per block, for the gradient of queries where it has a kernel of its
  # own
  block_q_dq: int = 512
  block_kv_dq: int = 1024  # keys per block there
  prefix_q: int = 512  # queries per block of the kernel that reads the cache
  prefix_kv: int = 4096  # keys that are fetched at a time there
  prefix_kv_compute: int = 1024  # keys that are computed at a time there
  xla_logits: int = 2**22  # logits that the plain form computes at a time

  def __post_init__(self):
    for name, size in dataclasses.asdict(self).items():
      unit = _SUBLANES if name in ('block_q', 'prefix_q') else _LANES
      if not isinstance(size, int) or size < unit or size % unit:
        raise ValueError(f'{name} is {size!r}; use a multiple of {unit}')


@dataclasses.dataclass(frozen=True)
class Entry:
  """Sizes for one shape of a call."""

  queries: int  # tokens of a call, with a frame mask those of a frame
  keys: int  # likewise
  masked: bool  # with a frame mask
  tiles: Tiles  # the sizes
  how: str  # how they are known


@dataclasses.dataclass(frozen=True)
class Table:
  """Sizes for one generation, which goes by these names in jax."""

  hardware: tuple[str, ...]
  entries: tuple[Entry, ...]


def lookup(hardware: str, queries: int, keys: int, masked: bool) -> Tiles:
  """Returns the sizes for a call, measured ones before those that ship.

  Args:
    hardware: jax's name of the device.
    queries: tokens of the call, with a frame mask those of a frame.
    keys: likewise.
    masked: with a frame mask.

  Raises:
    UserError: the file that the environment names is not a table.
  """
  named = os.environ.get(ENVIRONMENT, '').split(os.pathsep)
  own = tuple(read(Path(path)) for path in named if path)
  for tables in (own, shipped()):
    alike = [
      entry
      for table in tables
      if hardware in table.hardware
      for entry in table.entries
      if entry.masked == masked
    ]
    if alike:
      return nearest(alike, queries, keys)
  return Tiles()


def nearest(entries: Sequence[Entry], queries: int, keys: int) -> Tiles:
  """Returns the sizes of the entry whose shape is the nearest, by ratios."""

  def distance(entry):
    ratios = entry.queries / queries, entry.keys / keys
    return sum(abs(math.log(ratio)) for ratio in ratios)

  return min(entries, key=distance).tiles


@functools.cache
def shipped() -> tuple[Table, ...]:
  """Returns the tables of the package."""
  return tuple(read(path) for path in sorted(TABLES.glob('*.json')))


@functools.cache
def read(path: Path) -> Table:
  """Reads a table.

  Raises:
    UserError: there is none, or it is no table; says what is wrong.
  """
  try:
    stored = json.loads(path.read_text())
    return Table(
      tuple(stored['hardware']), tuple(map(_entry, stored['entries']))
    )
  except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
    raise UserError(
      f'{path} is not a table of tiles ({error}); unset {ENVIRONMENT}, or '
      'write one with unitemp bench attention.'
    ) from error


def _entry(stored: dict[str, Any]) -> Entry:
  return Entry(**{**stored, 'tiles': Tiles(**stored['tiles'])})


def to_json(table: Table) -> str:
  """Returns the text that `read` reads."""
  return json.dumps(dataclasses.asdict(table), indent=1) + '\n'


def fit(
  total: int, block: int, unit: int, least: int | None = None
) -> tuple[int, int]:
  """Cuts tokens into even blocks: their padded number, and the size of one.

  Args:
    total: how many.
    block: most per block, unless a unit is more.
    unit: blocks are whole units, if that does not pad by more than an eighth,
    least: else smaller multiples of this; default is the unit itself.
  """
  least = least or unit
  blocks = -(-total // block)
  even = -(-total // blocks)
  most = min(unit, _round_up(total, least))
  for size in range(most, 0, -least):
    fitted = _round_up(even, size)
    if blocks * fitted - total <= _WASTE * total:
      break
  return blocks * fitted, fitted


def divisor(total: int, most: int, unit: int) -> int:
  """Returns the largest multiple of `unit`, up to `most`, that divides."""
  sizes = range(unit, max(most, unit) + 1, unit)
  return max(size for size in sizes if total % size == 0)


def _round_up(number: int, unit: int) -> int:
  return -(-number // unit) * unit
