"""The chips of a topology that is not there, and TPU generations as data.

Sources: libtpu, and the Cloud TPU documentation of each generation (compute,
bandwidths, shapes of slices). The memory that a program may use is what libtpu
says of one that needs more. Bandwidths of the interconnect are the sum of both
directions over all links of a chip.
"""

import dataclasses
import importlib.util
import math
import os
from typing import Any

import jax
from jax.experimental import topologies

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import hush_libtpu


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device, as jax counts them."""

  name: str  # as topologies are named, `v5e:4x4`
  gib: float  # memory that a program may use
  tflops: float  # peak in bfloat16, in 1e12 operations per second
  hbm: float  # bandwidth of its memory in 1e9 bytes per second
  ici: float  # of the links to its neighbours, likewise
  dcn: float  # of the network between slices, likewise
  devices: int  # how many of them there are on a chip
  ghz: float  # clock of its cores
  cores: int  # that share the turns of a Pallas kernel
  # slices that exist; larger ones with 3 sizes are made of whole cubes of
  # `cube`, up to `largest`
  shapes: tuple[str, ...]
  cube: int = 0  # chips along each side, 0 without larger shapes
  largest: tuple[int, ...] = ()  # chips along each side


_ALIASES = {'7x': 'tpu7x', 'v7x': 'tpu7x', 'v5litepod': 'v5e', 'v5lite': 'v5e'}
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')

CHIPS = {
  chip.name: chip
  for chip in (
    # Its two cores are one device, which libtpu must be told.
    Chip(
      'v4',
      *(30.75, 275, 1228, 600, 6.25, 1, 1.05, 2, _SOLID),
      cube=4,
      largest=(16, 16, 16),
    ),
    Chip('v5e', 15.75, 197, 819, 400, 3.125, 1, 1.5, 1, _FLAT),
    Chip('v6e', 31.25, 918, 1638, 800, 12.5, 1, 1.75, 1, _FLAT),
    Chip(
      *('v5p', 95.74, 459, 2765, 1200, 6.25, 1, 1.75, 2, _SOLID),
      cube=4,
      largest=(16, 16, 24),
    ),
    # Two devices per chip, which share its links.
    Chip(
      'tpu7x',
      *(94.75, 1153.5, 3690, 600, 6.25, 2, 2.2, 1, ('1x1x1', *_SOLID)),
      cube=4,
      largest=(16, 24, 24),
    ),
  )
}


_MOST_CHIPS = 100_000  # beyond all that are connected; their list is held

_INSTALL = (
  'the TPU compiler (libtpu) is not installed; '
  "pip install 'unitemp_jax[tpu]' brings it, no TPU is needed."
)


@dataclasses.dataclass(frozen=True)
class Topology:
  """Equal slices of one TPU generation."""

  name: str  # of one slice, such as 'v5e:4x4'
  slices: int  # how many there are
  chip: Chip  # what they are made of
  sizes: tuple[int, ...]  # chips along each side of a slice

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
  kind, colon, shape = name.partition(':')
  kind = _ALIASES.get(kind, kind)
  name = f'{kind}{colon}{shape}'
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
  found = Topology(name, slices, chip, sizes)
  if found.chips > _MOST_CHIPS:
    most = _MOST_CHIPS // math.prod(sizes)
    raise UserError(
      f'--slices={slices} of {name} are {found.chips} chips, too many; use up '
      f'to {most}.'
    )
  return found


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
  hush_libtpu()
  more: dict[str, Any] = {}
  if math.prod(topology.sizes) == 1:  # The default is a host of 2 x 2 chips.
    more['chips_per_host_bounds'] = [1, 1, 1]
  if topology.chip.name == 'v4':
    more['chip_config_name'] = 'megacore'
  try:
    description = topologies.get_topology_desc(
      platform='tpu',
      topology_name=topology.name,
      num_slices=topology.slices,
      **more,
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
