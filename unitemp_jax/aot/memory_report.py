"""What the steps of a config need of a topology: numbers, text, JSON."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.aot.hlo import Traffic
from unitemp_jax.aot.schedule import StepTime
from unitemp_jax.aot.step import Step, device_bytes
from unitemp_jax.data import typed_json
from unitemp_jax.errors import UserError

GIB = 2**30
HEADROOM = 0.2  # Of a chip's memory that should stay free.

# First words of the roles that make up the state of a training.
_STATE = ('parameters', 'optimizer', 'EMA')
_SPLIT = 'more devices along fsdp (config.mesh.fsdp)'
# Role, by its first word -> what makes it smaller.
_CHANGES = {
  **dict.fromkeys(_STATE, _SPLIT),
  'frozen': f'{_SPLIT}, or a smaller teacher',
  'batch': 'a smaller config.batch_size',
  'student': 'a chip with more memory, or weights split over several',
  'vae': 'a chip with more memory',
  'cache': 'a shorter window of latents',
  'memory': 'a smaller picture',
  'activations': 'a smaller picture, fewer latents at a time',
}
_TRAINING_ACTIVATIONS = (
  'more devices along context (config.mesh.context), config.model.dit.remat='
  'full, a larger config.accumulate or a smaller config.batch_size'
)


@dataclasses.dataclass(frozen=True)
class StepReport:
  """One compiled step; sizes in GiB per device."""

  name: str  # of the step
  compiled: bool  # False if the compiler gave up for lack of memory
  peak_gib: float  # most that is in use at a time, resident things included
  arguments: dict[str, float]  # by role
  # by role; what lies there besides, not given to the program
  resident: dict[str, float]
  # the rest of the peak: activations, gradients, buffers
  activations_gib: float
  scratch_gib: float  # what the program allocates, not all of it at once
  compile_seconds: float  # tracing and compiling, on the machine that did it
  tflops: float  # analytic, of one run on all devices, in 1e12 operations
  attention_tflops: float  # of that in attention
  traffic: list[Traffic]  # collectives of one run, bytes sent by one device
  rows: int  # of the batch, on all devices
  mesh: dict[str, int]  # sizes of its axes
  share: int  # how often the step is taken in a round of training steps
  largest: list[str]  # the largest allocations, where the compiler gave up
  # by the compiler's schedule; at normal effort only
  time: StepTime | None = None

  @property
  def sent(self) -> float:
    """Bytes that one device sends in one run."""
    return sum(one.bytes for one in self.traffic)

  def contributors(self) -> list[tuple[str, float]]:
    """Returns what takes memory, the largest first."""
    parts = {**self.arguments, **self.resident}
    parts['activations'] = self.activations_gib
    return sorted(parts.items(), key=lambda part: -part[1])

  def state_gib(self) -> float:
    """Returns parameters, optimizer state and running means together."""
    return sum(
      size
      for role, size in self.arguments.items()
      if role.split(' ')[0] in _STATE
    )

  def advice(self) -> list[str]:
    """Returns what to change, for the largest contributors first."""
    found = []
    for role, size in self.contributors()[:3]:
      change = _CHANGES.get(role.split(' ')[0])
      if role == 'activations' and self.share:
        change = _TRAINING_ACTIVATIONS
      if change and size >= 5e-3:
        found.append(f'{role} ({size:.2f} GiB): {change}')
    return found


def step_report(
  step: Step, *, peak: int, scratch: int, **measured: Any
) -> StepReport:
  """The report on a step: `peak` and `scratch` in bytes, other fields as is."""
  arguments = {k: device_bytes(v) / GIB for k, v in step.arguments.items()}
  resident = {k: device_bytes(v) / GIB for k, v in step.resident.items()}
  return StepReport(
    name=step.name,
    peak_gib=peak / GIB + sum(resident.values()),
    arguments=arguments,
    resident=resident,
    activations_gib=max(peak / GIB - sum(arguments.values()), 0.0),
    scratch_gib=scratch / GIB,
    tflops=step.flops.total / 1e12,
    attention_tflops=step.flops.attention / 1e12,
    rows=step.rows,
    mesh=dict(step.mesh),
    share=step.share,
    **measured,
  )


@dataclasses.dataclass(frozen=True)
class MemoryReport:
  """What was compiled for a topology, and how."""

  config: str  # file of the config
  overrides: list[str]  # of the config, as `a.b=value`
  topology: str  # of one slice
  slices: int  # how many
  chips: int  # of all slices
  chip_gib: float  # memory of a device that a program may use
  # of the network, where fewer than the config's were compiled
  layers: int | None
  # 'exact', or 'fast': the least effort of the compiler, whose memory and time
  # are others, so that no verdict follows
  mode: str
  versions: dict[str, str]  # of jax and libtpu
  steps: list[StepReport]  # one per program

  @property
  def fits(self) -> bool:
    """Whether every step fits, without regard to headroom."""
    return all(self.step_fits(step) for step in self.steps)

  def step_fits(self, step: StepReport) -> bool:
    """Returns whether one step fits, as far as this mode can tell."""
    inside = step.compiled and step.peak_gib <= self.chip_gib
    return inside or self.mode == 'fast'

  def outcome(self, step: StepReport) -> str:
    """Returns whether a step fits, in words."""
    if self.mode == 'fast':
      return 'no verdict at the least effort'
    if not self.step_fits(step):
      return 'DOES NOT FIT'
    if step.peak_gib > (1 - HEADROOM) * self.chip_gib:
      return f'fits with less than {100 * HEADROOM:.0f} % to spare'
    return 'fits'

  def text(self, parts: bool = False) -> str:
    """Returns the whole report; with `parts` seconds per op and module."""
    slices = f'{self.slices} x ' if self.slices > 1 else ''
    depth = '' if self.layers is None else f', {self.layers} layers only'
    versions = ', '.join(f'{k} {v}' for k, v in self.versions.items())
    effort = 'normal' if self.mode == 'exact' else 'least'
    found = [
      f'{self.config} for {slices}{self.topology}: {self.chips} chips, '
      f'{self.chip_gib:g} GiB per device{depth}',
      f'compiled for {slices}{self.topology}, not run; {effort} effort, '
      f'{versions}',
    ]
    for step in self.steps:
      found += self._step_lines(step, parts)
    if self.layers is not None:
      found.append(
        'A reduced depth says nothing about the memory of the whole.'
      )
    rounds = [step for step in self.steps if step.share]
    times = [step.time.seconds for step in rounds if step.time is not None]
    if len(rounds) > 1 and len(times) == len(rounds):
      number = sum(step.share for step in rounds)
      total = sum(step.share * t for step, t in zip(rounds, times, strict=True))
      found.append(
        f'by the schedule: {total / number:.2f} s per step on average over '
        f'{number} steps'
      )
    return '\n'.join(found)

  def _step_lines(self, step: StepReport, parts: bool) -> list[str]:
    mesh = ' '.join(f'{axis} {n}' for axis, n in step.mesh.items() if n > 1)
    amount = f'{step.peak_gib:.2f}' if step.peak_gib else 'more than there is'
    roles = ', '.join(
      f'{role} {size:.2f}' for role, size in step.contributors() if size >= 5e-3
    )
    found = [
      f'{step.name}: {amount} of {self.chip_gib:g} GiB per device, '
      f'{self.outcome(step)}',
      f'  mesh {mesh or "of one device"}, batch {step.rows}; arguments '
      f'{sum(step.arguments.values()):.2f} GiB, scratch '
      f'{step.scratch_gib:.2f} GiB; compiled in {step.compile_seconds:.0f} s',
      f'  memory: {roles}',
      f'  {step.tflops:,.1f} TFLOP (analytic), {step.attention_tflops:,.1f} of '
      'them attention',
    ]
    for one in step.traffic:
      between = f', {one.between / 1e9:.3f} GB between slices'
      found.append(
        f'  {one.kind}: {one.count:,.0f} x ({one.sites} in the program), '
        f'{one.bytes / 1e9:.3f} GB sent per device'
        + (between if one.between else '')
      )
    if step.time is not None:
      found += step.time.lines(parts)
    if self.outcome(step) != 'fits' and self.mode == 'exact':
      found += [f'  largest: {one}' for one in step.largest]
      found += [f'  to change: {one}' for one in step.advice()]
    return found

  def summary(self) -> str:
    """Returns one sentence on what does not fit, or on how much is left."""
    if self.mode == 'fast':
      return 'no verdict at the least effort; leave --fast for one'
    if not self.fits:
      steps = [step for step in self.steps if not self.step_fits(step)]
      worst = max(steps, key=lambda step: step.peak_gib)
      parts = ', '.join(
        f'{role} {size:.1f} GiB' for role, size in worst.contributors()[:3]
      )
      return (
        f'{worst.name} does not fit {self.topology}: it needs '
        f'{worst.peak_gib:.1f} of {self.chip_gib:g} GiB per device (largest: '
        f'{parts}); to change: {"; ".join(worst.advice()[:1])}.'
      )
    least = min(1 - step.peak_gib / self.chip_gib for step in self.steps)
    kept = 'kept' if least >= HEADROOM else 'NOT kept'
    wanted = f'{100 * HEADROOM:.0f} %'
    return f'{100 * least:.0f} % of the memory is left; {wanted} {kept}'


def compared(old: MemoryReport, new: MemoryReport) -> str:
  """Returns seconds by the schedule of the steps of two reports, and modules.

  Raises:
    UserError: they have no step with a time in common.
  """
  before = {step.name: step for step in old.steps}
  found = []
  for step in new.steps:
    other = before.get(step.name)
    if other is None or other.time is None or step.time is None:
      continue
    was, now = other.time, step.time
    names = ('seconds', 'ops', 'kernels', 'waits', 'network')
    rows = [(name, getattr(was, name), getattr(now, name)) for name in names]
    modules = [{one.name: one.seconds for one in t.modules} for t in (was, now)]
    rows += [
      (name, modules[0].get(name, 0.0), modules[1].get(name, 0.0))
      for name in dict.fromkeys([*modules[0], *modules[1]])
    ]
    found.append(
      f'{step.name}: {100 * was.roofline:.0f} to {100 * now.roofline:.0f} % of '
      f'the roofline, {other.peak_gib:.2f} to {step.peak_gib:.2f} GiB '
      '(compiled, not run)'
    )
    found += [f'  {a:9.4f} to {b:9.4f} s  {name}' for name, a, b in rows]
  if not found:
    raise UserError(
      'these reports have no step with a time in common; write both with '
      'unitemp aot --time --out=FILE.'
    )
  return '\n'.join(found)


def write(path: Path, report: MemoryReport) -> None:
  """Writes a report as JSON, which `launch/tpu_pod.py` reads too."""
  check(path)
  files.write_json(path, dataclasses.asdict(report))


def check(path: Path) -> None:
  """Refuses, by UserError, to replace what is no report."""
  if os.path.lexists(path):
    mend = 'choose another name'
    files.read_json(path, 'a memory report', mend, keys=('steps',))


def read(path: Path) -> MemoryReport:
  """Reads what `write` wrote.

  Raises:
    UserError: it is missing, or no report of this version.
  """
  mend = 'delete it and compile again'
  return typed_json.read(path, MemoryReport, 'a memory report', mend)
