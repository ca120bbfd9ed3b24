"""Reads compiled programs: computations, and how often each of them runs.

The TPU compiler prints no trip counts, so they are read off: a loop ends when a
counter in its state, raised by a constant in every turn, reaches a constant.
Of the branches of a conditional the longest one is taken.
"""

import dataclasses
import re
from collections.abc import Iterator

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
_LAYOUT = re.compile(r'\{[\d,]*(:[^{}]*)?\}')
_CHOSEN = re.compile(rf'op_name="[^"]*/{CHOSEN}/while"')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: without the percent sign.
    shape: its type without layouts, as printed.
    opcode: such as 'all-gather'.
    operands: names of what it takes.
    rest: attributes as printed.
    value: of a constant, as printed.
    root: whether it is what the computation returns.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  rest: str
  value: str
  root: bool

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
  computations: dict[str, Computation],
  caller: Computation,
  loop: Instruction,
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
  text: str, unknown: int
) -> Iterator[tuple[Instruction, float, bool]]:
  """Yields every instruction with how often one run of a program executes it.

  Args:
    text: of a compiled program.
    unknown: turns of a loop whose number is decided at run time.

  Yields:
    (instruction, executions, whether they rest on `unknown`). Of a conditional
    the branch with most instructions in all that it calls is counted, and so of
    loops that stand for one (`generate.step.CHOSEN`).
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
        if one is largest:
          yield from walk(body_of(one), times, guessed)
        continue
      roles = one.called()
      names = [n for part in roles.values() for n in part if n in computations]
      if one.opcode == 'while':
        turns = trips(computations, computations[name], one)
        number = unknown if turns is None else turns
        yield from walk(body_of(one), times * number, guessed or turns is None)
      elif one.opcode == 'conditional' and names:
        yield from walk(max(names, key=size), times, guessed)
      elif one.opcode in ('call', 'async-start') or one.opcode == 'fusion':
        for called in names:
          yield from walk(called, times, guessed)

  yield from walk(entry, 1.0, False)
