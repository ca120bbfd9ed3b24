"""`unitemp bench`: speed and memory, against baselines in the same run."""

import argparse
import dataclasses
from pathlib import Path

from unitemp_jax.bench import attention, runner
from unitemp_jax.bench.context import CallShape, Context
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.compile_cache import enable_compile_cache
from unitemp_jax.sampling import model_folder

_EXAMPLE = """benchmarks:
  long       memory and time per block of a long video, in both directions
  cache      cached rollout against computing the visible context again
  attention  sizes of blocks of the attention kernel; writes OUT/tiles.json

example:
  unitemp bench long --out=out/bench
  unitemp bench --blocks=200 --repeats=5 --out=out/bench
  unitemp bench attention --queries=4680 --keys=32760 --out=out/tiles
  UNITEMP_ATTENTION_TILES=out/tiles/tiles.json unitemp train ..."""

_CALL = ('queries', 'keys', 'heads', 'head_dim', 'frames')


def _parse_args(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='unitemp bench',
    description=f'{__doc__} Writes OUT/bench.json and OUT/bench.md.',
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('names', nargs='*', metavar='NAME', help='which; all by default')
  add('--out', required=True, type=Path, metavar='DIR')
  add('--model', type=Path, default=model_folder.TINY, metavar='DIR')
  add(
    '--repeats',
    type=int,
    default=5,
    help='how often everything is measured after warming up (5)',
  )
  add('--blocks', type=int, default=210, help='length of the long videos (210)')
  shape = parser.add_argument_group(
    'attention', 'a call, by default one that the device does in seconds'
  )
  for name in _CALL:
    shape.add_argument(f'--{name}', type=int, metavar='N')
  add('--dry_run', action='store_true', help='say what would be measured')
  return parser.parse_args(argv)


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code: 1 if a claim does not hold.

  Raises:
    UserError: bad arguments or a bad model; nothing is written then.
  """
  args = _parse_args(argv)
  names = list(dict.fromkeys(args.names)) or list(runner.BENCHMARKS)
  for name in names:
    if name not in runner.BENCHMARKS:
      raise UserError(
        f'there is no benchmark {name!r}; use some of '
        f'{", ".join(runner.BENCHMARKS)}.'
      )
  if args.repeats < 2:
    raise UserError(f'--repeats={args.repeats} is too few; use 2 or more.')
  call = _call(args)
  context = Context(args.model, args.repeats, args.blocks, call=call)
  model_folder.read_card(args.model)
  if args.dry_run:
    print(f'{", ".join(names)}, {args.repeats} repeats, to {args.out}')
    return 0
  enable_compile_cache()
  outcomes = runner.run(context, names, args.out)
  print((args.out / runner.TABLES).read_text())
  print(args.out)
  claims = [claim for one in outcomes.values() for claim in one.claims]
  return 0 if all(claim.holds for claim in claims) else 1


def _call(args: argparse.Namespace) -> CallShape | None:
  """The call of attention that was asked for, or None."""
  given = {name: getattr(args, name) for name in _CALL}
  given = {name: size for name, size in given.items() if size is not None}
  for name, size in given.items():
    if size < (name != 'frames'):
      raise UserError(f'--{name}={size} is too few; use 1 or more.')
  return dataclasses.replace(attention.FULL, **given) if given else None
