"""What an accelerator type consists of.

Types are named by cores up to v5p and in tpu7x (two per chip) and by chips in
v5e and v6e. Sources: the Cloud TPU documentation of each generation.
"""

import dataclasses
import re

from pod.errors import PodError


@dataclasses.dataclass(frozen=True)
class Generation:
  """One TPU generation.

  Attributes:
    name: as topologies are named, `v5e:4x4`.
    cores_per_chip: what the number in the type counts per chip.
    devices_per_chip: what jax counts per chip.
    one_host_chips: numbers of chips that are served by a single host.
    runtime: TPU VM image; empty where there is none (GKE only).
    tflops: of a chip at its peak in bfloat16, in 1e12 operations per second.
  """

  name: str
  cores_per_chip: int
  devices_per_chip: int
  one_host_chips: tuple
  runtime: str
  tflops: float


GENERATIONS = {
  'v4': Generation('v4', 2, 1, (4,), 'tpu-ubuntu2204-base', 275),
  'v5litepod': Generation('v5e', 1, 1, (1, 4, 8), 'v2-alpha-tpuv5-lite', 197),
  'v5p': Generation('v5p', 2, 1, (4,), 'v2-alpha-tpuv5', 459),
  'v6e': Generation('v6e', 1, 1, (1, 4, 8), 'v2-alpha-tpuv6e', 918),
  'tpu7x': Generation('tpu7x', 2, 2, (1, 4), '', 2307),
}
_CHIPS_PER_HOST = 4  # Of every slice with more than one host.


@dataclasses.dataclass(frozen=True)
class Slices:
  """One or more equal slices.

  Attributes:
    type: accelerator type of one slice, such as `v6e-16`.
    generation: what it is made of.
    count: number of slices.
    chips: of one slice.
  """

  type: str
  generation: Generation
  count: int
  chips: int

  @property
  def hosts(self) -> int:
    """Hosts of all slices."""
    if self.chips in self.generation.one_host_chips:
      return self.count
    return self.count * self.chips // _CHIPS_PER_HOST

  @property
  def devices(self) -> int:
    """What jax.device_count() must be on all hosts together."""
    return self.count * self.chips * self.generation.devices_per_chip

  def describe(self) -> str:
    """Returns the size in words."""
    return (
      f'{self.count} x {self.type}: {self.count * self.chips} chips, '
      f'{self.devices} devices, {self.hosts} hosts'
    )


def parse(accelerator_type: str, count: int) -> Slices:
  """Returns what `count` slices of a type are.

  Raises:
    PodError: there is no such type.
  """
  match = re.fullmatch(r'(\w+?)-(\d+)', accelerator_type)
  if match is None or match[1] not in GENERATIONS or count < 1:
    known = ', '.join(f'{name}-N' for name in GENERATIONS)
    raise PodError(
      f'there is no accelerator type {accelerator_type!r} x {count}; use one '
      f'of {known} and 1 slice or more.'
    )
  generation, number = GENERATIONS[match[1]], int(match[2])
  chips, rest = divmod(number, generation.cores_per_chip)
  slices = Slices(accelerator_type, generation, count, chips)
  whole = chips in generation.one_host_chips or chips % _CHIPS_PER_HOST == 0
  if rest or not chips or not whole:
    raise PodError(
      f'{accelerator_type} is not a whole number of hosts of '
      f'{_CHIPS_PER_HOST} chips; choose another number.'
    )
  return slices
