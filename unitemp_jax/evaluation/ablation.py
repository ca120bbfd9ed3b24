"""Numbers of an ablation: per clip, arm and seed, and what they come to.

An arm's numbers are a JSON file of values per clip, so that a table can be made
of whatever is finished, wherever it was trained, by a bootstrap over seeds and
clips.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from unitemp_jax import files
from unitemp_jax.data import latents, typed_json
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, flicker, registry, results
from unitemp_jax.evaluation.suites import power
from unitemp_jax.evaluation.suites.bench import REAL, Bench, motion, resampled
from unitemp_jax.evaluation.suites.flicker import SWAPPED, swap_block
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.plans.decoding import MODES, describe_blocks
from unitemp_jax.sampling import model_folder
from unitemp_jax.training import workdir
from unitemp_jax.training.config import load_config
from unitemp_jax.video.frames import frame_steps

# What the first tables show, in an order that their definitions need.
_FIRST = (
  *('BFR at 20, stream', 'BFR at 20, joint'),
  *('motion to real', 'motion of the last third'),
  *('digit read', 'log-probability', 'sharpness'),
)
# Measure -> seed -> what is shown -> metric -> values per clip.
Numbers = dict[str, dict[int, dict[str, dict[str, list[float]]]]]


class Stages(NamedTuple):
  """The trainings of an ablation: what they are called with."""

  file: str
  size: str
  model: Path
  out: Path
  names: tuple[str, ...]

  def latents(self, arm: str) -> Path:
    """Where the latents of an arm are; their windows hold P latents."""
    anchors = load_config(self.config(self.names[0], arm, 0)).orders.anchors
    return self.out / f'latents_p{anchors}'

  def paths(self, arm: str) -> list[str]:
    """Overrides of what all trainings share."""
    return [
      f'--config.data.dir={self.out / "data"}',
      f'--config.latents.dir={self.latents(arm)}',
      f'--config.latents.vae={self.model / "vae.safetensors"}',
      f'--config.latents.tokenizer={self.model / "tokenizer.json"}',
      f'--config.teacher={self.out / "teacher.safetensors"}',
    ]

  def config(self, stage: str, arm: str, seed: int) -> str:
    """The config of one training, for --config."""
    words = [stage, arm, str(seed), *([self.size] if self.size else [])]
    return f'{self.file}:{",".join(words)}'

  def weights(self, stage: str, arm: str, seed: int) -> Path:
    """What a training ends with."""
    folder = self.out / f'{arm}-{seed}' / stage
    return folder / 'weights' / 'student.safetensors'

  def is_done(self, stage: str, arm: str, seed: int) -> bool:
    """Whether a training came to its end."""
    path = self.weights(stage, arm, seed)
    if not path.exists():
      return False
    steps = load_config(self.config(stage, arm, seed)).num_steps
    done = workdir.provenance(path).get('steps')
    return isinstance(done, int) and done >= steps

  def command(self, stage: str, arm: str, seed: int) -> list[str]:
    """Arguments of `unitemp train`."""
    own = [f'--config={self.config(stage, arm, seed)}']
    own.append(f'--workdir={self.weights(stage, arm, seed).parents[1]}')
    if stage != self.names[0]:
      before = self.names[self.names.index(stage) - 1]
      first = self.weights(before, arm, seed)
      own.append(f'--config.student_init={first}')
    return own + self.paths(arm)

  def drafts(self, stage: str, arm: str, seed: int) -> dict:
    """How blocks start from carried anchors, as the student was trained."""
    orders = load_config(self.config(stage, arm, seed)).orders
    return {'start': orders.start, 'draft_sigma': orders.draft_sigma}

  def fingerprint(self, stage: str, arm: str, seed: int) -> str:
    """A hash of what a training depends on."""
    config = load_config(self.config(stage, arm, seed))
    return workdir.fingerprint(json.loads(json.dumps(config.to_dict())))

  def until(self, stage: str) -> tuple[str, ...]:
    """The trainings up to one."""
    return self.names[: self.names.index(stage) + 1]


def prepare(
  stages: Stages, arm: str, encode: Callable[[list[str]], Any]
) -> None:
  """Latents and a teacher to train on, both of the finished model.

  `encode` is `unitemp encode`, of its arguments.
  """
  card = model_folder.read_card(stages.model)
  shapes = model_folder.param_shapes(card)
  shapes = {'dit': shapes['teacher'], 'text': shapes['text']}
  trees = {
    part: weights.load(stages.model / f'{name}.safetensors', shapes[part])
    for part, name in (('dit', 'teacher'), ('text', 'text'))
  }
  path = stages.out / 'teacher.safetensors'
  if not os.path.lexists(path):
    weights.save(path, trees)
  kept = weights.load(path, shapes)
  if not jax.tree.all(jax.tree.map(np.array_equal, kept, trees)):
    raise UserError(
      f'{path} is not the teacher of {stages.model}; choose another --out, or '
      'move it away.'
    )
  config = stages.config(stages.names[0], arm, 0)
  encode([f'--config={config}', *stages.paths(arm)])
  # The teacher knows latents in the units of its own model.
  index = stages.latents(arm) / latents.INDEX
  known = {'latent_mean': card.vae.latent_mean}
  known['latent_std'] = card.vae.latent_std
  files.write_json(index, files.read_json(index) | known)


class Students:
  """Students of arms; those that are sampled alike share one compilation."""

  def __init__(self, model: Path):
    self._model = Pipeline.load(model)
    self._alike: dict[str, Pipeline] = {}

  def load(self, path: Path | None, changes: dict) -> Pipeline:
    """The model with other weights, sampled as a row of the config says."""
    key = json.dumps(changes, sort_keys=True)
    if key not in self._alike:
      self._alike[key] = resampled(self._model, **changes)
    if path is None:
      return self._alike[key]
    shapes = model_folder.inference_shapes(self._model.card)['student']
    return self._alike[key].replaced(student=weights.load(path, shapes))


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


@dataclasses.dataclass(frozen=True)
class _Stored:
  values: dict[str, dict[str, list[float]]]


def read(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> Numbers:
  """All numbers that are there."""
  found: Numbers = collections.defaultdict(dict)
  for name in names:
    for seed in seeds:
      path = path_of(folder, name, seed)
      if path.exists():
        stored = typed_json.read(
          path, _Stored, 'numbers of an ablation', 'delete it'
        )
        found[name][seed] = stored.values
  return found


def report(
  claims: Mapping[str, Sequence[str]],
  measures: Mapping[str, Sequence[Any]],
  numbers: Numbers,
) -> str:
  """Markdown of every claim whose measures are there.

  Args:
    claims: title -> measure, what it shows, another measure, what that shows.
    measures: measure -> the arm that was trained, and more.
    numbers: of `read`.
  """
  rows: dict[bool, list[results.Result]] = {True: [], False: []}
  left = []
  for title, (one, shown, other, beside) in claims.items():
    arms = [
      {
        seed: own[what]
        for seed, own in numbers.get(name, {}).items()
        if what in own
      }
      for name, what in ((one, shown), (other, beside))
    ]
    # Both of one training: seed by seed.
    paired = all(arms) and measures[one][0] == measures[other][0]
    if paired:
      arms = [
        {seed: arm[seed] for seed in sorted(arms[0].keys() & arms[1].keys())}
        for arm in arms
      ]
    if not all(arms):
      left.append(f'- {title}: *not run*.')
      continue
    seeds = ' and '.join(map(str, sorted({len(arm) for arm in arms})))
    several = '' if seeds == '1' else 's'
    first, second = (list(arm.values()) for arm in arms)
    for metric in first[0]:
      if not all(metric in own for own in first + second):
        continue
      if len({len(own[metric]) for own in first + second}) > 1:
        raise UserError(
          f'{one} and {other} were measured with different numbers of clips; '
          'delete the numbers of one of them.'
        )
      values = (
        np.array([own[metric] for own in arm]) for arm in (first, second)
      )
      about = registry.find(metric)
      apart = bootstrap.over_seeds(*values, paired=paired)
      how = about.how.removesuffix('; geometric mean')
      how += '; difference of means over seeds and clips'
      group = f'{title} ({seeds} seed{several})'
      row = results.result(metric, group, apart, unit=about.unit, how=how)
      rows[metric in _FIRST].append(row)
  rows[True].sort(key=lambda row: _FIRST.index(row.metric))
  sections = [
    results.Section(name, tuple(rows[first]))
    for name, first in (('Claims', True), ('All other measures', False))
    if rows[first]
  ]
  parts = ['# Ablations\n', *left]
  if sections:
    parts += [''] * bool(left)
    parts.append(results.to_markdown(sections))
  return '\n'.join(parts)
