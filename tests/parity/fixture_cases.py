"""The cases whose PyTorch outputs are committed under `fixtures`."""

import dataclasses
from typing import Any

import cases


@dataclasses.dataclass(frozen=True)
class Case:
  """One fixture.

  Attributes:
    function: of `torch_side` and of `our_side`.
    arguments: of that function.
    slow: seconds of arithmetic or gigabytes of weights.
  """

  function: str
  arguments: dict[str, Any]
  slow: bool = False


def _dit(config, grid, tokens, batch=1, slow=False):
  values = {'config': config, 'grid': grid, 'tokens': tokens, 'batch': batch}
  return Case('dit', values, slow)


def _vae(config, video, latents, slow=False):
  values = {'config': config, 'video': video, 'latents': latents}
  return Case('vae', values, slow)


CASES = {
  'dit_tiny': _dit(cases.DIT_TINY, (3, 4, 6), tokens=9, batch=2),
  # The 1.3B model's width, at the size of 480x832 pixels when slow.
  'dit_wide': _dit(cases.dit_wide(1), (3, 8, 8), tokens=512),
  'dit_wide_1': _dit(cases.dit_wide(1), (3, 60, 104), tokens=512, slow=True),
  'dit_wide_2': _dit(cases.dit_wide(2), (3, 60, 104), tokens=512, slow=True),
  # 36x44 pixels do not divide by 8; 24x40 are an odd number of latents.
  'vae_narrow': _vae(cases.VAE_NARROW, (13, 36, 44), (4, 3, 5)),
  'vae_full': _vae(cases.VAE_FULL, (9, 24, 40), (3, 3, 5), slow=True),
  # 300 positions reach the last bucket of relative positions.
  'umt5_tiny': Case('umt5', {'config': cases.UMT5_TINY, 'tokens': 300}),
  'umt5_wide': Case(
    'umt5', {'config': cases.UMT5_WIDE, 'tokens': 512}, slow=True
  ),
  'student': Case('student', {'config': cases.DIT_TINY}),
  'euler': Case('euler', {'steps': 9, 'shift': 5.0}),
  'unipc': Case('unipc', {'steps': 9, 'shift': 5.0}),
  'unipc_short': Case('unipc', {'steps': 2, 'shift': 8.0}),
}
