"""Time of a compiled step by the TPU compiler's own schedule; nothing is run.

The text of a program gives estimated cycles for every fusion, product and copy,
and the order that they run in. Pallas kernels have none there: for each the
compiler writes the bundles of its static schedule, the cycles of one turn of
its grid (`LIBTPU_INIT_ARGS=--xla_jf_dump_to=...`). Copies and collectives that
are started and awaited take their bytes over the bandwidth, less what runs in
between. It does not see what a kernel waits for its own copies, nor the scalar
core between turns of a grid. Only normal effort counts: with the least effort
products take ten times the cycles.
"""

import base64
import collections
import dataclasses
import functools
import itertools
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unitemp_jax.aot import hlo
from unitemp_jax.aot.topology import Chip, Topology

_ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_BODY = re.compile(r'"custom_call_config":\{"body":"([^"]+)"')
_SHAPE = re.compile(r'(?:bf16|f16|f32)\[([\d,]+)\]')
_BUNDLES = re.compile(r'total scheduled bundles:\s+(\d+)')
_DUMPED = 'schedule-analysis_final_bundles'
# Words of an op_name that are no module of the code.
_CONTROL = re.compile(
  r'^(jit|jvp|transpose|vmap|shard_map|checkpoint|remat\w*|custom_\w+|while|'
  r'body|cond|closed_call|branch_\d+_fun|rematted_computation|chosen|'
  r'pallas_call|pjit|static_sparsity_splash|core_call)\b.*$'
)
# Done of a started copy or collective -> what its start is called.
_DONE = re.compile(r'^([a-z\-]+)-done$')
_COPIES = ('copy', 'slice', 'dynamic-slice', 'dynamic-update-slice', 'async')
# What the cost model gives no cycles for but moves bytes.
_MOVES = ('copy', 'transpose', 'concatenate', 'pad')
_LISTED = 12  # ops and modules that a report names


@dataclasses.dataclass(frozen=True)
class Part:
  """A share of a step's time."""

  name: str  # of an op with its module, of a module, or of a kernel
  seconds: float  # of all its executions in one run
  count: float  # executions
  about: str = ''  # what else is known of it


@dataclasses.dataclass(frozen=True)
class StepTime:
  """Seconds of one run of a step on every device."""

  ops: float  # fusions, products and copies, by the cost model
  kernels: float  # Pallas kernels, by their bundles
  waits: float  # for copies and collectives, beyond what runs meanwhile
  network: float  # that links between chips are busy, hidden or not
  ideal: float  # of the analytic operations at the peak rate
  unknown: int  # kernels without a schedule; the sum is too small then
  modules: list[Part]  # of the code, the slowest first
  slowest: list[Part]  # ops, likewise
  kernel_parts: list[Part]  # kernels, likewise

  @property
  def seconds(self) -> float:
    """All of it."""
    return self.ops + self.kernels + self.waits

  @property
  def roofline(self) -> float:
    """Share of the peak arithmetic."""
    return self.ideal / self.seconds if self.seconds else 0.0

  def lines(self, parts: bool = True) -> list[str]:
    """Returns a text; with `parts` a line for each."""
    share = f'{100 * self.roofline:.0f} % of the roofline'
    if self.unknown:
      share = 'without some kernels'
    found = [
      f'  by the schedule: {self.seconds:.3f} s (compiled, not run), '
      f'{share}; ops {self.ops:.3f}, '
      f'kernels {self.kernels:.3f}, waits {self.waits:.3f} s; links busy '
      f'{self.network:.3f} s'
    ]
    if self.unknown:
      found.append(f'  {self.unknown} kernels have no schedule: more than that')
    lists = {
      'module': self.modules,
      'op': self.slowest,
      'kernel': self.kernel_parts,
    }
    for title, ones in lists.items() if parts else ():
      for one in ones:
        about = f', {one.about}' if one.about else ''
        found.append(
          f'    {title} {100 * one.seconds / self.seconds:5.1f} % '
          f'{one.seconds:9.4f} s {one.count:9,.0f} x  {one.name}{about}'
        )
    return found


@functools.cache
def folder() -> Path:
  """Where the compiler writes schedules, if this comes before libtpu loads."""
  found = Path(tempfile.mkdtemp(prefix='schedule-'))
  more = (
    f'--xla_jf_dump_to={found} --xla_jf_dump_llo_text=true '
    '--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*'
  )
  before = os.environ.get('LIBTPU_INIT_ARGS', '')
  os.environ['LIBTPU_INIT_ARGS'] = f'{before} {more}'.strip()
  return found


def take_bundles(path: Path) -> dict[str, int]:
  """Reads the bundles of every op by name, and deletes the files."""
  found = {}
  for file in path.iterdir():
    named = re.match(rf'\d+-(.*)-\d+-{_DUMPED}\.txt$', file.name)
    if named is not None:
      with file.open() as lines:
        total = _BUNDLES.search(lines.read(2000))
      if total is not None:
        found[named[1]] = int(total[1])
    if file.is_file():
      file.unlink()
  return found


def module_of(op_name: str) -> tuple[str, str]:
  """Splits an op_name into the module of the code and the operation."""
  words = [word for word in op_name.split('/') if not _CONTROL.match(word)]
  operation = op_name.rpartition('/')[2]
  if words and words[-1] == operation:
    words.pop()
  return '/'.join(words) or 'program', operation


def grid(one: hlo.Instruction) -> tuple[int, ...]:
  """Turns of a Pallas kernel along each axis of its grid."""
  body = _BODY.search(one.rest)
  if body is None:
    return ()
  from jax._src.lib import tpu
  from jax._src.lib.mlir import ir

  context = ir.Context()
  context.allow_unregistered_dialects = True
  tpu.register_dialect(context)
  with context:
    text = str(ir.Module.parse(base64.b64decode(body[1])))
  bounds = re.search(r'iteration_bounds = array<i64: ([\d, ]+)>', text)
  return tuple(map(int, bounds[1].split(','))) if bounds else ()


def _of_all(bundles: dict[str, int], text: str) -> dict[str, int]:
  """Of kernels that are alike the compiler writes the schedule of one."""
  kinds: dict[str, tuple] = {}
  computations, _ = hlo.parse(text)
  for one in itertools.chain(*(c.values() for c in computations.values())):
    if 'tpu_custom_call' in one.rest:
      operands = one.rest.partition('operand_layout_constraints={')[2]
      stem = re.sub(r'[.0-9]+$', '', one.name)
      kinds[one.name] = stem, one.shape, operands.partition('}}')[0]
  known = {kinds[name]: bundles[name] for name in kinds if name in bundles}
  alike = {name: known[kind] for name, kind in kinds.items() if kind in known}
  return {**alike, **bundles}


def _keys(one: hlo.Instruction) -> int:
  """The longest second to last axis of what a kernel takes: its keys."""
  layouts = one.rest.partition('operand_layout_constraints={')[2]
  shapes = _SHAPE.findall(layouts.partition('}}')[0] + '}')
  sizes = [[int(n) for n in shape.split(',')] for shape in shapes]
  return max((size[-2] for size in sizes if len(size) >= 3), default=0)


@dataclasses.dataclass(frozen=True)
class Cache:
  """What kernels see of a cache."""

  tokens: int  # that it has room for
  seen: float  # share of them that is visible, averaged over passes

  def share(self, keys: int) -> float:
    """Share of a kernel's turns that compute something."""
    own = self.tokens <= keys <= 1.2 * self.tokens
    return min(self.seen * self.tokens / keys, 1.0) if own else 1.0


class _Clock:
  """Time since a program began; links and memory work beside it."""

  def __init__(self):
    self.now = self.waits = self.network = 0.0
    self._free = {'network': 0.0, 'memory': 0.0}
    self._ends: dict[str, float] = {}

  def start(self, resource: str, name: str, seconds: float) -> None:
    """Something begins that takes so long."""
    end = max(self.now, self._free[resource]) + seconds
    self._free[resource] = self._ends[name] = end
    if resource == 'network':
      self.network += seconds

  def wait(self, name: str) -> None:
    """It is needed now."""
    late = max(self._ends.pop(name, 0.0) - self.now, 0.0)
    self.now += late
    self.waits += late


def analyse(
  text: str,
  topology: Topology,
  bundles: dict[str, int],
  cache: Cache | None,
  unknown: int,
  flops: float,
  kinds: Sequence[float] = (),
) -> StepTime:
  """Returns the time of a program by its schedule.

  Args:
    text: of the compiled program, scheduled.
    topology: that it was compiled for.
    bundles: of kernels by name, see `take_bundles`.
    cache: of keys and values, if it has one.
    unknown: turns of a loop whose number is decided at run time.
    flops: analytic, over all devices.
    kinds: see `hlo.executions`.
  """
  chip, clock = topology.chip, _Clock()
  modules: dict[str, float] = collections.defaultdict(float)
  ops: dict[str, float] = collections.defaultdict(float)
  counts: dict[str, float] = collections.defaultdict(float)
  kernels: dict[str, list] = {}
  missing, every = 0, _of_all(bundles, text)
  for one, times, _ in hlo.executions(text, unknown, False, kinds):
    kind = one.opcode.removesuffix('-start')
    named = _OP_NAME.search(one.rest)
    module, operation = module_of(named[1] if named else one.name)
    seconds = 0.0
    if _DONE.match(one.opcode) is not None:
      clock.wait(one.operands[0])
    elif kind in hlo.KINDS:
      clock.start('network', one.name, times * _sent(one, kind, topology))
      if one.opcode == kind:
        clock.wait(one.name)
    elif one.opcode.endswith('-start') and kind in _COPIES:
      size = max(hlo.array_bytes(one.shape), default=0)
      if kind in ('slice', 'async', 'dynamic-slice'):  # What comes out of it.
        size = min(hlo.array_bytes(one.shape), default=0)
      clock.start('memory', one.name, times * size / (chip.hbm * 1e9))
    elif one.opcode == 'custom-call' and 'tpu_custom_call' in one.rest:
      turns, share = grid(one), cache.share(_keys(one)) if cache else 1.0
      own = every.get(one.name)
      if own is None:
        missing += 1
        continue
      each = math.prod(turns) * own / (chip.ghz * 1e9) / chip.cores
      seconds = times * share * each
      about = f'grid {"x".join(map(str, turns))}, {own:,} bundles a turn'
      if share < 1:
        about += f', {100 * share:.0f} % of them seen'
      known = kernels.setdefault(module + about, [module, 0.0, 0.0, about])
      known[1:3] = known[1] + seconds, known[2] + times
    else:
      cycles = _ESTIMATE.search(one.rest)
      if cycles is not None:
        seconds = times * int(cycles[1]) / (chip.ghz * 1e9)
      elif one.opcode in _MOVES:
        moved = 2 * sum(hlo.array_bytes(one.shape))
        seconds = times * moved / (chip.hbm * 1e9)
      label = f'{module} {operation} ({re.sub(r"[.0-9]+$", "", one.name)})'
      ops[label] += seconds
      counts[label] += times if seconds else 0
    modules[module] += seconds
    counts['/' + module] += times if seconds else 0
    clock.now += seconds
  parts = sorted(kernels.values(), key=lambda part: -part[1])
  return StepTime(
    ops=sum(ops.values()),
    kernels=sum(part[1] for part in parts),
    waits=clock.waits,
    network=clock.network,
    ideal=flops / (topology.devices * chip.tflops * 1e12),
    unknown=missing,
    modules=_largest(modules, {k[1:]: n for k, n in counts.items()}),
    slowest=_largest(ops, counts),
    kernel_parts=[Part(*part) for part in parts],
  )


def _largest(seconds: dict[str, float], counts: dict[str, float]) -> list[Part]:
  slowest = sorted(seconds.items(), key=lambda one: -one[1])[:_LISTED]
  return [Part(name, own, counts[name]) for name, own in slowest if own > 0]


def _sent(one: hlo.Instruction, kind: str, topology: Topology) -> float:
  """Seconds that the links of a chip need for one collective."""
  sent, between = hlo.sent(one, kind, topology.devices, topology.slices)
  chip: Chip = topology.chip
  return (sent - between) / (chip.ici * 1e9) + between / (chip.dcn * 1e9)
