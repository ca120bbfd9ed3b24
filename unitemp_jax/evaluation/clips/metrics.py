"""The numbers of one clip, made from its curves, and how they are pooled.

A metric that a clip cannot have (it is too short, has no block boundary, was
given no frame) is left out of that clip, never replaced by a number. Drift is
read twice, as played and in the order in which the frames were made: a video
made backward that degrades shows it at its beginning.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from unitemp_jax.evaluation.clips.layout import Layout, generation_order
from unitemp_jax.evaluation.metrics import flicker, long_video, temporal
from unitemp_jax.evaluation.metrics.curves import COURSES, Curves

_LEAST = 1e-3  # keeps relative changes of dark or flat clips finite
_REPEATS = 0.25  # a last frame this near to the first is the first again


def clip_metrics(curves: Curves, layout: Layout) -> dict[str, float]:
  """All metrics of `registry.CLIP` that this clip can have, by name.

  UserError if the blocks of the layout do not fit the clip.
  """
  found = {
    'temporal flickering': float(
      flicker.vbench_temporal_flickering(curves.steps[None])[0]
    ),
    'mean step': float(curves.steps.mean()),
  }
  found |= _seams(curves, layout)
  found |= _loop(curves)
  found |= _joins(curves, layout.conditioning)
  found |= _drifts(curves, layout)
  return found


def boundaries_inside(steps: np.ndarray, layout: Layout) -> np.ndarray:
  """The boundaries with one of the steps [T-1] on either side, int [m]."""
  at = np.asarray(layout.boundaries, dtype=int)
  return at[(at >= 1) & (at <= len(steps) - 2)]


def _seams(curves: Curves, layout: Layout) -> dict[str, float]:
  found, steps = {}, curves.steps[None]
  at = boundaries_inside(curves.steps, layout)
  if at.size:
    # The turn on both sides of transition j belongs to it; the first
    # transition that has two is number 1.
    pairs = (curves.turns[1:] + curves.turns[:-1])[None] / 2
    found['BFR'] = flicker.boundary_flicker_ratio(steps, at)[0]
    found['wide4'] = flicker.wide_ratio(steps, at)[0]
    inner = at[(at >= 2) & (at <= pairs.shape[1] - 1)]
    if inner.size:
      found['BFR, second difference'] = flicker.boundary_flicker_ratio(
        pairs, inner - 1
      )[0]
    if len(curves.steps) >= 2 * layout.period:
      found['comb power'] = flicker.comb_power(steps, layout.period)[0][0]
  return {name: float(value) for name, value in found.items()}


def _loop(curves: Curves) -> dict[str, float]:
  steps, turns = curves.steps, curves.turns
  seam, turn, early_seam, early_turn = curves.seam
  closure = seam / (np.median(steps) + flicker.EPSILON)
  if closure < _REPEATS and len(steps) > 2:
    steps, turns = steps[:-1], turns[:-1]
    seam, turn = early_seam, early_turn
  _, velocity, ratio = temporal.seam_ratios(steps, turns, seam, turn)
  return {
    'loop closure': float(closure),
    'loop velocity': velocity,
    'BFR of the loop seam': ratio,
  }


def _joins(curves: Curves, given: tuple[int, int]) -> dict[str, float]:
  last = len(curves.steps) - 1
  joins = {}
  if 0 < given[0] <= last:
    joins['join jump, first'] = given[0] - 1
  if 0 < given[1] <= last:
    joins['join jump, last'] = last - given[1] + 1
  if not joins or len(joins) == len(curves.steps):
    return {}
  found = temporal.join_ratios(curves.steps[None], list(joins.values()))[0]
  return {name: float(v) for name, v in zip(joins, found, strict=True)}


def _drifts(curves: Curves, layout: Layout) -> dict[str, float]:
  looks = curves.course
  order = np.arange(curves.frames)
  if layout.spans:
    order = generation_order(layout.spans, curves.frames)
  second = max(1, round(layout.fps))
  found = {}
  for name, series in (('as played', looks), ('as made', looks[order])):
    ends = long_video.ends_apart(series[None], 1.0)[0]
    for quality, value in zip(COURSES, ends, strict=True):
      found[f'{quality} drift, {name}'] = float(value)
    relative = relative_drift(series[:, :4], second)
    found[f'relative drift, {name}'] = float(relative.mean())
  slopes = slope_per_minute(looks, layout.fps)
  for quality, value in zip(COURSES, slopes, strict=True):
    found[f'{quality} slope'] = float(value)
  return found


def slope_per_minute(curves: np.ndarray, fps: float) -> np.ndarray:
  """Slope of the straight line through each curve [T, k], per minute, [k]."""
  minutes = np.arange(len(curves)) / fps / 60
  centred = minutes - minutes.mean()
  return centred @ curves / np.square(centred).sum()


def relative_drift(curves: np.ndarray, chunk: int) -> np.ndarray:
  """Mean over later chunks of |q_k - q_1| / q_1, q the mean of a chunk.

  The form of the drift error of long-video benchmarks, with equal weights.

  Args:
    curves: [T, k], not negative, in the order that is asked about.
    chunk: frames of a chunk; a remainder joins the last one.

  Returns:
    [k]; 0 where there is a single chunk.
  """
  count = max(1, len(curves) // chunk)
  starts = chunk * np.arange(count)
  sizes = np.diff([*starts, len(curves)])[:, None]
  means = np.add.reduceat(curves, starts, axis=0) / sizes
  if count == 1:
    return np.zeros(curves.shape[1])
  change = np.abs(means[1:] - means[0]).mean(axis=0)
  return change / np.maximum(means[0], _LEAST)


def column(clips: Sequence[Mapping[str, float]], name: str) -> list[float]:
  """The values of one metric, of the clips that have it."""
  return [clip[name] for clip in clips if name in clip]
