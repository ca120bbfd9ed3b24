"""The chips of a topology that is not there, from libtpu."""

import dataclasses
import importlib.util
import math
import os
from typing import Any

import jax
from jax.experimental import topologies

from unitemp_jax.aot.hardware import CHIPS, Chip
from unitemp_jax.errors import UserError

_INSTALL = (
  'the TPU compiler (libtpu) is not installed; '
  "pip install 'unitemp_jax[tpu]' brings it, no TPU is needed."
)


@dataclasses.dataclass(frozen=True)
class Topology:
  """Equal slices of one TPU generation.

  Attributes:
    name: of one slice, such as 'v5e:4x4'.
    slices: how many there are.
    chip: what they are made of.
    sizes: chips along each side of a slice.
  """

  name: str
  slices: int
  chip: Chip
  sizes: tuple[int, ...]

  @property
  def chips(self) -> int:
    """Chips of all slices."""
    return self.slices * math.prod(self.sizes)

  @property
  def devices(self) -> int:
    """Devices of all slices, as jax counts them."""
    return self.chips * self.chip.devices

  def __str__(self) -> str:
    return f'{self.slices} x {self.name}' if self.slices > 1 else self.name


def parse(name: str, slices: int = 1) -> Topology:
  """Returns what a name such as 'v5e:4x4' means.

  Raises:
    UserError: there is no such generation or slice, or less than one slice.
  """
  kind, _, shape = name.partition(':')
  if kind not in CHIPS:
    raise UserError(
      f'--topology={name} is of no TPU generation that is known; use '
      f'{", ".join(f"{chip}:{c.shapes[2]}" for chip, c in CHIPS.items())}.'
    )
  chip = CHIPS[kind]
  if shape not in chip.shapes and not _of_cubes(chip, shape):
    larger = ''
    if chip.cube:
      largest = 'x'.join(map(str, chip.largest))
      larger = f', or with multiples of {chip.cube} up to {largest}'
    raise UserError(
      f'--topology={name} does not exist; {kind} comes as '
      f'{", ".join(chip.shapes)}{larger}.'
    )
  if slices < 1:
    raise UserError(f'--slices={slices} is too few; use 1 or more.')
  sizes = tuple(int(size) for size in shape.split('x'))
  return Topology(name, slices, chip, sizes)


def _of_cubes(chip: Chip, shape: str) -> bool:
  sizes = [int(size) for size in shape.split('x') if size.isdecimal()]
  if not chip.cube or len(sizes) != 3 or 'x'.join(map(str, sizes)) != shape:
    return False
  fits = zip(sorted(sizes), chip.largest, strict=True)
  return all(size and size % chip.cube == 0 for size in sizes) and all(
    size <= most for size, most in fits
  )


def devices(topology: Topology) -> list[Any]:
  """Returns the devices to compile for; nothing can be run on them.

  Raises:
    UserError: libtpu is not installed, or does not know the topology.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(_INSTALL)
  # Not on a TPU machine, and beside other processes that compile.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  hosts = {}
  if math.prod(topology.sizes) == 1:  # The default is a host of 2 x 2 chips.
    hosts['chips_per_host_bounds'] = [1, 1, 1]
  try:
    description = topologies.get_topology_desc(
      platform='tpu',
      topology_name=topology.name,
      num_slices=topology.slices,
      **hosts,
    )
  except jax.errors.JaxRuntimeError as error:
    raise UserError(
      f'libtpu refuses {topology}: {str(error).splitlines()[0]}'
    ) from error
  found = list(description.devices)
  if len(found) != topology.devices:
    raise UserError(
      f'libtpu gives {topology} {len(found)} devices, not {topology.devices}; '
      'choose another topology.'
    )
  return found
