"""`unitemp aot`: does a config fit a TPU topology, without a TPU."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.aot import (
  compiler,
  memory_report,
  search,
  serving,
  steps,
  table,
  topology,
)
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.training.config import TRAINING, load_config

EXIT_DOES_NOT_FIT = 3
_COMMAND = 'unitemp aot --table'

_EXAMPLE = f"""examples:
  unitemp aot --config=configs/wan_1p3b_distill.py --topology=v5e:4x4
  unitemp aot --config=configs/wan_1p3b_distill.py:14b --topology=v6e:4x4 \\
    --slices=2 --config.mesh.context=4 --out=report.json
  unitemp aot --config=... --topology=v5e:1x1 --steps=sampler,decode
  unitemp aot --model=models/self_forcing --topology=v5e:1x1
  unitemp aot --config=... --topology=v5e:1x1 --out=new.json
  unitemp aot --compare=old.json,new.json
  unitemp aot --config=... --topology=v5e:8x8 --search=4 --out=best.json
  unitemp aot --table=configs/aot/table.yaml --markdown=configs/aot/tables.md

steps: train (all training steps), {', '.join(serving.SERVING)}; or single
training steps by name. All of them by default; of a model those of serving and
text, by the encoder as it will run: whole, or layer by layer.

Every step is compiled by the TPU compiler for the topology; nothing is run.
Operations are counted from sizes; seconds are those of the compiler's schedule.
OUT is what launch/tpu_pod.py --aot_report reads; --search writes the best
there, keeps all in the folder of that name without .json, and goes on from
them. --table compiles what a list asks for and its results do not hold yet, and
writes all of it as tables.

exit codes: 0 it fits; 2 bad input; 3 a step does not fit."""


_OPTIONS = """
@config?
--model DIR  instead of --config: the folder of a model that is to be served
--topology KIND:SHAPE  of a slice, such as v5e:4x4
--slices N=1  how many
--steps STEP,...  which to compile
@mesh  of serving steps: that a clip is split over
--fast  least effort of the compiler: no time, no verdict
--time  print the schedule's seconds per op and module
--depth N  compile so many layers only
--out FILE  also write the report as JSON
--search N:1..1000
  mesh, accumulate and remat: compile the N best by arithmetic
--compare OLD.json,NEW.json  print the seconds of two reports side by side
--table FILE  compile a list of topologies
--known  of the list, only what is known
--markdown FILE  also write the tables to this Markdown file
@dry_run
"""


def _check(args: argparse.Namespace) -> None:
  if args.time and args.fast:
    raise UserError(
      '--time needs the normal effort of the compiler, with the least products '
      'take ten times the cycles; leave --fast.'
    )
  if args.search is not None and (args.model or args.steps or args.time):
    raise UserError('--search is of the training of a --config alone.')
  if args.model is not None and (args.config or args.depth):
    raise UserError('--model goes with neither --config nor --depth.')
  config = args.config or (args.model and str(args.model))
  alone = {'config': config, 'topology': args.topology}
  if args.table is not None:
    given = [name for name, value in alone.items() if value is not None]
    if given:
      raise UserError(f'--table names its own {given[0]}; leave one of them.')
  elif args.markdown is not None or args.known:
    raise UserError('--markdown and --known belong to --table.')
  elif None in alone.values():
    missing = next(name for name, value in alone.items() if value is None)
    raise UserError(f'--{missing} is missing; see unitemp aot --help.')


def _one(args: argparse.Namespace, overrides: Iterable[str]) -> int:
  if args.model is not None and overrides:
    raise UserError(f'--model takes no {next(iter(overrides))}.')
  if args.model is not None and not args.model.is_dir():
    raise UserError(f'{args.model} is no model folder.')
  if args.out is not None:
    memory_report.check(args.out)
  found = compiler.compile_config(
    args.config or str(args.model),
    [word.removeprefix('--config.') for word in overrides],
    topology.parse(args.topology, args.slices),
    args.steps.split(',') if args.steps else None,
    depth=args.depth,
    dry_run=args.dry_run,
    mesh=args.mesh,
    fast=args.fast,
  )
  if args.dry_run:
    return 0
  print(found.text(parts=args.time))
  if args.out is not None:
    memory_report.write(args.out, found)
    print(args.out)
  print(found.summary())
  return 0 if found.fits else EXIT_DOES_NOT_FIT


def _search(args: argparse.Namespace, overrides: Iterable[str]) -> int:
  own = tuple(word.removeprefix('--config.') for word in overrides)
  target = topology.parse(args.topology, args.slices)
  devices = topology.devices(target)
  config = load_config(args.config, list(overrides), TRAINING)
  if args.depth is not None:
    steps.with_depth(config, args.depth)
  step, chosen, number = search.best(config, target, devices, args.search)
  if args.dry_run:
    print(f'would compile {step} for {target}, of {number} layouts these:')
    for one in chosen:
      told = f'{one.gib:.1f} GiB, {one.seconds:.1f} s by arithmetic'
      print(f'  {" ".join(one.overrides)}: {told}')
    return 0
  entry = table.Entry(
    *('', args.config, target.name, (step,), target.slices, own),
    depth=args.depth,
    fast=args.fast,
  )
  folder = args.out and args.out.with_suffix('')
  found = search.compiled(chosen, entry, folder)
  first = search.ranked(found)[0][1]
  print(search.table(step, found, number))
  if args.out is not None:
    memory_report.write(args.out, first)
    print(args.out)
  return 0 if first.fits else EXIT_DOES_NOT_FIT


def _table(args: argparse.Namespace) -> int:
  listed = table.read_list(args.table)
  if args.markdown is not None:
    files.check_generated(args.markdown, _COMMAND)
  found = table.fill(listed, args.known or args.dry_run)
  if args.dry_run:
    return 0
  text = table.markdown(listed, found)
  if args.markdown is not None:
    page = f'# Memory by topology\n\n{text}'
    files.write_generated(args.markdown, page, _COMMAND)
  print(text)
  return 0


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code: 0, or 3 if a step does not fit."""
  parser = Parser('aot', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  if args.compare is not None:
    paths = args.compare.split(',')
    if len(paths) != 2:
      raise UserError('--compare takes two reports: OLD.json,NEW.json.')
    reports = [memory_report.read(Path(path)) for path in paths]
    print(memory_report.compared(*reports))
    return 0
  _check(args)
  if args.table is not None:
    if overrides:
      raise UserError('--table takes its overrides from the list.')
    return _table(args)
  if args.search is not None:
    return _search(args, overrides)
  return _one(args, overrides)
