"""`unitemp evaluate`: every number that is claimed for a model."""

import argparse
import importlib
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import readme
from unitemp_jax.evaluation.suites import runner
from unitemp_jax.evaluation.suites.bench import Settings
from unitemp_jax.parallel.processes import enable_compile_cache
from unitemp_jax.sampling import model_folder

# First word -> module and function(argv: list[str]) -> int; without one of
# these words, a model is measured.
ACTIONS = {
  'generate': ('unitemp_jax.cli.evaluate_set', 'generate'),
  'status': ('unitemp_jax.cli.evaluate_set', 'status'),
  'verify': ('unitemp_jax.cli.evaluate_set', 'check'),
  'folder': ('unitemp_jax.cli.evaluate_folder', 'main'),
}

_COMMAND = 'unitemp evaluate'

_SUITES = '\n'.join(
  f'  {name:<12} {suite.about}' for name, suite in runner.SUITES.items()
)
_EXAMPLE = f"""suites:
{_SUITES}

example:
  unitemp evaluate --out=out/evaluation
  unitemp evaluate --only=vae,teacher --num_clips=64 --out=out/quick
Run the same command again to continue after an interruption: finished suites
are kept in OUT/SUITE.json.

other actions, each with --help:
  unitemp evaluate generate  the clips that a benchmark asks for, in bulk
  unitemp evaluate status    what of them is there, and the time left
  unitemp evaluate verify    would the benchmark find every clip, and whole
  unitemp evaluate folder    measure the clips of any system"""


def _parse_args(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='unitemp evaluate',
    description=f'{__doc__} Writes OUT/metrics.json and OUT/metrics.md.',
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--out', required=True, type=Path, metavar='DIR')
  add('--model', type=Path, default=model_folder.TINY, metavar='DIR')
  add(
    '--num_clips',
    type=int,
    default=256,
    help='held-out captions per order (256)',
  )
  add('--batch_size', type=int, default=32, help='clips per batch (32)')
  add('--seed', type=int, default=0, help='of the generated clips (0)')
  add(
    '--only',
    default=','.join(runner.SUITES),
    metavar='SUITE,...',
    help='suites with commas; all by default',
  )
  add(
    '--markdown',
    type=Path,
    metavar='FILE',
    help='also write the tables to this Markdown file',
  )
  add(
    '--readme',
    type=Path,
    metavar='FILE',
    help='also put them between two marks of a file that you write',
  )
  add('--marks', default='metrics', help='name in these marks (metrics)')
  add('--dry_run', action='store_true', help='say what would be measured')
  return parser.parse_args(argv)


def _suites(text: str) -> list[str]:
  names = [runner.current_name(name) for name in text.split(',')]
  for name in names:
    if name not in runner.SUITES:
      raise UserError(
        f'--only names {name!r}; use some of {", ".join(runner.SUITES)}.'
      )
  return list(dict.fromkeys(names))


def _settings(args) -> Settings:
  if args.num_clips < 2:
    raise UserError(
      f'--num_clips={args.num_clips} is too few: a control swaps blocks '
      'between clips; use 2 or more.'
    )
  if args.batch_size < 1 or args.seed < 0:
    raise UserError('--batch_size must be at least 1 and --seed at least 0.')
  return Settings(args.num_clips, args.batch_size, args.seed)


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, a bad model, or an `--out` that holds the numbers
      of another one; nothing is written then.
  """
  if argv and argv[0] in ACTIONS:
    module, function = ACTIONS[argv[0]]
    return getattr(importlib.import_module(module), function)(argv[1:])
  args = _parse_args(argv)
  names, settings = _suites(args.only), _settings(args)
  if args.markdown is not None:
    files.check_generated(args.markdown, _COMMAND)
  if args.readme is not None:
    readme.split(args.readme, args.marks)
  done = runner.finished(args.out, runner.make_key(args.model, settings))
  if args.dry_run:
    for name in names:
      state = 'there already' if name in done else 'to be measured'
      print(f'  {name}: {state}')
    print(f'{settings.num_clips} held-out clips, to {args.out}')
    return 0
  enable_compile_cache()
  runner.run(args.model, args.out, names, settings)
  tables = (args.out / runner.TABLES).read_text()
  if args.markdown is not None:
    files.write_generated(args.markdown, f'# Results\n\n{tables}', _COMMAND)
  if args.readme is not None:
    readme.insert(args.readme, tables, args.marks)
  print(tables)
  print(args.out)
  return 0
