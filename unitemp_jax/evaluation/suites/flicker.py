"""Suite `flicker`: are the seams between blocks visible, and what removes them?

Three ways to decode: `joint` when all latents exist; `streaming`, every block
as soon as it exists; `late`, every block when the block before it exists. Each
is measured at all boundaries, and at the last one alone: at the first one,
anchors may reach back to the start of the video, where a decoder's past ends.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from unitemp_jax import orders
from unitemp_jax.evaluation.metrics import bootstrap, flicker
from unitemp_jax.evaluation.metrics.swapped_block import swap_block
from unitemp_jax.evaluation.suites.bench import (
  LAST_GIVEN,
  NO_ANCHORS,
  START_OFF,
  Bench,
  Section,
)
from unitemp_jax.evaluation.suites.vae import read_rows
from unitemp_jax.video.frames import frame_steps

REAL = 'real clips'
VAE = 'VAE reconstruction'
SWAPPED = 'swapped block'
_HOW = {
  'BFR': 'frame difference at block boundaries over the median around them',
  'wide4': 'mean of the 4 frame differences from a boundary on over 4 on each '
  'side',
  'latent step': 'change of the latents across boundaries over the changes '
  'beside them; the real one is that of the encoded clips',
}
_REAL_ALIKE = 'geometric mean over clips'
_EXCESS = 'geometric mean minus that of the real clips'
_REMOVED = 'share of the excess over real clips of P = 0 streaming that is gone'
_PAIRED = 'geometric mean of the ratio of the two, paired by caption'


@dataclasses.dataclass(frozen=True)
class Seam:
  """One variant: ratios `[n]` by metric, and `Bench.read` by decoding."""

  ratios: dict[str, np.ndarray]
  read: dict[str, dict[str, np.ndarray]]


def run(bench: Bench) -> list[Section]:
  """Measures all orders, the backward variants, baselines and controls."""
  spots = _spots(bench)
  seams = {REAL: _real(bench, spots), VAE: _reconstruction(bench, spots)}
  seams[SWAPPED] = _swapped(bench, spots)
  # The blocks of a loop begin elsewhere; its seam has a suite of its own.
  names = [name for name in orders.ORDERS if name != 'loop']
  for name in (*names, START_OFF, LAST_GIVEN, NO_ANCHORS):
    seams[name] = _generated(bench, name, spots)
  at = ' and '.join(str(j) for j in next(iter(spots.values())))
  sections = []
  for spot in spots:
    title = f'Flicker{spot or f" at {at}"}'
    ratios = _ratio_rows(bench, seams, spot)
    excess = _excess_rows(bench, seams, spot)
    sections.append(Section(title, tuple(ratios)))
    sections.append(Section(f'{title}: excess over real', tuple(excess)))
  read = []
  for group, seam in seams.items():
    for mode, values in seam.read.items():
      read += read_rows(bench, group, values, mode)
  return [
    *sections,
    Section('Flicker: the remedy', tuple(_remedies(bench, seams, spots))),
    Section('Flicker: what the oracle reads', tuple(read)),
  ]


def _spots(bench) -> dict[str, list[int]]:
  """Where is measured, by what is added to the metrics' names."""
  every = flicker.boundaries(bench.pipeline.num_latents, bench.card.block)
  every = every.tolist()
  alone = {f' at {every[-1]} alone': every[-1:]} if len(every) > 1 else {}
  return {'': every, **alone}


def _pixels(video, spots, mode) -> dict[str, np.ndarray]:
  steps = frame_steps(video)
  ratios = {}
  for spot, at in spots.items():
    bfr = flicker.boundary_flicker_ratio(steps, at)
    ratios[f'BFR{spot}, {mode}'] = bfr
    ratios[f'wide4{spot}, {mode}'] = flicker.wide_ratio(steps, at)
  return ratios


def _latents(latents, spots) -> dict[str, np.ndarray]:
  return {
    f'latent step{spot}': flicker.latent_step_ratio(latents, at)
    for spot, at in spots.items()
  }


def _real(bench, spots) -> Seam:
  """Real pixels, the same for every decoding, and their true latents."""
  ratios = _latents(bench.latents, spots)
  for mode in ('joint', 'streaming', 'late'):
    ratios |= _pixels(bench.real, spots, mode)
  return Seam(ratios, {'joint': bench.read(bench.real)})


def _reconstruction(bench, spots) -> Seam:
  video = bench.reconstruction
  ratios = _pixels(video, spots, 'joint') | _latents(bench.latents, spots)
  return Seam(ratios, {'joint': bench.read(video)})


def _swapped(bench, spots) -> Seam:
  """The control with a known fault: another clip's middle block."""
  block = bench.card.block
  middle = -(-bench.pipeline.num_latents // block) // 2
  latents = swap_block(bench.latents, middle, block=block)
  video = bench.decode(latents)
  ratios = _pixels(video, spots, 'joint') | _latents(latents, spots)
  return Seam(ratios, {'joint': bench.read(video)})


def _generated(bench, name, spots) -> Seam:
  latents = bench.made(name).timeline
  shown = {'joint': bench.joint(name), 'streaming': bench.streamed(name)}
  if name == NO_ANCHORS:
    shown['late'] = bench.made(name).decoded(bench.decode, 'lag')
  ratios = _latents(latents, spots)
  for mode, video in shown.items():
    ratios |= _pixels(video, spots, mode)
  read = {mode: bench.read(video) for mode, video in shown.items()}
  return Seam(ratios, read)


def _metrics(spot) -> dict[str, str]:
  """Names of the metrics of one spot, and how each is obtained."""
  found = {}
  for mode in ('joint', 'streaming', 'late'):
    for kind in ('BFR', 'wide4'):
      found[f'{kind}{spot}, {mode}'] = f'{_HOW[kind]}, {mode} decoding'
  found[f'latent step{spot}'] = _HOW['latent step']
  return found


def _ratio_rows(bench, seams, spot) -> list:
  rows = []
  for group, seam in seams.items():
    for metric, how in _metrics(spot).items():
      if metric in seam.ratios:
        measured = bootstrap.geometric_mean(seam.ratios[metric])
        how = f'{how}, {_REAL_ALIKE}'
        rows.append(bench.row(metric, group, measured, 'ratio', how))
  return rows


def _excess(values: np.ndarray, floor: np.ndarray) -> bootstrap.Interval:
  """Geometric mean of values minus that of floor, same clips, both `[n]`."""
  return bootstrap.interval(
    lambda a, b: np.exp(a.mean(axis=-1)) - np.exp(b.mean(axis=-1)),
    np.log(values),
    np.log(floor),
  )


def _excess_rows(bench, seams, spot) -> list:
  floor, rows = seams[REAL].ratios, []
  for group, seam in seams.items():
    for metric, how in _metrics(spot).items():
      if metric in seam.ratios and group != REAL:
        over = _excess(seam.ratios[metric], floor[metric])
        name, how = f'excess {metric}', f'{how}, {_EXCESS}'
        rows.append(bench.row(name, group, over, 'ratio', how))
  return rows


def _remedies(bench, seams, spots) -> list:
  """Anchors against no anchors, and against the two plain baselines."""
  without, floor, rows = seams[NO_ANCHORS].ratios, seams[REAL].ratios, []
  for spot in spots:
    for kind in ('BFR', 'wide4'):
      metric = f'{kind}{spot}'
      stream = f'{metric}, streaming'
      for group in (LAST_GIVEN,):
        with_anchors = seams[group].ratios[stream]
        gone = bootstrap.removed_excess(
          with_anchors, without[stream], floor[stream]
        )
        name = f'removed excess {metric}'
        rows.append(bench.row(name, group, gone, '%', _REMOVED))
        for mode in ('joint', 'late'):
          ratio = bootstrap.paired_ratio(
            with_anchors, without[f'{metric}, {mode}']
          )
          name = f'{metric}, streaming / P = 0 {mode}'
          rows.append(bench.row(name, group, ratio, 'ratio', _PAIRED))
  return rows
