"""`unitemp evaluate verify`: would a benchmark find every clip, and whole?"""

import argparse
import collections
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips, set_prompts, store, verify
from unitemp_jax.evaluation_sets.suites import SUITES
from unitemp_jax.evaluation_sets.verify import Problem, Wanted

_EXAMPLE = """examples:
  unitemp evaluate verify DIR
  unitemp evaluate verify VIDEOS --suite=vbench \\
    --manifest=VBench_full_info.json --frames=81 --fps=16 --size=480x832
The second form checks a folder that any other system wrote."""
_SHOWN = 20  # problems of each kind, unless --all


def _parse_args(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='unitemp evaluate verify',
    description=f'{__doc__} Ends with code 1 if something is wrong.',
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('folder', type=Path, metavar='DIR')
  add('--suite', choices=SUITES, metavar='SUITE', help=', '.join(SUITES))
  add('--manifest', type=Path, metavar='FILE')
  add('--samples', type=int, help="per prompt; the suite's own by default")
  add('--frames', type=int)
  add('--fps', type=float)
  add('--size', metavar='HxW', help='pixels, such as 480x832')
  add('--all', action='store_true', help='list every problem')
  add(
    '--repair',
    action='store_true',
    help='forget bad clips, so that "generate" makes them again',
  )
  return parser.parse_args(argv)


def _foreign(args) -> tuple[int, list[Problem]]:
  """Checks a folder by the rules of a suite."""
  suite = SUITES[args.suite]
  if suite.given == 'image':
    raise UserError('use --suite=vbench: the names are the same.')
  caption = 'unknown' if suite.given == 'clip' else None
  prompts = set_prompts.find(args.suite, args.manifest, prompt=caption)
  listed = clips.list_clips(suite, prompts, ['.'], samples=args.samples)
  names = [f'{clip.path.removeprefix("./")}.mp4' for clip in listed]
  try:
    size = [int(side) for side in (args.size or '').split('x') if side]
    wanted = Wanted(args.frames, args.fps, *size)
  except (ValueError, TypeError) as error:
    raise UserError(f'--size={args.size} is not HxW, as 480x832.') from error
  return len(names), verify.verify_folder(args.folder, names, wanted)


def main(argv: list[str]) -> int:
  """Runs the action; returns 0 if all is well, 1 if not.

  Raises:
    UserError: bad arguments, or the folder is no set.
  """
  args = _parse_args(argv)
  if (args.suite is None) != (args.manifest is None):
    raise UserError('--suite and --manifest belong together.')
  if args.suite is None:
    wanted, problems = verify.verify_set(args.folder)
  elif args.repair:
    raise UserError('--repair works on sets that "generate" made only.')
  else:
    wanted, problems = _foreign(args)
  counts = collections.Counter(problem.kind for problem in problems)
  shown: collections.Counter = collections.Counter()
  for problem in problems:
    shown[problem.kind] += 1
    if args.all or shown[problem.kind] <= _SHOWN:
      print(f'{problem.kind}: {problem.file}: {problem.what}')
  for kind, number in counts.items():
    if number > _SHOWN and not args.all:
      print(f'{kind}: {number - _SHOWN} more; see --all')
  if args.repair:
    removed = verify.forget(store.Store(args.folder), problems)
    print(f'{removed} clips will be made again by "unitemp evaluate generate"')
  kinds = ', '.join(f'{number} {kind}' for kind, number in counts.items())
  print(f'{wanted} clips wanted: {kinds or "all there and whole"}')
  return 1 if problems else 0
