"""`unitemp evaluate`: every number that is claimed for a model."""

import importlib
import textwrap
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.metrics import METRICS
from unitemp_jax.evaluation.metrics import readme
from unitemp_jax.evaluation.suites import runner
from unitemp_jax.evaluation.suites.bench import Settings
from unitemp_jax.parallel.processes import enable_compile_cache

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
_METRICS = textwrap.fill(
  '; '.join(METRICS), 78, initial_indent='  ', subsequent_indent='  '
)
_EXAMPLE = f"""suites:
{_SUITES}

metrics of each clip in "unitemp evaluate folder":
{_METRICS}

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


def _parser() -> Parser:
  about = f'{__doc__} Writes OUT/metrics.json and OUT/metrics.md.'
  parser = Parser('evaluate', about, _EXAMPLE)
  parser.share('out', 'model')
  add = parser.add
  # A control swaps blocks between clips.
  add('--num_clips', 'held-out captions per order', at_least(2), 256)
  add('--batch_size', 'clips per batch', at_least(1), 32)
  add('--seed', 'of the generated clips', at_least(0), 0)
  only = 'suites with commas; all by default'
  parser.add_argument(
    '--only', default=','.join(runner.SUITES), metavar='SUITE,...', help=only
  )
  page = 'also write the tables to this Markdown file'
  add('--markdown', page, Path, metavar='FILE')
  within = 'also put them between two marks of a file that you write'
  add('--readme', within, Path, metavar='FILE')
  add('--marks', 'name in these marks', default='metrics')
  parser.share('dry_run')
  return parser


def _suites(text: str) -> list[str]:
  names = [runner.current_name(name) for name in text.split(',')]
  for name in names:
    if name not in runner.SUITES:
      raise UserError(
        f'--only names {name!r}; use some of {", ".join(runner.SUITES)}.'
      )
  return list(dict.fromkeys(names))


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, a bad model, or an `--out` that holds the numbers
      of another one; nothing is written then.
  """
  if argv and argv[0] in ACTIONS:
    module, function = ACTIONS[argv[0]]
    return getattr(importlib.import_module(module), function)(argv[1:])
  args = _parser().parse_args(argv)
  names = _suites(args.only)
  settings = Settings(args.num_clips, args.batch_size, args.seed)
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
