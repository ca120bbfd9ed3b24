"""`unitemp evaluate generate`, `status` and `verify`: sets for benchmarks."""

import argparse
import collections
from pathlib import Path

from unitemp_jax import orders
from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import (
  clips,
  progress,
  store,
  suites,
  verify,
  work,
)
from unitemp_jax.evaluation_sets.suites import SUITES
from unitemp_jax.generate.clip_file import out_folder
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.processes import enable_compile_cache
from unitemp_jax.plans import decoding

_SHOWN = 20  # clips that a dry run lists
_EXAMPLE = f"""suites (name of a clip, samples per prompt):
{chr(10).join(f'  {name:12} {suite.about}' for name, suite in SUITES.items())}

examples:
  unitemp evaluate generate --suite=vbench --manifest=VBench_full_info.json \\
    --long_prompts=all_dimension_longer.txt --order=forward,backward --out=DIR
  unitemp evaluate generate --suite=inbetween --manifest=CLIPS/ \\
    --order=all --out=DIR --shard=0/4
  unitemp evaluate status DIR
  unitemp evaluate verify DIR
Run the same command again to continue after an interruption, on any number of
machines that share DIR: what is finished stays."""
_VERIFY = """examples:
  unitemp evaluate verify DIR
  unitemp evaluate verify VIDEOS --suite=vbench \\
    --manifest=VBench_full_info.json --frames=81 --fps=16 --size=480x832
The second form checks a folder that any other system wrote."""


def _generate_args(argv: list[str]) -> argparse.Namespace:
  parser = Parser(
    'evaluate generate', 'All clips that a benchmark asks for.', _EXAMPLE
  )
  add = parser.add
  add('--suite', required=True, choices=SUITES, metavar='SUITE')
  add(
    '--manifest',
    'prompts: .txt, .csv, .jsonl, .json of VBench, or a folder of .txt files '
    'named after dimensions; inbetween: a folder of real clips',
    Path,
    required=True,
    metavar='FILE',
  )
  add(
    '--long_prompts',
    'what the model is given instead: line n for prompt n',
    Path,
    metavar='FILE',
  )
  add('--images', 'i2v: the first frames', Path, metavar='DIR')
  add('--captions', 'inbetween: of the clips', Path, metavar='FILE')
  add('--prompt', 'inbetween: for clips without a caption')
  add('--order', 'names with commas, or "all"', default='forward')
  parser.share('out', type=str)
  parser.share('model', 'dry_run')
  add('--samples', "per prompt; the suite's own by default", at_least(1))
  add('--num_prompts', 'only so many of the first prompts', at_least(1))
  add('--seed', 'of the whole set', int, 0)
  add('--frames', "of a clip, 1 + 4k; the model's by default", int)
  add('--anchors', 'anchor latents; 0 for none', int)
  add('--start_level', 'see "unitemp plan"; 0 starts from noise', int)
  add('--window', 'most latents seen, for long clips', int)
  add(
    '--sinks',
    'ends that stay in view of a window',
    default='none',
    choices=orders.SINKS,
  )
  add('--decode', default='joint', choices=decoding.MODES)
  add('--batch_size', 'clips per batch', at_least(1), 8)
  add('--shard', 'make the i-th of n parts only', metavar='i/n')
  add('--hosts', 'processes that jax joins; each makes its part', int, 1)
  add('--coordinator', 'of the first host', metavar='ADDRESS:PORT')
  add('--host_index', 'of this host, from 0', int)
  return parser.parse_args(argv)


def _work(args: argparse.Namespace) -> work.Work:
  return work.plan_work(
    args.model,
    args.suite,
    suites.find(
      args.suite,
      args.manifest,
      long_prompts=args.long_prompts,
      images=args.images,
      captions=args.captions,
      prompt=args.prompt,
    )[: args.num_prompts],
    work.order_names(args.order, SUITES[args.suite].given),
    seed=args.seed,
    samples=args.samples,
    frames=args.frames,
    anchors=args.anchors,
    start=args.start_level,
    window=args.window,
    sinks=args.sinks,
    decode=args.decode,
  )


def generate(argv: list[str]) -> int:
  """Runs the action and returns its exit code.

  Raises:
    UserError: bad arguments, prompts or names (nothing is written then), or a
      full disk (what is finished stays).
  """
  args = _generate_args(argv)
  shard = None if args.shard is None else clips.parse_shard(args.shard)
  if shard is not None and args.hosts != 1:
    raise UserError('--hosts makes the parts; leave out --shard.')
  args.out = out_folder(args.out)
  processes.join(args.hosts, args.coordinator, args.host_index)
  todo = _work(args)
  print(
    f'{todo.settings["prompts"]} prompts, {len(todo.clips)} clips of '
    f'{todo.settings["frames"]} frames, to {args.out}'
  )
  if args.decode == 'lag':
    for note in decoding.lag_notes(todo.order_of):
      print(note)
  for remarks in list(todo.remarks.values())[:_SHOWN]:
    print('\n'.join(f'note: {remark}' for remark in remarks))
  if len(todo.remarks) > _SHOWN:
    print(f'note: ... and {len(todo.remarks) - _SHOWN} more prompts')
  if args.dry_run:
    for clip in todo.clips[:_SHOWN]:
      print(f'  {clip.path}.mp4  seed {clip.seed}  {clip.prompt.text}')
    if len(todo.clips) > _SHOWN:
      print(f'  ... and {len(todo.clips) - _SHOWN} more')
    return 0
  enable_compile_cache()
  made, there = work.run_work(todo, args.out, shard, args.batch_size)
  print(f'made {made}, {there} were there')
  print(args.out)
  return 0


def status(argv: list[str]) -> int:
  """What of a set is there; returns 0 if it is complete, 1 if not.

  Raises:
    UserError: the folder is no set.
  """
  example = 'example: unitemp evaluate status DIR'
  parser = Parser('evaluate status', 'What of a set is there.', example)
  parser.add_argument('folder', type=Path, metavar='DIR')
  seen = progress.read_status(parser.parse_args(argv).folder)
  print(progress.to_text(seen))
  return 1 if seen.missing else 0


def _verify_args(argv: list[str]) -> argparse.Namespace:
  parser = Parser(
    'evaluate verify',
    'Would a benchmark find every clip, and whole? Ends with code 1 if not.',
    _VERIFY,
  )
  add = parser.add
  parser.add_argument('folder', type=Path, metavar='DIR')
  add('--suite', ', '.join(SUITES), choices=SUITES, metavar='SUITE')
  add('--manifest', kind=Path, metavar='FILE')
  add('--samples', "per prompt; the suite's own by default", at_least(1))
  add('--frames', kind=int)
  add('--fps', kind=float)
  add('--size', 'pixels, such as 480x832', metavar='HxW')
  add('--all', 'list every problem', bool)
  add('--repair', 'forget bad clips, so that "generate" makes them again', bool)
  return parser.parse_args(argv)


def _foreign(args) -> tuple[int, list[verify.Problem]]:
  """Checks a folder by the rules of a suite."""
  suite = SUITES[args.suite]
  if suite.given == 'image':
    raise UserError('use --suite=vbench: the names are the same.')
  caption = 'unknown' if suite.given == 'clip' else None
  prompts = suites.find(args.suite, args.manifest, prompt=caption)
  listed = clips.list_clips(suite, prompts, ['.'], samples=args.samples)
  names = [f'{clip.path.removeprefix("./")}.mp4' for clip in listed]
  try:
    size = [int(side) for side in (args.size or '').split('x') if side]
    wanted = verify.Wanted(args.frames, args.fps, *size)
  except (ValueError, TypeError) as error:
    raise UserError(f'--size={args.size} is not HxW, as 480x832.') from error
  return len(names), verify.verify_folder(args.folder, names, wanted)


def check(argv: list[str]) -> int:
  """Runs the action; returns 0 if all is well, 1 if not.

  Raises:
    UserError: bad arguments, or the folder is no set.
  """
  args = _verify_args(argv)
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
