"""TPU generations as data.

Sources: the Cloud TPU documentation of each generation (compute, bandwidths,
shapes of slices), and libtpu itself for the memory that a program may use, from
what it says of one that needs more. Bandwidths of the interconnect are the sum
of both directions over all links of a chip.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device, as jax counts them.

  Attributes:
    name: as topologies are named, `v5e:4x4`.
    gib: memory that a program may use.
    tflops: peak in bfloat16, in 1e12 operations per second.
    hbm: bandwidth of its memory in 1e9 bytes per second.
    ici: of the links to its neighbours, likewise.
    dcn: of the network between slices, likewise.
    devices: how many of them there are on a chip.
    shapes: slices that exist; larger ones with 3 sizes are made of whole cubes
      of `cube`, up to `largest`.
    cube: chips along each side, 0 without larger shapes.
    largest: chips along each side.
  """

  name: str
  gib: float
  tflops: float
  hbm: float
  ici: float
  dcn: float
  devices: int
  shapes: tuple[str, ...]
  cube: int = 0
  largest: tuple[int, ...] = ()


_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')

CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v5e', 15.75, 197, 819, 400, 3.125, 1, _FLAT),
    Chip('v6e', 31.25, 918, 1638, 800, 12.5, 1, _FLAT),
    Chip('v5p', 95.74, 459, 2765, 1200, 6.25, 1, _SOLID, 4, (16, 16, 24)),
    # Two devices per chip, which share its links.
    Chip(
      'tpu7x',
      *(94.75, 1153.5, 3690, 600, 6.25, 2, ('1x1x1', *_SOLID)),
      cube=4,
      largest=(16, 24, 24),
    ),
  )
}
