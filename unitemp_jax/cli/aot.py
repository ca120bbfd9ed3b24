"""`unitemp aot`: does a config fit a TPU topology, without a TPU."""

import argparse
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.aot import compiler, memory_report, steps, table, topology
from unitemp_jax.aot.memory_report import MemoryReport
from unitemp_jax.cli.config_args import load_config, parse_with_overrides
from unitemp_jax.errors import UserError

EXIT_DOES_NOT_FIT = 3
_UTILISATION = 0.4
_COMMAND = 'unitemp aot --table'

_EXAMPLE = f"""examples:
  unitemp aot --config=configs/wan_1p3b_distill.py --topology=v5e:4x4
  unitemp aot --config=configs/wan_1p3b_distill.py:14b --topology=v6e:4x4 \\
    --slices=2 --fast --config.mesh.context=4 --out=report.json
  unitemp aot --config=... --topology=v5e:1x1 --steps=sampler,decode
  unitemp aot --table=configs/aot/table.yaml --markdown=configs/aot/tables.md

steps: train (all training steps), {', '.join(steps.SERVING)}; or single
training steps by name. All of them by default.

Every step is compiled by the TPU compiler for the topology; nothing is run.
Operations are counted from sizes; times are estimates. OUT is what
launch/tpu_pod.py --aot_report reads. --table compiles what a list asks for and
its results do not hold yet, and writes all of it as tables.

exit codes: 0 it fits; 2 bad input; 3 a step does not fit."""


def _parse_args(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(
    prog='unitemp aot',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--config', metavar='FILE[:ARG]')
  add('--topology', metavar='KIND:SHAPE', help='of a slice, such as v5e:4x4')
  add('--slices', type=int, default=1, metavar='N', help='how many (1)')
  add('--steps', metavar='STEP,...', help='which to compile')
  add('--fast', action='store_true', help='least effort of the compiler')
  add('--depth', type=int, metavar='N', help='compile so many layers only')
  add(
    '--utilisation',
    type=float,
    default=_UTILISATION,
    metavar='SHARE',
    help=f'of the peak arithmetic, for estimates ({_UTILISATION})',
  )
  add('--out', type=Path, metavar='FILE', help='also write the report as JSON')
  add('--table', type=Path, metavar='FILE', help='compile a list of topologies')
  add('--known', action='store_true', help='of the list, only what is known')
  add(
    '--markdown',
    type=Path,
    metavar='FILE',
    help='also write the tables to this Markdown file',
  )
  add('--dry_run', action='store_true', help='say what would be compiled')
  return parse_with_overrides(parser, argv)


def _check(args: argparse.Namespace) -> None:
  alone = {'config': args.config, 'topology': args.topology}
  if args.table is not None:
    given = [name for name, value in alone.items() if value is not None]
    if given:
      raise UserError(f'--table names its own {given[0]}; leave one of them.')
  elif None in alone.values():
    missing = next(name for name, value in alone.items() if value is None)
    raise UserError(f'--{missing} is missing; see unitemp aot --help.')
  if not 0 < args.utilisation <= 1:
    raise UserError(
      f'--utilisation={args.utilisation} must be above 0 and at most 1.'
    )


def _compiled(
  name: str,
  overrides: list[str],
  target: topology.Topology,
  names: list[str] | None,
  args: argparse.Namespace,
  fast: bool,
) -> MemoryReport:
  """Compiles the steps of a config; with `--dry_run` only names them."""
  config = load_config(name, [f'--config.{one}' for one in overrides])
  if args.depth is not None:
    steps.with_depth(config, args.depth)
  if names is None:
    names = list(steps.NAMES) if 'student' in config else [steps.TRAIN]
  made = []
  for step in steps.steps_of(config, names, topology.devices(target)):
    if args.dry_run:
      print(f'would compile {step.name} for {target}, batch {step.rows}')
      continue
    print(f'compiling {step.name} for {target} ...', flush=True)
    made.append(compiler.run(step, target, fast, args.utilisation))
  return MemoryReport(
    config=name,
    overrides=overrides,
    topology=target.name,
    slices=target.slices,
    chips=target.chips,
    chip_gib=target.chip.gib,
    layers=args.depth,
    mode='fast' if fast else 'exact',
    utilisation=args.utilisation,
    versions={
      name: importlib.metadata.version(name) for name in ('jax', 'libtpu')
    },
    steps=made,
  )


def _one(args: argparse.Namespace, overrides: Iterable[str]) -> int:
  found = _compiled(
    args.config,
    [word.removeprefix('--config.') for word in overrides],
    topology.parse(args.topology, args.slices),
    args.steps.split(',') if args.steps else None,
    args,
    args.fast,
  )
  if args.dry_run:
    return 0
  print(found.text())
  if args.out is not None:
    memory_report.write(args.out, found)
    print(args.out)
  print(found.summary())
  return 0 if found.fits else EXIT_DOES_NOT_FIT


def _table(args: argparse.Namespace) -> int:
  listed = table.read_list(args.table)
  if args.markdown is not None:
    files.check_generated(args.markdown, _COMMAND)
  found: dict[str, MemoryReport] = {}
  for entry in listed.entries:
    path = listed.results / f'{entry.name}.json'
    known = memory_report.read(path) if path.exists() else None
    if known is None or not entry.is_of(known):
      if args.known or args.dry_run:
        print(f'{entry.name}: to be compiled')
        continue
      target = topology.parse(entry.topology, entry.slices)
      overrides, names = list(entry.overrides), list(entry.steps)
      known = _compiled(
        entry.config, overrides, target, names, args, entry.fast
      )
      memory_report.write(path, known)
    print(f'{entry.name}: {path}')
    found[entry.name] = known
  if args.dry_run:
    return 0
  text = table.markdown(listed, found)
  if args.markdown is not None:
    page = f'# Memory by topology\n\n{text}'
    files.write_generated(args.markdown, page, _COMMAND)
  print(text)
  return 0


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code: 0, or 3 if a step does not fit.

  Raises:
    UserError: bad arguments, a topology that does not exist, a mesh or batch
      that does not divide, or no compiler; nothing has been compiled then.
  """
  args, overrides = _parse_args(argv)
  _check(args)
  if args.table is not None:
    if overrides:
      raise UserError('--table takes its overrides from the list.')
    return _table(args)
  return _one(args, overrides)
