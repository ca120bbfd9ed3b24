"""Reads compiled programs: how often each computation runs, what is sent.

The TPU compiler prints no trip counts, so they are read off: a loop ends when a
counter in its state, raised by a constant in every turn, reaches a constant.
Of the branches of a conditional the longest one is taken.

Bytes of collectives are those that one chip sends, by the usual ring
algorithms: an all-gather sends the other chips' parts of its result on, an
all-reduce sends everything twice, a permutation sends its operand once.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from unitemp_jax.sampling.step import CHOSEN

# %name = TYPE opcode(OPERANDS), ATTRIBUTES; types may be tuples with comments.
_NAME = re.compile(r'^\s*(ROOT )?%?([\w.\-]+) = ')
_CALL = re.compile(r'\s([a-z][\w\-]*)\(')
_START = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
_OPERAND = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
  r'(condition|body|calls|to_apply|branch_computations|true_computation|'
  r'false_computation|called_computations)=\{?((?:%[\w.\-]+(?:, )?)+)'
)
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COMMENT = re.compile(r'/\*.*?\*/')
# Of Pallas kernels; the only thing that is printed over several lines.
_METADATA = re.compile(r'frontend_attributes=\{kernel_metadata=\{\n.*?\n\}\}, ')
_LAYOUT = re.compile(r'\{[\d,]*(:[^{}]*)?\}')
_CHOSEN = re.compile(rf'op_name="[^"]*/{CHOSEN}/while"')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation."""

  name: str  # without the percent sign
  shape: str  # its type without layouts, as printed
  opcode: str  # such as 'all-gather'
  operands: tuple[str, ...]  # names of what it takes
  rest: str  # attributes as printed
  value: str  # of a constant, as printed
  root: bool  # whether it is what the computation returns

  def called(self) -> dict[str, list[str]]:
    """Returns the computations that it calls, by the role they have."""
    return {
      role: _OPERAND.findall(names)
      for role, names in _CALLED.findall(self.rest)
    }


Computation = dict[str, Instruction]


def _instruction(line: str) -> Instruction | None:
  start = _NAME.match(line)
  if start is None:
    return None
  call = _CALL.search(line, start.end() - 1)
  if call is None:
    return None
  shape = _LAYOUT.sub('', line[start.end() : call.start()])
  depth, end = 1, call.end()
  while depth and end < len(line):
    depth += {'(': 1, ')': -1}.get(line[end], 0)
    end += 1
  inside = line[call.end() : end - 1]
  return Instruction(
    name=start[2],
    shape=shape,
    opcode=call[1],
    operands=tuple(_OPERAND.findall(inside)),
    rest=line[end:],
    value=inside if call[1] in ('constant', 'get-tuple-element') else '',
    root=bool(start[1]),
  )


def parse(text: str) -> tuple[dict[str, Computation], str]:
  """Returns the computations of a program by name, and the entry's name.

  Args:
    text: of a compiled program (`jax.stages.Compiled.as_text`).

  Raises:
    ValueError: there is no entry.
  """
  computations: dict[str, Computation] = {}
  entry, current = '', None
  text = _METADATA.sub('', text)
  for line in text.splitlines():
    line = _COMMENT.sub('', line)
    begun = _START.match(line)
    if begun is not None:
      current = computations[begun[2]] = {}
      if begun[1]:
        entry = begun[2]
    elif current is not None:
      found = _instruction(line)
      if found is not None:
        current[found.name] = found
  if not entry:
    raise ValueError('this is no text of a compiled program: it has no ENTRY')
  return computations, entry


def _constant(computation: Computation, name: str) -> int | None:
  """The value of an instruction that is a whole number, else None."""
  found = computation.get(name)
  while found is not None and found.opcode in ('copy', 'bitcast', 'convert'):
    found = computation.get(found.operands[0])
  if found is None or found.opcode != 'constant':
    return None
  return int(found.value) if re.fullmatch(r'-?\d+', found.value) else None


def _element(computation: Computation, name: str) -> int | None:
  """Which element of the loop's state an instruction reads, else None."""
  found = computation.get(name)
  while found is not None and found.opcode in ('copy', 'bitcast', 'convert'):
    found = computation.get(found.operands[0])
  if found is None or found.opcode != 'get-tuple-element':
    return None
  return int(found.rest.split('index=')[1].split(',')[0])


def _root(computation: Computation) -> Instruction:
  return next(found for found in computation.values() if found.root)


def _raised(body: Computation, element: int) -> int | None:
  """By how much a turn raises an element of the state, else None."""
  root = _root(body)
  if root.opcode != 'tuple':
    return None
  name, total = root.operands[element], 0
  while _element(body, name) is None:
    found = body.get(name)
    if found is None or found.opcode not in ('add', 'copy', 'bitcast'):
      return None
    constants = [_constant(body, operand) for operand in found.operands]
    total += sum(c for c in constants if c is not None)
    left = [
      operand
      for operand, c in zip(found.operands, constants, strict=True)
      if c is None
    ]
    if len(left) != 1:
      return None
    name = left[0]
  return total if _element(body, name) == element else None


def trips(
  computations: dict[str, Computation], caller: Computation, loop: Instruction
) -> int | None:
  """Returns how often a `while` turns, or None if that is decided at run time.

  Args:
    computations: of the whole program.
    caller: the computation with the loop.
    loop: its `while` instruction.
  """
  known = _KNOWN.search(loop.rest)
  if known is not None:
    return int(known[1])
  roles = loop.called()
  condition = computations[roles['condition'][0]]
  body = computations[roles['body'][0]]
  test = _root(condition)
  if test.opcode != 'compare' or 'direction=LT' not in test.rest:
    return None
  element = _element(condition, test.operands[0])
  if element is None:
    return None
  state = caller.get(loop.operands[0])

  def initial(index):
    if state is None or state.opcode != 'tuple':
      return None
    return _constant(caller, state.operands[index])

  end = _constant(condition, test.operands[1])
  if end is None:  # It may be kept in the state, unchanged.
    kept = _element(condition, test.operands[1])
    end = None if kept is None or _raised(body, kept) != 0 else initial(kept)
  begin, step = initial(element), _raised(body, element)
  if end is None or not step:
    return None
  # What is not seen to begin elsewhere counts from 0, as jax's scans do.
  return max(-(-(end - (begin or 0)) // step), 0)


def executions(
  text: str, unknown: int, fused: bool = True, kinds: Sequence[float] = ()
) -> Iterator[tuple[Instruction, float, bool]]:
  """Yields every instruction with how often one run of a program executes it.

  Args:
    text: of a compiled program.
    unknown: turns of a loop whose number is decided at run time.
    fused: also what is inside of fusions.
    kinds: share of a plan's rows that does what each branch does, in their
      order (`sampling.step.kind_of`); the first one does nothing.

  Yields:
    (instruction, executions, whether they rest on `unknown`). Of a conditional
    with other branches that with most instructions in all that it calls is
    counted, and so of loops that stand for one (`sampling.step.CHOSEN`).
  """
  computations, entry = parse(text)
  sizes: dict[str, int] = {}

  def size(name: str) -> int:
    if name not in sizes:
      sizes[name] = 0  # Programs do not recurse.
      sizes[name] = len(computations[name]) + sum(
        size(called)
        for one in computations[name].values()
        for names in one.called().values()
        for called in names
        if called in computations
      )
    return sizes[name]

  def body_of(loop: Instruction) -> str:
    return loop.called()['body'][0]

  def walk(name: str, times: float, guessed: bool):
    chosen = [
      one
      for one in computations[name].values()
      if one.opcode == 'while' and _CHOSEN.search(one.rest)
    ]
    largest = max(chosen, key=lambda one: size(body_of(one)), default=None)
    for one in computations[name].values():
      yield one, times, guessed
      if one in chosen:
        share = float(one is largest)
        if 1 < len(chosen) < len(kinds):
          share = kinds[chosen.index(one) + 1]
        if share:
          yield from walk(body_of(one), share * times, guessed)
        continue
      roles = one.called()
      names = [n for part in roles.values() for n in part if n in computations]
      if one.opcode == 'while':
        turns = trips(computations, computations[name], one)
        number = unknown if turns is None else turns
        yield from walk(body_of(one), times * number, guessed or turns is None)
      elif one.opcode == 'conditional' and len(names) == len(kinds) > 0:
        for called, share in zip(names, kinds, strict=True):
          if share:
            yield from walk(called, share * times, guessed)
      elif one.opcode == 'conditional' and names:
        yield from walk(max(names, key=size), times, guessed)
      elif one.opcode in ('call', 'async-start', *(['fusion'] * fused)):
        for called in names:
          yield from walk(called, times, guessed)

  yield from walk(entry, 1.0, False)


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
  """Of one kind of collective in one run of a program."""

  kind: str  # of KINDS
  sites: int  # instructions in the program
  count: float  # how often they are run
  bytes: float  # that one chip sends
  between: float  # those of them that go between slices


def array_bytes(shape: str) -> list[int]:
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


def _sent(kind: str, one: Instruction, size: int) -> float:
  """Bytes that one chip sends for a collective among `size` chips."""
  arrays = array_bytes(one.shape)
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


def sent(
  one: Instruction, kind: str, devices: int, slices: int
) -> tuple[float, float]:
  """Bytes that one chip sends for a collective, and those between slices."""
  own = devices // slices
  pairs = re.search(r'source_target_pairs=\{(\{.*?\})\}', one.rest)
  if pairs is not None:
    ends = np.array(re.findall(r'(\d+),(\d+)', pairs[1]), int)
    crosses = (ends // own)[:, 0] != (ends // own)[:, 1]
    total = _sent(kind, one, 2)
    return total, total * crosses.mean() if len(ends) else 0.0
  members = groups(one.rest, devices)
  total = _sent(kind, one, members.shape[1])
  # A ring over two slices leaves each of them once.
  return total, total * _share_between((members // own)[0].tolist())


def count(
  text: str,
  devices: int,
  slices: int,
  unknown: int,
  kinds: Sequence[float] = (),
) -> list[Traffic]:
  """Returns the traffic of a compiled program by kind.

  Args:
    text: of the program.
    devices: that it runs on.
    slices: equal parts of them, in order.
    unknown: turns of a loop whose number is decided at run time.
    kinds: see `executions`.
  """
  total: dict[str, np.ndarray] = {}
  seen: dict[str, set[int]] = {}
  for one, times, _ in executions(text, unknown, kinds=kinds):
    kind = one.opcode.removesuffix('-start')
    if kind not in KINDS:
      continue
    own, between = sent(one, kind, devices, slices)
    total[kind] = total.get(kind, np.zeros(3)) + times * np.array(
      [1.0, own, between]
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
