"""Numbers of an ablation: per clip, arm and seed, and what they come to.

An arm's numbers are a JSON file of values per clip, so that a table can be made
of whatever is finished, wherever it was trained, by a bootstrap over seeds and
clips.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import (
  bootstrap,
  flicker,
  registry,
  results,
)
from unitemp_jax.evaluation.suites import power
from unitemp_jax.evaluation.suites.bench import REAL, Bench, motion
from unitemp_jax.evaluation.suites.flicker import SWAPPED, swap_block
from unitemp_jax.plans.decoding import MODES, describe_blocks
from unitemp_jax.video.frames import frame_steps

# Measure -> seed -> what is shown -> metric -> values per clip.
Numbers = dict[str, dict[int, dict[str, dict[str, list[float]]]]]


def measure(bench: Bench, shown: Sequence[str]) -> dict[str, dict[str, list]]:
  """Values per clip of plans, and of what stands beside them, by name.

  Args:
    bench: with the student.
    shown: names of `Bench.plans`, or 'real clips', 'swapped block' and
      'teacher, N steps'.
  """
  found = {}
  for name in shown:
    own: dict[str, Any] = {}
    modes = MODES if name.startswith('backward') else ('joint',)
    for mode in modes:
      video = _video(bench, name, mode)
      if mode == 'joint':
        own |= bench.read(video) | motion(video, bench.real)
        own |= power.candidates(bench, video, bench.clips)
      steps = frame_steps(video)
      for at in describe_blocks(bench.plans['forward'])['boundary_frames']:
        ratio = flicker.boundary_flicker_ratio(steps, [at])
        own[f'BFR at {at}, {mode}'] = ratio
    found[name] = {
      metric: np.round(np.asarray(values, float), 5).tolist()
      for metric, values in own.items()
    }
  return found


def _video(bench: Bench, name: str, mode: str) -> np.ndarray:
  if name == REAL:
    return bench.real
  if name == SWAPPED:
    swapped = swap_block(bench.latents, 1, block=bench.card.block)
    return bench.decode(swapped)
  if name.startswith('teacher, '):
    return bench.decode(bench.sample_teacher(int(name.split()[1])))
  return bench.made(name).decoded(bench.decode, mode)


def path_of(folder: Path, name: str, seed: int) -> Path:
  """The file of one measure and seed."""
  return folder / f'{name}-{seed}.json'


def is_done(folder: Path, name: str, seed: int, key: dict[str, Any]) -> bool:
  """Whether a measure is there.

  UserError if it was made by another model, config or number of clips.
  """
  path = path_of(folder, name, seed)
  if not path.exists():
    return False
  stored = files.read_json(path, 'numbers of an ablation', 'delete it')
  if stored.get('key') != key:
    raise UserError(
      f'{path} was measured with another model, config or number of clips; '
      'choose another --results or delete it.'
    )
  return True


def read(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> Numbers:
  """All numbers that are there."""
  found: Numbers = collections.defaultdict(dict)
  for name in names:
    for seed in seeds:
      path = path_of(folder, name, seed)
      if path.exists():
        found[name][seed] = files.read_json(path)['values']
  return found


def report(claims: Mapping[str, Sequence[str]], numbers: Numbers) -> str:
  """Markdown of every claim whose measures are there.

  Args:
    claims: title -> measure, what it shows, another measure, what that shows.
    numbers: of `read`.
  """
  rows, left = [], []
  for title, (one, shown, other, beside) in claims.items():
    arms = [
      [own[what] for own in numbers.get(name, {}).values() if what in own]
      for name, what in ((one, shown), (other, beside))
    ]
    if not all(arms):
      left.append(f'- {title}: *not run*.')
      continue
    seeds = ' and '.join(str(len(arm)) for arm in arms)
    for metric in arms[0][0]:
      if metric not in arms[1][0]:
        continue
      values = [np.array([own[metric] for own in arm]) for arm in arms]
      about = registry.find(metric)
      apart = bootstrap.over_seeds(*values)
      how = f'{about.how}; difference, over {seeds} seeds and clips'
      rows.append(
        results.result(metric, title, apart, unit=about.unit, how=how)
      )
  parts = ['# Ablations\n', *left]
  if rows:
    parts.append(results.to_markdown([results.Section('Claims', tuple(rows))]))
  return '\n'.join(parts)
