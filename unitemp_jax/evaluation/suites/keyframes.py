"""Suites `keyframes` and `extend`: what is given stays, and nothing jumps.

Pictures or a clip are taken from held-out clips and given back; the rest is
generated. The real clips themselves are the reference, a cross-fade from one
given picture to the next the null.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.evaluation.metrics import bootstrap, seams, temporal
from unitemp_jax.evaluation.suites.bench import MOTION, Bench, Section
from unitemp_jax.evaluation.suites.runs import Runs, paste, section

REAL, RECONSTRUCTION, FADE = 'real clips', 'VAE reconstruction', 'cross-fade'
_JOIN = (
  'frame difference where given and generated frames meet, given frames '
  'pasted in, over the median one; geometric mean over joins and clips'
)
_INSIDE = 'PSNR of the generated frames against the real clip'
_GIVEN = 'PSNR at the given frames, decoded jointly, before they are pasted in'
_RESIDUAL = (
  'distance of the frames between two given ones from the nearest blend of '
  'them, over the distance of those two; mean over gaps'
)
_READ = 'share of clips where the classifier reads the {} of the caption there'


def run_keyframes(bench: Bench) -> list[Section]:
  """Pictures at both ends and between, and a span made anew."""
  runs, real = Runs.of(bench), bench.real
  latents = bench.pipeline.num_latents
  middle = (latents - 1) // 2
  at = [0, 4 * middle, 4 * (latents - 1)]
  rows = _rows(runs, REAL, real, at)
  rows += _rows(runs, RECONSTRUCTION, bench.reconstruction, at)
  rows += _rows(runs, FADE, _fades(real, at), at)
  places = [orders.Given(frame // 4, 1) for frame in at]
  sides = ('past', 'outside_in')
  aligned = plans.align(
    *(
      orders.keyframes(latents, places, side=side, **runs.settings())
      for side in sides
    )
  )
  for side, plan in zip(sides, aligned, strict=True):
    name = f'keyframes, {side}'
    pictures = {frame: real[:, frame : frame + 1] for frame in at}
    made = runs.make(name, plan, runs.captions, pictures)
    rows += _rows(runs, name, paste(made, pictures), at)
    rows.append(_given_row(bench, name, made[:, at], real[:, at]))
  return [
    section('Keyframes at the ends and in the middle', 'keyframes', rows),
    _regenerated(runs),
  ]


def _fades(real: np.ndarray, at: Sequence[int]) -> np.ndarray:
  video = real.copy()
  for low, high in itertools.pairwise(at):
    fade = temporal.cross_fade(real[:, low], real[:, high], high - low + 1)
    video[:, low : high + 1] = np.rint(255 * fade)
  return video


def _rows(runs: Runs, group: str, video: np.ndarray, at: Sequence[int]) -> list:
  bench, last = runs.bench, video.shape[1] - 1
  joins = sorted({j for f in at for j in (f - 1, f) if 0 <= j < last})
  inside = np.setdiff1d(np.arange(last + 1), at)
  residual = np.mean(
    [
      seams.blend_residual(video[:, low : high + 1])
      for low, high in itertools.pairwise(at)
    ],
    axis=0,
  )
  rows = [
    *_join_rows(bench, group, video, joins),
    bench.row('no blend', group, bootstrap.mean(residual), 'ratio', _RESIDUAL),
    *_motion_rows(bench, group, video),
  ]
  if group != REAL:
    psnr = temporal.psnr(video[:, inside], bench.real[:, inside])
    rows.append(
      bench.row('interior PSNR', group, bootstrap.mean(psnr), 'dB', _INSIDE)
    )
  return rows


def _join_rows(bench, group, video, joins) -> list:
  jumps = np.exp(np.log(temporal.join_jump(video, joins)).mean(axis=1))
  measured = bootstrap.geometric_mean(jumps)
  return [bench.row('join jump', group, measured, 'ratio', _JOIN)]


def _motion_rows(bench, group, video) -> list:
  motion = bootstrap.mean(temporal.motion_ratio(video, bench.real))
  return [bench.row('motion to real', group, motion, 'ratio', MOTION)]


def _given_row(bench, group, made, real):
  psnr = bootstrap.mean(temporal.psnr(made, real))
  return bench.row('PSNR at given frames', group, psnr, 'dB', _GIVEN)


def _regenerated(runs: Runs) -> Section:
  """The middle block of real clips made anew, both sides kept."""
  bench, real = runs.bench, runs.bench.real
  block, latents = bench.card.block, bench.pipeline.num_latents
  first = (latents - block) // 2
  # Latent k codes frames 4k-3..4k; the last frame of the span stays as it is.
  low, end = 4 * first - 3, 4 * (first + block - 1)
  joins, span = [low - 1, end - 1], slice(low, end)
  plan = orders.regenerate(latents, first, block, **runs.settings())
  name = f'frames {low} to {end - 1} made anew'
  kept = {0: real[:, :low], end: real[:, end:]}
  made = runs.make(name, plan, runs.captions, kept)
  rows = []
  for group, video in (
    (REAL, real),
    (RECONSTRUCTION, bench.reconstruction),
    (FADE, _fades(real, [low - 1, end])),
    (name, paste(made, kept)),
  ):
    rows += _join_rows(bench, group, video, joins)
    rows += _motion_rows(bench, group, video[:, span])
    if group != REAL:
      psnr = bootstrap.mean(temporal.psnr(video[:, span], real[:, span]))
      rows.append(bench.row('interior PSNR', group, psnr, 'dB', _INSIDE))
  return section('A span made anew', 'regenerate', rows)


def run_extend(bench: Bench) -> list[Section]:
  """The middle of real clips, extended to either side and to both."""
  runs, real = Runs.of(bench), bench.real
  latents = bench.pipeline.num_latents
  # A third is given: its first frame stands at a multiple of 4.
  low, high = 4 * (latents // 3), 4 * (latents - latents // 3 - 1)
  clip = real[:, low : high + 1]
  before, after = low // 4, latents - 1 - high // 4
  rows = []
  for group, video in ((REAL, real), (RECONSTRUCTION, bench.reconstruction)):
    rows += _extended_rows(runs, group, video, low, high)
  count = 1 + (high - low) // 4
  lengths = {'alternate': (before, after), 'past': (before, 0)}
  lengths['future'] = (0, after)
  aligned = plans.align(
    *(
      orders.extend(
        count,
        before=past,
        after=future,
        sides=sides,
        # As for users: a video shorter than the model's has an open start.
        **runs.settings(open_start=past + count + future < latents),
      )
      for sides, (past, future) in lengths.items()
    )
  )
  for plan, (sides, (past, _)) in zip(aligned, lengths.items(), strict=True):
    name = f'extended, {sides}'
    given = {4 * past: clip}
    shown = paste(runs.make(name, plan, runs.captions, given), given)
    rows += _extended_rows(runs, name, shown, 4 * past, 4 * past + high - low)
  title = f'Frames {low} to {high} of real clips, extended'
  return [section(title, 'extend', rows)]


def _extended_rows(runs, group, video, low, high) -> list:
  """Rows of clips whose frames low .. high are given."""
  bench, last = runs.bench, video.shape[1] - 1
  parts, clips = {}, bench.clips
  if low > 0:
    parts['before'] = (video[:, :low], low - 1)
  if high < last:
    parts['after'] = (video[:, high + 1 :], high)
  rows = []
  for name, (part, join) in parts.items():
    jump = bootstrap.geometric_mean(temporal.join_jump(video, [join])[:, 0])
    rows.append(bench.row(f'join jump, {name}', group, jump, 'ratio', _JOIN))
    for what, values in runs.reads(
      part, clips['digit'], clips['colour']
    ).items():
      metric, how = f'{what} {name}', _READ.format(what)
      rows.append(bench.share(metric, group, values, how))
    motion = bootstrap.mean(temporal.motion_ratio(part, bench.real))
    rows.append(
      bench.row(f'motion to real, {name}', group, motion, 'ratio', MOTION)
    )
  return rows
