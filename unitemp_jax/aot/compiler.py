"""Compiles a step with the TPU compiler, and reads off what it needs."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import jax

from unitemp_jax.aot import collectives
from unitemp_jax.aot.step import Step, device_bytes
from unitemp_jax.aot.topology import Topology

GIB = 2**30
# Of the compiler: as little as it can do, or what it does by default.
_FAST, _EXACT = -1.0, 0.0


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler says of a step; bytes are those of one device.

  Attributes:
    name: of the step.
    fits: False if the compiler gave up for lack of memory.
    peak: most bytes in use at a time; where it gave up, what it asked for.
    scratch: what the program allocates; an upper bound of what it uses at once.
    roles: bytes of the arguments by role, and of what is kept besides.
    seconds: to trace and to compile.
    traffic: of its collectives.
    flops: of one run on all devices, and of it that of attention.
    rows: of the batch, on all devices.
    mesh: sizes of the axes.
    largest: the largest allocations, in words, where it gave up.
  """

  name: str
  fits: bool
  peak: int
  scratch: int
  roles: dict[str, int]
  resident: dict[str, int]
  seconds: float
  traffic: list[collectives.Traffic]
  flops: float
  attention: float
  rows: int
  mesh: dict[str, int]
  largest: list[str]


@contextlib.contextmanager
def effort(fast: bool) -> Iterator[None]:
  """Sets how hard the compiler tries to make fast programs."""
  name = 'jax_exec_time_optimization_effort'
  before = getattr(jax.config, name)
  jax.config.update(name, _FAST if fast else _EXACT)
  try:
    yield
  finally:
    jax.config.update(name, before)


def run(step: Step, topology: Topology, fast: bool) -> Compiled:
  """Traces and compiles a step.

  Args:
    step: for the devices of a topology.
    topology: the same.
    fast: with the least effort; memory then differs by some percent.

  Raises:
    jax.errors.JaxRuntimeError: an error that has nothing to do with memory.
  """
  roles = {name: device_bytes(tree) for name, tree in step.arguments.items()}
  about: dict[str, Any] = {
    'name': step.name,
    'roles': roles,
    'resident': {k: device_bytes(tree) for k, tree in step.resident.items()},
    'flops': step.flops.total,
    'attention': step.flops.attention,
    'rows': step.rows,
    'mesh': dict(step.mesh),
  }
  began = time.monotonic()
  try:
    with effort(fast):
      compiled = step.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    peak, largest = read_exhausted(str(error))
    return Compiled(
      fits=False,
      peak=peak,
      scratch=max(peak - sum(roles.values()), 0),
      seconds=time.monotonic() - began,
      traffic=[],
      largest=largest,
      **about,
    )
  seconds = time.monotonic() - began
  memory = compiled.memory_analysis()
  return Compiled(
    fits=True,
    peak=memory.peak_memory_in_bytes,
    scratch=memory.temp_size_in_bytes,
    seconds=seconds,
    traffic=collectives.count(
      compiled.as_text(), topology.devices, topology.slices, step.loops
    ),
    largest=[],
    **about,
  )


_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def _bytes(number: str, unit: str) -> int:
  return int(float(number) * _UNITS[unit])


def read_exhausted(message: str) -> tuple[int, list[str]]:
  """Returns the bytes that a program asked for, and its largest allocations.

  Args:
    message: of the compiler's RESOURCE_EXHAUSTED.
  """
  size = r'([\d.]+)([KMGT]?)'
  asked = re.search(
    rf'Used {size} of|required for HLO temporaries \({size}\)', message
  )
  peak = 0
  if asked is not None:
    peak = _bytes(*[part or '' for part in asked.groups() if part is not None])
  found = []
  for entry in re.split(r'\n\s*\d+\. Size: ', message)[1:4]:
    amount = re.match(size, entry)
    operator = re.search(r'op_name="([^"]*)"', entry)
    shape = re.search(r'Shape: (\S+?)[{\s]', entry)
    if amount is not None:
      words = [f'{_bytes(*amount.groups()) / GIB:.2f} GiB']
      words += [shape[1]] if shape else []
      words += [f'of {operator[1]}'] if operator else []
      found.append(' '.join(words))
  return peak, found
