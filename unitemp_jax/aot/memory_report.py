"""What a config needs of a topology: numbers, a verdict, and what to change."""

import dataclasses
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.aot.collectives import Traffic
from unitemp_jax.aot.compiler import GIB, Compiled
from unitemp_jax.aot.topology import Topology
from unitemp_jax.errors import UserError

HEADROOM = 0.2  # Of a chip's memory that should stay free.

# First words of the roles that make up the state of a training.
_STATE = ('parameters', 'optimizer', 'EMA')


@dataclasses.dataclass(frozen=True)
class StepVerdict:
  """One compiled step; sizes in GiB per device.

  Attributes:
    name: of the step.
    compiled: False if the compiler gave up for lack of memory.
    peak_gib: most that is in use at a time, resident things included.
    arguments: by role.
    resident: by role; what lies there besides, not given to the program.
    activations_gib: the rest of the peak: activations, gradients, buffers.
    scratch_gib: what the program allocates, not all of it at once.
    compile_seconds: tracing and compiling, on the machine that did it.
    tflops: analytic, of one run on all devices, in 1e12 operations.
    attention_tflops: of that in attention.
    traffic: collectives of one run, bytes sent by one device.
    rows: of the batch, on all devices.
    mesh: sizes of its axes.
    share: how often the step is taken in a round of steps.
    estimate_seconds: for one run; an estimate, see `Verdict.utilisation`.
    bound: what it is bound by, 'compute' or 'network'.
    largest: the largest allocations, where the compiler gave up.
  """

  name: str
  compiled: bool
  peak_gib: float
  arguments: dict[str, float]
  resident: dict[str, float]
  activations_gib: float
  scratch_gib: float
  compile_seconds: float
  tflops: float
  attention_tflops: float
  traffic: list[Traffic]
  rows: int
  mesh: dict[str, int]
  share: int
  estimate_seconds: float
  bound: str
  largest: list[str]

  @property
  def sent(self) -> float:
    """Bytes that one device sends in one run."""
    return sum(one.bytes for one in self.traffic)

  def contributors(self) -> list[tuple[str, float]]:
    """What takes memory, the largest first."""
    parts = {**self.arguments, **self.resident}
    parts['activations'] = self.activations_gib
    return sorted(parts.items(), key=lambda part: -part[1])

  def state_gib(self) -> float:
    """Parameters, optimizer state and running means: what is trained."""
    return sum(
      size
      for role, size in self.arguments.items()
      if role.split(' ')[0] in _STATE
    )


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What was compiled for a topology, and how.

  Attributes:
    config: file of the config.
    overrides: of the config, as `a.b=value`.
    topology: of one slice.
    slices: how many.
    chips: of all slices.
    chip_gib: memory of a device that a program may use.
    layers: of the network, where fewer than the config's were compiled.
    mode: 'fast' or 'exact' effort of the compiler.
    utilisation: of the peak arithmetic that the estimates assume.
    versions: of jax and libtpu.
    steps: one per program.
  """

  config: str
  overrides: list[str]
  topology: str
  slices: int
  chips: int
  chip_gib: float
  layers: int | None
  mode: str
  utilisation: float
  versions: dict[str, str]
  steps: list[StepVerdict]

  @property
  def fits(self) -> bool:
    """Whether every step fits, without regard to headroom."""
    return all(self.step_fits(step) for step in self.steps)

  def step_fits(self, step: StepVerdict) -> bool:
    """Whether one step fits."""
    return step.compiled and step.peak_gib <= self.chip_gib

  def word(self, step: StepVerdict) -> str:
    """The verdict on a step."""
    if not self.step_fits(step):
      return 'DOES NOT FIT'
    if step.peak_gib > (1 - HEADROOM) * self.chip_gib:
      return f'fits with less than {100 * HEADROOM:.0f} % to spare'
    return 'fits'


def judge(
  made: Compiled, topology: Topology, utilisation: float, share: int
) -> StepVerdict:
  """Turns bytes into a verdict on a step of a topology."""
  arguments = {role: size / GIB for role, size in made.roles.items()}
  resident = {role: size / GIB for role, size in made.resident.items()}
  peak = made.peak / GIB
  chip, devices = topology.chip, topology.devices
  compute = made.flops / (devices * chip.tflops * 1e12 * utilisation)
  inside = sum(one.bytes - one.between for one in made.traffic)
  between = sum(one.between for one in made.traffic)
  network = inside / (chip.ici * 1e9) + between / (chip.dcn * 1e9)
  return StepVerdict(
    name=made.name,
    compiled=made.fits,
    peak_gib=peak + sum(resident.values()),
    arguments=arguments,
    resident=resident,
    activations_gib=max(peak - sum(arguments.values()), 0.0),
    scratch_gib=made.scratch / GIB,
    compile_seconds=made.seconds,
    tflops=made.flops / 1e12,
    attention_tflops=made.attention / 1e12,
    traffic=made.traffic,
    rows=made.rows,
    mesh=made.mesh,
    share=share,
    estimate_seconds=max(compute, network),
    bound='compute' if compute >= network else 'network',
    largest=made.largest,
  )


def write(path: Path, verdict: Verdict) -> None:
  """Writes a verdict as JSON, atomically; see `launch/tpu_pod.py`."""
  files.write_json(path, dataclasses.asdict(verdict))


def read(path: Path) -> Verdict:
  """Reads what `write` wrote.

  Raises:
    UserError: it is missing, or no verdict of this version.
  """
  fields = files.read_json(path, 'a verdict', 'compile it again')
  try:
    steps = fields.pop('steps')
    for step in steps:
      step['traffic'] = [Traffic(**one) for one in step['traffic']]
    return Verdict(**fields, steps=[StepVerdict(**step) for step in steps])
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(
      f'{path} is no verdict of this version ({error!r}); delete it and '
      'compile again.'
    ) from error
