"""Which collectives a compiled program runs, and what they send.

Bytes are those that one chip sends, by the usual ring algorithms: an all-gather
sends the other chips' parts of its result on, an all-reduce sends everything
twice, a permutation sends its operand once.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

import numpy as np

from unitemp_jax.aot import hlo

KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_BYTES = {'pred': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8}
_ARRAY = re.compile(r'(pred|bf16|[fsuc]\d+|f8\w+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Of one kind of collective in one run of a program.

  Attributes:
    kind: of KINDS.
    sites: instructions in the program.
    count: how often they are run.
    bytes: that one chip sends.
    between: those of them that go between slices.
  """

  kind: str
  sites: int
  count: float
  bytes: float
  between: float


def _arrays(shape: str) -> list[int]:
  """Bytes of the arrays in a type."""
  found = []
  for kind, sizes in _ARRAY.findall(shape):
    width = _BYTES.get(kind)
    if width is None:
      width = 1 if kind.startswith('f8') else int(kind[1:]) // 8
    found.append(width * math.prod(int(n) for n in sizes.split(',') if n))
  return found


def _sizes(text: str) -> list[int]:
  return [int(n) for n in text.split(',') if n.strip()]


def groups(rest: str, devices: int) -> np.ndarray:
  """Returns the devices that take part together, `[groups, members]`.

  Understands the three ways in which XLA prints them: lists of numbers, a
  shape with a transposition, and a mesh with names of axes. Groups that are
  not printed, or not of one size, are taken to be all devices.
  """
  everything = np.arange(devices)[None]
  mesh = re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', rest)
  if mesh is not None:
    sizes = {k: int(v) for k, v in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    inside = re.findall(r"'(\w+)'", mesh[2])
    if math.prod(sizes.values()) != devices:
      return everything
    names = list(sizes)
    order = [names.index(n) for n in names if n not in inside]
    order += [names.index(n) for n in names if n in inside]
    grid = np.arange(devices).reshape(list(sizes.values())).transpose(order)
    return grid.reshape(-1, math.prod(sizes[n] for n in inside))
  iota = re.search(
    r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', rest
  )
  if iota is not None:
    shape, grid = (_sizes(iota[1]), _sizes(iota[2]))
    numbers = np.arange(math.prod(grid)).reshape(grid)
    order = _sizes(iota[3]) if iota[3] else None
    return numbers.transpose(order).reshape(shape)
  listed = re.search(r'replica_groups=\{(\{.*?\})\}', rest)
  if listed is not None:
    rows = [_sizes(row) for row in re.findall(r'\{(.*?)\}', listed[1])]
    if len({len(row) for row in rows}) == 1:
      return np.array(rows)
  return everything


def _sent(kind: str, one: hlo.Instruction, size: int) -> float:
  """Bytes that one chip sends for a collective among `size` chips."""
  arrays = _arrays(one.shape)
  if one.opcode.endswith('-start') and kind != 'all-reduce':
    # (operand, result, ...): what counts is the larger one.
    total = float(max(arrays, default=0))
  else:
    total = float(sum(arrays))
  share = (size - 1) / size
  if kind == 'all-reduce':
    return 2 * total * share
  if kind == 'reduce-scatter':
    return total * (size - 1)
  if kind in ('collective-permute', 'collective-broadcast'):
    return total
  return total * share


def count(text: str, devices: int, slices: int, unknown: int) -> list[Traffic]:
  """Returns the traffic of a compiled program by kind.

  Args:
    text: of the program.
    devices: that it runs on.
    slices: equal parts of them, in order.
    unknown: turns of a loop whose number is decided at run time.
  """
  total: dict[str, np.ndarray] = {}
  seen: dict[str, set[int]] = {}
  own = devices // slices
  for one, times, _ in hlo.executions(text, unknown):
    kind = one.opcode.removesuffix('-start')
    if kind not in KINDS:
      continue
    pairs = re.search(r'source_target_pairs=\{(\{.*?\})\}', one.rest)
    if pairs is not None:
      ends = np.array(re.findall(r'(\d+),(\d+)', pairs[1]), int)
      crosses = (ends // own)[:, 0] != (ends // own)[:, 1]
      sent = _sent(kind, one, 2)
      between = sent * crosses.mean() if len(ends) else 0.0
    else:
      members = groups(one.rest, devices)
      sent = _sent(kind, one, members.shape[1])
      # A ring over two slices leaves each of them once.
      parts = (members // own)[0]
      between = sent * _share_between(parts.tolist())
    total[kind] = total.get(kind, np.zeros(3)) + times * np.array(
      [1.0, sent, between]
    )
    seen.setdefault(kind, set()).add(id(one))
  return [
    Traffic(kind, len(seen[kind]), *(float(x) for x in total[kind]))
    for kind in KINDS
    if kind in total
  ]


def _share_between(parts: Iterable[int]) -> float:
  """Share of a ring's hops that lead to another slice, well ordered."""
  numbers = list(parts)
  different = len(set(numbers))
  return 0.0 if different == 1 else different / len(numbers)
