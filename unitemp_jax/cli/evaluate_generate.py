"""`unitemp evaluate generate`: all clips that a benchmark asks for."""

import argparse
from pathlib import Path

from unitemp_jax import orders
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips, generation, set_prompts
from unitemp_jax.evaluation_sets.suites import SUITES
from unitemp_jax.evaluation_sets.work import Work, plan_work, run_work
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.processes import enable_compile_cache
from unitemp_jax.plans import decoding
from unitemp_jax.sampling import model_folder

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


def _parse_args(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='unitemp evaluate generate',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--suite', required=True, choices=SUITES, metavar='SUITE')
  add(
    '--manifest',
    required=True,
    type=Path,
    metavar='FILE',
    help='prompts: .txt, .csv, .jsonl, .json of VBench, or a folder of .txt '
    'files named after dimensions; inbetween: a folder of real clips',
  )
  add(
    '--long_prompts',
    type=Path,
    metavar='FILE',
    help='what the model is given instead: line n for prompt n',
  )
  add('--images', type=Path, metavar='DIR', help='i2v: the first frames')
  add('--captions', type=Path, metavar='FILE', help='inbetween: of the clips')
  add('--prompt', help='inbetween: for clips without a caption')
  add('--order', default='forward', help='names with commas, or "all"')
  add('--out', required=True, type=Path, metavar='DIR')
  add('--samples', type=int, help="per prompt; the suite's own by default")
  add('--num_prompts', type=int, help='only so many of the first prompts')
  add('--seed', type=int, default=0, help='of the whole set (0)')
  add('--frames', type=int, help="of a clip, 1 + 4k; the model's by default")
  add('--anchors', type=int, help='anchor latents; 0 for none')
  add('--start_level', type=int, help='see "unitemp plan"; 0 starts from noise')
  add('--window', type=int, help='most latents seen, for long clips')
  add(
    '--sinks',
    default='none',
    choices=orders.SINKS,
    help='ends that stay in view of a window',
  )
  add('--decode', default='joint', choices=decoding.MODES)
  add('--model', type=Path, default=model_folder.TINY, metavar='DIR')
  add('--batch_size', type=int, default=8)
  add('--shard', metavar='i/n', help='make the i-th of n parts only')
  add(
    '--hosts',
    type=int,
    default=1,
    help='processes that jax joins; each makes its part',
  )
  add('--coordinator', metavar='ADDRESS:PORT', help='of the first host')
  add('--host_index', type=int, help='of this host, from 0')
  add('--dry_run', action='store_true', help='count, check names, and stop')
  return parser.parse_args(argv)


def _work(args: argparse.Namespace) -> Work:
  for name in ('batch_size', 'samples', 'num_prompts'):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise UserError(f'--{name}={value} must be at least 1.')
  return plan_work(
    args.model,
    args.suite,
    set_prompts.find(
      args.suite,
      args.manifest,
      long_prompts=args.long_prompts,
      images=args.images,
      captions=args.captions,
      prompt=args.prompt,
    )[: args.num_prompts],
    generation.order_names(args.order, SUITES[args.suite].given),
    seed=args.seed,
    samples=args.samples,
    frames=args.frames,
    anchors=args.anchors,
    start=args.start_level,
    window=args.window,
    sinks=args.sinks,
    decode=args.decode,
  )


def main(argv: list[str]) -> int:
  """Runs the action and returns its exit code.

  Raises:
    UserError: bad arguments, prompts or names (nothing is written then), or a
      full disk (what is finished stays).
  """
  args = _parse_args(argv)
  shard = None if args.shard is None else clips.parse_shard(args.shard)
  if shard is not None and args.hosts != 1:
    raise UserError('--hosts makes the parts; leave out --shard.')
  processes.join(args.hosts, args.coordinator, args.host_index)
  work = _work(args)
  print(
    f'{work.settings["prompts"]} prompts, {len(work.clips)} clips of '
    f'{work.settings["frames"]} frames, to {args.out}'
  )
  if args.decode == 'lag':
    for note in decoding.lag_notes(work.order_of):
      print(note)
  if args.dry_run:
    for clip in work.clips[:_SHOWN]:
      print(f'  {clip.path}.mp4  seed {clip.seed}  {clip.prompt.text[:60]}')
    if len(work.clips) > _SHOWN:
      print(f'  ... and {len(work.clips) - _SHOWN} more')
    return 0
  enable_compile_cache()
  made, there = run_work(work, args.out, shard, args.batch_size)
  print(f'made {made}, {there} were there')
  print(args.out)
  return 0
