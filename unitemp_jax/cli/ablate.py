"""`unitemp ablate`: trains the arms of an ablation and measures its claims."""

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from unitemp_jax import files
from unitemp_jax.cli import encode, train
from unitemp_jax.cli.options import Parser, out_folder
from unitemp_jax.data import latents
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import ablation
from unitemp_jax.evaluation.suites.bench import Bench, Settings, resampled
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.sampling import model_folder
from unitemp_jax.training import workdir
from unitemp_jax.training.config import load_config

_EXAMPLE = """example:
  unitemp ablate --config=configs/ablations.py --out=runs/ablations
Each training is an ordinary `unitemp train`, which --dry_run prints; it may run
anywhere, on the same OUT. Run the same command again to continue: what is in
--results is neither trained nor measured again."""
_TABLE = 'README.md'
_KEYS = ('seeds', 'arms', 'stages', 'num_clips', 'size', 'measures', 'claims')


def _parser() -> Parser:
  parser = Parser('ablate', __doc__, _EXAMPLE)
  parser.share('config', 'out', 'model', 'dry_run')
  where = 'numbers per clip, one JSON file per measure and seed'
  default = Path('configs/ablations/results')
  parser.add('--results', where, out_folder, default, metavar='DIR')
  return parser


class _Stages(NamedTuple):
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
    return workdir.provenance(path).get('steps', 0) >= steps

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


def _prepare(stages: _Stages, arm: str) -> None:
  """Latents and a teacher to train on, both of the finished model."""
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
  encode.main([f'--config={config}', *stages.paths(arm)])
  # The teacher knows latents in the units of its own model.
  index = stages.latents(arm) / latents.INDEX
  known = {'latent_mean': card.vae.latent_mean}
  known['latent_std'] = card.vae.latent_std
  files.write_json(index, files.read_json(index) | known)


class _Students:
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


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  args, overrides = _parser().parse_with_overrides(argv)
  config = load_config(args.config, overrides).to_dict()
  lacks = [name for name in _KEYS if name not in config]
  if lacks:
    raise UserError(
      f'{args.config} is no config of ablations (it lacks {", ".join(lacks)}); '
      'use configs/ablations.py.'
    )
  file = args.config.partition(':')[0]
  stages = _Stages(
    file, config['size'], args.model, args.out, tuple(config['stages'])
  )
  settings = Settings(config['num_clips'], min(config['num_clips'], 32), 0)
  model = model_folder.fingerprint(args.model)
  students: _Students | None = None
  printed: dict[str, None] = {}
  for seed in config['seeds']:
    for name, (arm, stage, changes, shown) in config['measures'].items():
      needed = stages.until(stage) if arm else ()
      key = {
        'model': model,
        'num_clips': settings.num_clips,
        'changes': changes,
        'shown': list(shown),
        **{one: stages.fingerprint(one, arm, seed) for one in needed},
      }
      if (not arm and seed) or ablation.is_done(args.results, name, seed, key):
        continue
      todo = [one for one in needed if not stages.is_done(one, arm, seed)]
      if args.dry_run:
        words = [
          ['unitemp', 'train', *stages.command(s, arm, seed)] for s in todo
        ]
        printed |= dict.fromkeys(map(shlex.join, words))
        printed[f'measure {name}, seed {seed}'] = None
        continue
      if todo:
        _prepare(stages, arm)
      for one in todo:
        code = train.main(stages.command(one, arm, seed))
        if code or not stages.is_done(one, arm, seed):
          return code  # Stopped; it continues when it is run again.
      enable_compile_cache()
      students = students or _Students(args.model)
      path = stages.weights(stage, arm, seed) if arm else None
      if arm:
        changes = stages.drafts(stage, arm, seed) | changes
      bench = Bench(students.load(path, changes), settings)
      values = ablation.measure(bench, shown)
      path = ablation.path_of(args.results, name, seed)
      stored = {'key': key, 'values': values}
      print(files.write_json(path, stored, indent=None))
  if args.dry_run:
    print('\n'.join(printed))
    return 0
  numbers = ablation.read(args.results, config['measures'], config['seeds'])
  text = ablation.report(config['claims'], numbers)
  files.write_generated(args.results / _TABLE, text, 'unitemp ablate')
  print(args.results / _TABLE)
  return 0
