"""Suites `vae`, `teacher`, `orders` and `diversity`: what is seen of captions.

Is the caption read from the clip, does time run forward, how much moves, and is
every seven the same seven? Distribution matching may narrow what a student
makes: accuracy does not show it, the distance between clips of a class does.
"""

import numpy as np
from scipy.spatial.distance import cdist

from unitemp_jax import orders
from unitemp_jax.evaluation.metrics import temporal
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites import power
from unitemp_jax.evaluation.suites.bench import (
  REAL,
  RECONSTRUCTION,
  TEACHER,
  Bench,
  differences,
  motion,
  thirds,
)


def run_vae(bench: Bench) -> list[Section]:
  """Measures PSNR along the clip, and what the classifier still reads."""
  real, shown = bench.real, bench.reconstruction
  names = ('first third', 'middle third', 'last third')
  table = {'whole clip': {'VAE PSNR': temporal.psnr(shown, real)}}
  for name, part in zip(names, thirds(real.shape[1]), strict=True):
    table[name] = {'VAE PSNR': temporal.psnr(shown[:, part], real[:, part])}
  ends = table['last third']['VAE PSNR'], table['first third']['VAE PSNR']
  table['last third - first third'] = {'VAE PSNR': ends}
  read = {REAL: bench.read(real), RECONSTRUCTION: bench.read(shown)}
  return [
    bench.section('VAE: fidelity', table),
    bench.section('VAE: what the classifier reads', read),
  ]


def run_teacher(bench: Bench) -> list[Section]:
  """Reads what the teacher makes of the captions."""
  return [bench.section('Teacher', {TEACHER: bench.read(bench.teacher)})]


def run_orders(bench: Bench) -> list[Section]:
  """Reads every order beside real clips, the VAE and the teacher."""
  shown = {
    REAL: bench.real,
    RECONSTRUCTION: bench.reconstruction,
    TEACHER: bench.teacher,
    **{name: bench.joint(name) for name in orders.ORDERS},
  }
  read = {
    group: {
      **bench.read(video),
      'called forward': bench.arrow.read(video) > 0.5,
    }
    for group, video in shown.items()
  }
  table = {
    group: values
    | motion(shown[group], bench.real)
    | power.kept(bench, shown[group])
    for group, values in read.items()
  }
  pairs = [(name, TEACHER) for name in orders.ORDERS]
  apart = differences(read, [*pairs, ('backward', 'forward')])
  return [
    bench.section('Orders', table),
    bench.section('Orders: differences in percentage points', apart),
  ]


def class_distances(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Mean distance of every sample to the others of its class.

  Args:
    features: [n, D].
    classes: [n] labels.

  Returns:
    float [n], root mean square over D, averaged over the others; NaN for a
    sample that is alone in its class.
  """
  distance = cdist(features, features) / np.sqrt(features.shape[1])
  same = classes[:, None] == classes[None]
  np.fill_diagonal(same, val=False)
  count = same.sum(axis=1)
  total = (distance * same).sum(axis=1)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def run_diversity(bench: Bench) -> list[Section]:
  """Compares real clips, the teacher and the student in both directions."""
  shown = {
    REAL: bench.real,
    RECONSTRUCTION: bench.reconstruction,
    TEACHER: bench.teacher,
    'forward': bench.joint('forward'),
    'backward': bench.joint('backward'),
  }
  digits = np.asarray(bench.clips['digit'])
  distances = {
    group: class_distances(bench.digits.glyphs(video[:, -1]), digits)
    for group, video in shown.items()
  }
  real = np.nanmean(distances[REAL])
  table = {
    group: {'diversity of handwriting': values[np.isfinite(values)] / real}
    for group, values in distances.items()
  }
  return [bench.section('Diversity of handwriting', table)]
