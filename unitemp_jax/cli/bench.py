"""`unitemp bench`: speed and memory, against baselines in the same run."""

import argparse
import dataclasses

from unitemp_jax.bench import attention, device, runner
from unitemp_jax.bench.measure import CallShape, Context
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError, check_known
from unitemp_jax.parallel import locks
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config

_EXAMPLE = """benchmarks:
  long       memory and time per block of a long video, in both directions
  cache      cached rollout against computing the visible context again
  attention  sizes of blocks of the attention kernel; writes OUT/tiles.json
  baselines  diffusers, transformers and a cached rollout in PyTorch (extra
             torch), same weights, in turns; only if it is named
  device     PART: what launch/device_check.sh runs; one of about, attention,
             forward, backward, stream, train, tiles, baselines, table
  growth     time and memory by blocks, by clips of a batch, and what devices
             send in training; only if it is named, in the source folder
  nag        a block with a negative prompt and without, in turns; only if it
             is named
  reading    clips of a --config a second, and how many its step takes at most;
             only if it is named

example:
  unitemp bench long --out=out/bench
  unitemp bench --blocks=200 --repeats=5 --out=out/bench
  unitemp bench attention --queries=4680 --keys=32760 --out=out/tiles
  unitemp bench reading --config=configs/tiny_distill.py --out=out/reading
  UNITEMP_ATTENTION_TILES=out/tiles/tiles.json unitemp train ..."""

_CALL = ('queries', 'keys', 'heads', 'head_dim', 'frames')


_OPTIONS = """
names* NAME  which; by default the first three
@out @model
@config?  reading: of a training
--repeats N:2=5  how often everything is measured after warming up
--blocks N=210  length of the long videos
--accelerator NAME  device: must be this
--queries N:1  attention: of the call that is measured
--keys N:1  attention: likewise
--heads N:1  attention: likewise
--head_dim N:1  attention: likewise
--frames N:0  attention: likewise
@dry_run
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code: 1 if a claim does not hold."""
  about = f'{__doc__} Writes OUT/bench.json and OUT/bench.md.'
  parser = Parser('bench', about, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  if args.names[:1] == ['device']:
    return _device(args)
  names = list(dict.fromkeys(args.names)) or [
    name for name in runner.BENCHMARKS if name not in runner.NAMED
  ]
  for name in names:
    check_known('there is no benchmark', name, runner.BENCHMARKS, 'some')
  call = _call(args)
  config = load_config(args.config, overrides) if args.config else None
  if 'reading' in names and config is None:
    raise UserError('reading needs --config, of a training and its data.')
  context = Context(
    args.model, args.repeats, args.blocks, call=call, config=config
  )
  model_folder.read_card(args.model)
  runner.check(args.out)
  if args.dry_run:
    print(f'{", ".join(names)}, {args.repeats} repeats, to {args.out}')
    return 0
  enable_compile_cache()
  with locks.lock(args.out):
    outcomes = runner.run(context, names, args.out)
  print((args.out / runner.TABLES).read_text())
  print(args.out)
  claims = [claim for one in outcomes.values() for claim in one.claims]
  return 0 if all(claim.holds for claim in claims) else 1


def _device(args: argparse.Namespace) -> int:
  if len(args.names) != 2:
    raise UserError('name one part: unitemp bench device PART.')
  device.check(args.names[1], args.out)
  if args.dry_run:
    print(f'{args.names[1]} on the device that there is, to {args.out}')
    return 0
  device.check_platform(args.accelerator)
  enable_compile_cache()
  with locks.lock(args.out):
    device.run(args.names[1], args.out)
  return 0


def _call(args: argparse.Namespace) -> CallShape | None:
  """The call of attention that was asked for, or None."""
  given = {name: getattr(args, name) for name in _CALL}
  given = {name: size for name, size in given.items() if size is not None}
  return dataclasses.replace(attention.FULL, **given) if given else None
