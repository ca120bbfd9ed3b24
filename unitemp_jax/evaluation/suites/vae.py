"""Suite `vae`: what the VAE loses of held-out clips."""

from __future__ import annotations

import itertools

import numpy as np

from unitemp_jax.evaluation.metrics import bootstrap, temporal
from unitemp_jax.evaluation.metrics.results import Result
from unitemp_jax.evaluation.suites.bench import Bench, Section

READ = (
  'share of clips of which the classifier reads what the caption says, given '
  'frames not pasted in'
)
_PSNR = 'mean over clips of the PSNR of decode(encode(clip)) against the clip'
_PARTS = ('first third', 'middle third', 'last third')


def thirds(num_frames: int) -> list[slice]:
  """The first, middle and last third of the frames of a clip."""
  cuts = [round(num_frames * k / 3) for k in range(4)]
  return [slice(*pair) for pair in itertools.pairwise(cuts)]


def run(bench: Bench) -> list[Section]:
  """Measures PSNR along the clip, and what the classifier still reads."""
  real, shown = bench.real, bench.reconstruction
  parts = {
    name: temporal.psnr(shown[:, part], real[:, part])
    for name, part in zip(_PARTS, thirds(real.shape[1]), strict=True)
  }
  values = {'whole clip': temporal.psnr(shown, real), **parts}
  rows = [
    bench.row('VAE PSNR', group, bootstrap.mean(value), 'dB', _PSNR)
    for group, value in values.items()
  ]
  fall_off = bootstrap.paired_difference(
    parts['last third'], parts['first third']
  )
  rows.append(
    bench.row('VAE PSNR', 'last third - first third', fall_off, 'dB', _PSNR)
  )
  read = []
  for group, video in (('real clips', real), ('VAE reconstruction', shown)):
    read += read_rows(bench, group, bench.read(video))
  return [
    Section('VAE: fidelity', tuple(rows)),
    Section('VAE: what the classifier reads', tuple(read)),
  ]


def read_rows(
  bench: Bench, group: str, read: dict[str, np.ndarray], mode: str = 'joint'
) -> list[Result]:
  """One row for each of `Bench.read`, named by how the clips were decoded."""
  suffix = '' if mode == 'joint' else f', {mode}'
  return [
    bench.share(f'{metric}{suffix}', group, values, f'{READ}, {mode} decoding')
    for metric, values in read.items()
  ]
