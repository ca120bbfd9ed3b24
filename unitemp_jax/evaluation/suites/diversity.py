"""Suite `diversity`: is every seven the same seven?"""

from __future__ import annotations

import numpy as np

from unitemp_jax.evaluation.metrics import bootstrap, diversity
from unitemp_jax.evaluation.suites.bench import Bench, Section
from unitemp_jax.evaluation.suites.orders import TEACHER

_HOW = (
  'distance of the handwriting in the last frame, cut out and centred, to that '
  'of the other clips of the same captioned digit, over the mean of the real '
  'clips'
)


def run(bench: Bench) -> list[Section]:
  """Compares real clips, the teacher and the student in both directions."""
  shown = {
    'real clips': bench.real,
    'VAE reconstruction': bench.reconstruction,
    TEACHER: bench.decode(bench.teacher),
    'forward': bench.joint('forward'),
    'backward': bench.joint('backward'),
  }
  digits = np.asarray(bench.clips['digit'])
  distances = {
    group: diversity.class_distances(bench.digits.glyphs(video[:, -1]), digits)
    for group, video in shown.items()
  }
  real = np.nanmean(distances['real clips'])
  rows = []
  for group, values in distances.items():
    spread = bootstrap.mean(values[np.isfinite(values)] / real)
    rows.append(bench.row('diversity of handwriting', group, spread, 'x', _HOW))
  return [Section('Diversity of handwriting', tuple(rows))]
