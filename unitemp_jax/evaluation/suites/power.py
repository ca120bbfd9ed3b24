"""Suite `power`: which measure can tell a good model from a worse one?

Each candidate is asked to tell pairs that do differ (more sampling steps from
fewer, true latents from noised ones), and pairs that do not (real clips from
other real clips, the student from itself with other noise). One that tells the
first kind and not the second has power; the suite `orders` uses those.
"""

import dataclasses
import functools

import numpy as np

from unitemp_jax.data.falling_digits import sample_states
from unitemp_jax.evaluation.metrics import bootstrap, curves, falls
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.evaluation.suites.bench import (
  REAL,
  RECONSTRUCTION,
  TEACHER,
  Bench,
  Values,
  clip_spec,
  differences,
  resampled,
)

OTHER_REAL = 'other real clips'
STUDENT, RESEEDED = 'student, forward', 'student, other seeds'
INITIAL = 'initialisation'
_FEW = 2  # steps of a teacher that must be told
_PASSES = (2, 1)
_NOISE = 0.1  # added to true latents, of their spread
_LAWFUL = 4000
# Those of results_power.md that tell the teacher at 50 steps from 2 and the
# student at 4 passes from 1, in one direction, and no pair that is alike.
KEPT = (
  *('log-probability', 'sharpness', 'clipped', 'feature change'),
  'sideways from law',
)

# Pairs that differ, and pairs that do not.
DIFFERENT = (
  (TEACHER, f'teacher, {_FEW} steps'),
  (STUDENT, 'student, 2 passes'),
  (STUDENT, 'student, 1 pass'),
  (STUDENT, INITIAL),
  (RECONSTRUCTION, 'noised latents'),
)
ALIKE = ((REAL, OTHER_REAL), (STUDENT, RESEEDED))


def run(bench: Bench) -> list[Section]:
  """Measures every candidate on every arm, and what tells the pairs apart."""
  table = {
    group: candidates(bench, *clips) for group, clips in _arms(bench).items()
  }
  pairs = [p for p in (*DIFFERENT, *ALIKE) if set(p) <= set(table)]
  apart = differences(table, pairs)
  return [
    bench.section('Power: candidates', table, 'power'),
    bench.section('Power: differences of pairs', apart, 'power'),
    bench.section('Power: who tells whom', _power(table, pairs), 'power'),
  ]


def _power(table, pairs) -> dict[str, Values]:
  """Differences in standard errors, and whether a candidate has power."""
  found = {}
  for metric in table[REAL]:
    told, scores = [], {}
    for one, other in pairs:
      first, second = table[one][metric], table[other][metric]
      apart = np.asarray(first, float) - second
      error = max(apart.std(ddof=1) / np.sqrt(len(apart)), 1e-12)
      score = float(apart.mean() / error)
      kind = 'alike' if (one, other) in ALIKE else 'z of'
      scores[f'{kind}: {one} - {other}'] = bootstrap.exact(score, len(apart))
      interval = bootstrap.paired('mean', first, second)
      seen = not interval.low <= 0 <= interval.high
      told.append(seen != ((one, other) in ALIKE))
    scores['right'] = bootstrap.exact(float(np.mean(told)), len(pairs))
    found[metric] = scores
  return found


def _arms(bench: Bench) -> dict[str, tuple[np.ndarray, dict]]:
  """Clips `[n, T, H, W, 3]` and what they should show, by name."""
  count = bench.settings.num_clips
  others = bench.scene('fall', bench.card.frames, first=count)
  noise = np.random.default_rng(bench.settings.seed).normal
  level = _NOISE * bench.latents.std()
  noised = bench.latents + level * noise(size=bench.latents.shape)
  reseeded = dataclasses.replace(
    bench.settings, seed=bench.settings.seed + 50_000
  )
  made = {
    REAL: bench.real,
    RECONSTRUCTION: bench.reconstruction,
    'noised latents': bench.decode(noised.astype(np.float32)),
    STUDENT: bench.joint('forward'),
    RESEEDED: Bench(bench.pipeline, reseeded).joint('forward'),
  }
  for passes in _PASSES:
    fewer = resampled(bench.pipeline, passes)
    name = f'student, {passes} pass' + ('es' if passes > 1 else '')
    made[name] = Bench(fewer, bench.settings).joint('forward')
  if bench.initial is not None:
    first = Bench(bench.initial, bench.settings)
    made[INITIAL] = first.joint('forward')
  if 'teacher' in bench.pipeline.params:
    made[TEACHER] = bench.teacher
    few = bench.sample_teacher(_FEW)
    made[f'teacher, {_FEW} steps'] = bench.decode(few)
  arms = {name: (video, bench.clips) for name, video in made.items()}
  return {**arms, OTHER_REAL: (others['video'], others)}


@functools.cache
def _lawful(spec) -> np.ndarray:
  """Paths of falls of the training split, downwards, `[4000, T]`."""
  train = dataclasses.replace(spec, split='train')
  return sample_states(train, range(_LAWFUL))['position'][..., 0]


def candidates(bench: Bench, video: np.ndarray, clips: dict) -> Values:
  """Every candidate, [n] each, of clips that should show `clips`."""
  size = video.shape[2]
  path = falls.paths(video)
  lawful = _lawful(clip_spec(bench.card, video.shape[1]))
  glyphs = _over_time(bench.digits.glyphs, video)
  features = _over_time(bench.digits.features, video)
  own = np.arange(len(video))
  _, _, log_prob = bench.digits.read(video)
  looks = np.stack([curves.measure(c).looks.mean(axis=0) for c in video])
  return {
    'path from law': falls.distance_from_law(path[..., 0], lawful),
    'sideways from law': _sideways(path[..., 1]),
    **falls.events(path[..., 0], size),
    'shape change': _change(glyphs),
    'feature change': _change(features),
    'log-probability': log_prob[own, np.asarray(clips['digit'])],
    **{
      name: looks[:, column]
      for column, name in enumerate(curves.QUALITIES)
      if name in ('contrast', 'sharpness', 'clipped')
    },
  }


def kept(bench: Bench, video: np.ndarray) -> Values:
  """The candidates that have power, of clips of the bench's captions."""
  values = candidates(bench, video, bench.clips)
  return {name: values[name] for name in KEPT}


def _over_time(read, video: np.ndarray) -> np.ndarray:
  """What is read from each frame, [n, T, D]."""
  flat = read(video.reshape(-1, *video.shape[2:]))
  return flat.reshape(*video.shape[:2], -1)


def _change(series: np.ndarray) -> np.ndarray:
  """Mean change from frame to frame, in units of the usual size, [n]."""
  change = np.sqrt(np.square(np.diff(series, axis=1)).mean(axis=2))
  return change.mean(axis=1) / np.sqrt(np.square(series).mean(axis=(1, 2)))


def _sideways(x: np.ndarray) -> np.ndarray:
  """Distance in pixels from a drift that friction stops, [n]."""
  time = np.arange(x.shape[1])
  basis = np.stack([np.ones(len(time)), np.exp(-time / 16.0)], axis=1)
  fitted = x @ basis @ np.linalg.pinv(basis)
  return np.sqrt(np.square(x - fitted).mean(axis=1))
