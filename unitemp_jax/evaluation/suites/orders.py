"""Suites `teacher` and `orders`: is the caption seen, does time run forward?"""

from __future__ import annotations

import numpy as np

from unitemp_jax import orders
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.suites.bench import TEACHER_STEPS, Bench, Section
from unitemp_jax.evaluation.suites.vae import READ, read_rows

TEACHER = f'teacher, {TEACHER_STEPS} steps'
_ARROW = (
  'share of clips that a classifier of real clips against reversed ones calls '
  'forward, joint decoding'
)
_PAIRED = 'percentage points, paired by caption'


def run_teacher(bench: Bench) -> list[Section]:
  """Reads what the teacher makes of the captions."""
  read = bench.read(bench.decode(bench.teacher))
  rows = read_rows(bench, TEACHER, read)
  return [Section('Teacher', tuple(rows))]


def run_orders(bench: Bench) -> list[Section]:
  """Reads every order beside real clips, the VAE and the teacher."""
  shown = {
    'real clips': lambda: bench.real,
    'VAE reconstruction': lambda: bench.reconstruction,
    TEACHER: lambda: bench.decode(bench.teacher),
  }
  read = {group: _classify(bench, video()) for group, video in shown.items()}
  for name in orders.ORDERS:
    read[name] = _classify(bench, bench.joint(name))
  rows = []
  for group, values in read.items():
    rows += _rows(bench, group, values)
  pairs = [(name, TEACHER) for name in orders.ORDERS]
  pairs.append(('backward', 'forward'))
  differences = []
  for one, other in pairs:
    differences += _differences(bench, read, one, other)
  return [
    Section('Orders', tuple(rows)),
    Section('Orders: differences in percentage points', tuple(differences)),
  ]


def _classify(bench, video) -> dict[str, np.ndarray]:
  return {
    **bench.read(video),
    'called forward': bench.arrow.read(video) > 0.5,
    'video': video,
  }


def _rows(bench, group, values) -> list:
  read = {key: values[key] for key in ('digit read', 'colour read')}
  return [
    *read_rows(bench, group, read),
    bench.share('called forward', group, values['called forward'], _ARROW),
    *bench.motion(group, values['video']),
  ]


def _differences(bench, read, one, other) -> list:
  rows = []
  for metric, how in (
    ('digit read', f'{READ}, joint decoding'),
    ('colour read', f'{READ}, joint decoding'),
    ('called forward', _ARROW),
  ):
    apart = bootstrap.paired_difference(read[one][metric], read[other][metric])
    name, group = f'{metric}, difference', f'{one} - {other}'
    rows.append(bench.row(name, group, apart, '%', f'{how}; {_PAIRED}'))
  return rows
