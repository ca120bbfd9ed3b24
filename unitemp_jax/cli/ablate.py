"""`unitemp ablate`: trains the arms of an ablation and measures its claims."""

import shlex
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.cli import encode, train
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import ablation
from unitemp_jax.evaluation.suites.bench import Bench, Settings
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config

_EXAMPLE = """example:
  unitemp ablate --config=configs/ablations.py --out=runs/ablations
Each training is an ordinary `unitemp train`, which --dry_run prints; it may run
anywhere, on the same OUT. Run the same command again to continue: what is in
--results is neither trained nor measured again."""
_TABLE = 'README.md'
_KEYS = ('seeds', 'arms', 'stages', 'num_clips', 'size', 'measures', 'claims')


_OPTIONS = """
@config @out @model @dry_run
--results OUT=configs/ablations/results
  numbers per clip, one JSON file per measure and seed
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('ablate', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  config = load_config(args.config, overrides).to_dict()
  lacks = [name for name in _KEYS if name not in config]
  if lacks:
    raise UserError(
      f'{args.config} is no config of ablations (it lacks {", ".join(lacks)}); '
      'use configs/ablations.py.'
    )
  files.check_generated(args.results / _TABLE, 'unitemp ablate')
  file = args.config.partition(':')[0]
  stages = ablation.Stages(
    file, config['size'], args.model, args.out, tuple(config['stages'])
  )
  settings = Settings(config['num_clips'], min(config['num_clips'], 32), 0)
  model = model_folder.fingerprint(args.model)
  students: ablation.Students | None = None
  printed: dict[str, None] = {}
  for seed in config['seeds']:
    # What is trained is measured before the next arm is trained.
    rows = sorted(config['measures'].items(), key=lambda row: row[1][0])
    for name, (arm, stage, changes, shown) in rows:
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
        ablation.prepare(stages, arm, encode.main)
      for one in todo:
        code = train.main(stages.command(one, arm, seed))
        if code or not stages.is_done(one, arm, seed):
          return code  # Stopped; it continues when it is run again.
      enable_compile_cache()
      students = students or ablation.Students(args.model)
      path = stages.weights(stage, arm, seed) if arm else None
      if arm:
        changes = stages.drafts(stage, arm, seed) | changes
      bench = Bench(students.load(path, changes), settings)
      values = ablation.measure(bench, shown)
      path = ablation.path_of(args.results, name, seed)
      stored = {'key': key, 'values': values}
      print(files.write_json(path, stored, indent=None))
      _write_table(args.results, config)
  if args.dry_run:
    print('\n'.join(printed))
    return 0
  print(_write_table(args.results, config))
  return 0


def _write_table(results: Path, config: dict[str, Any]) -> Path:
  """Writes what is known of the claims so far."""
  numbers = ablation.read(results, config['measures'], config['seeds'])
  text = ablation.report(config['claims'], config['measures'], numbers)
  files.write_generated(results / _TABLE, text, 'unitemp ablate')
  return results / _TABLE
