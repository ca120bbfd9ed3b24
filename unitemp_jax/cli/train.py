"""`unitemp train`: trains what a config describes, and resumes by itself."""

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path

import jax
import ml_collections

from unitemp_jax import files
from unitemp_jax.cli.config_args import load_config, parse_with_overrides
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.compile_cache import enable_compile_cache
from unitemp_jax.parallel.mesh import local_rows, make_mesh
from unitemp_jax.parallel.processes import say
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.training.export import export_weights
from unitemp_jax.training.guard import GuardSettings, TrainingStopped
from unitemp_jax.training.loop import train
from unitemp_jax.training.loop_settings import LoopSettings
from unitemp_jax.training.programs import by_name, lazy_weights
from unitemp_jax.training.programs.program import abstract_state

# A run may be continued with these changed: no step depends on them, but for
# the order of sums over a mesh and for which steps are skipped.
_FREE_KEYS = (
  'mesh',
  'num_steps',
  'log_every',
  'checkpoint_every',
  'checkpoint_minutes',
  'keep_checkpoints',
  'keep_every',
  'sample_every',
  'num_devices',
  'max_loss_ratio',
  'max_skipped',
  'profile_step',
  'profile_steps',
)

# Of errors with a sentence; anything else is 1.
EXIT_CODES: dict[type[BaseException], int] = {UserError: 2, TrainingStopped: 4}

_EXAMPLE = """examples:
  unitemp train --config=configs/tiny_vae.py --workdir=runs/vae \\
    --config.num_steps=2000
  unitemp train --config=... --workdir=... --hosts=4      (on each of 4 hosts)

Run the same command again to resume, on any number of hosts; SIGTERM to one of
them saves a checkpoint first. WORKDIR/goodput.jsonl says where the time goes.

exit codes: 0 finished, or stopped by SIGTERM; 2 bad input; 4 diverged: steps
were skipped because the loss was not finite or exploded (see
config.max_loss_ratio and config.max_skipped), the last checkpoint is good."""


def _parse_args(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(
    prog='unitemp train',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, metavar='FILE[:ARG]')
  parser.add_argument('--workdir', required=True, type=Path, metavar='DIR')
  parser.add_argument(
    '--hosts',
    type=int,
    default=1,
    metavar='N',
    help='how many hosts run this command together (default 1)',
  )
  parser.add_argument(
    '--coordinator',
    metavar='ADDRESS:PORT',
    help='of host 0; not needed on TPU pods, GKE, Slurm and MPI',
  )
  parser.add_argument(
    '--host_index',
    type=int,
    metavar='I',
    help='which host this is, 0 to N - 1; goes with --coordinator',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='say what would be done and stop'
  )
  return parse_with_overrides(parser, argv)


def fingerprint(config: dict) -> str:
  """Returns a hash of what a step depends on in a plain config dict."""
  fixed = {key: v for key, v in config.items() if key not in _FREE_KEYS}
  if 'mesh' in config:
    # Runs from before a mesh was free to change had this one in their hash.
    fixed['mesh'] = {'data': -1, 'fsdp': 1}
  # And those from before the sizes had the field's names.
  fixed = sizes.rename(fixed, sizes.FORMER_NAMES)
  text = json.dumps(fixed, sort_keys=True)
  return files.sha256(text)[:16]


def _leaves(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _leaves(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def check_same_config(path: Path, config: dict) -> None:
  """Refuses a workdir that belongs to another config, naming what differs."""
  if not path.exists():
    return
  old = files.read_json(
    path, 'a config', 'restore it or choose another --workdir'
  )
  if fingerprint(old) == fingerprint(config):
    return
  old, new = _leaves(sizes.rename(old)), _leaves(sizes.rename(config))
  names = [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in _FREE_KEYS
  ]
  raise UserError(
    f'{path.parent} holds a run with another config (differs in '
    f'{", ".join(names[:5])}); choose another --workdir or use that config.'
  )


@contextlib.contextmanager
def _claim(workdir: Path, config: dict):
  """Keeps a second training out of `workdir`, and writes the config there."""
  with contextlib.ExitStack() as stack:
    with processes.together(f'Opening {workdir}'):
      if jax.process_index() == 0:
        stack.enter_context(files.lock(workdir))
        check_same_config(workdir / 'config.json', config)
        files.write_json(workdir / 'config.json', config, indent=2)
    processes.check_shared(workdir)
    yield


def _describe(
  program, config: ml_collections.ConfigDict, mesh, workdir: Path
) -> None:
  """Prints what a training would do, and how it splits what it trains."""
  shapes = abstract_state(program, config.seed, mesh, MODEL_RULES)
  for name, tree in shapes.params.items():
    leaves = jax.tree.leaves(tree)
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    here = sum(math.prod(l.sharding.shard_shape(l.shape)) for l in leaves)
    print(f'{name}: {total:,} parameters, {here:,} on each device')
  sizes = ', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  print(f'mesh: {sizes} on {jax.default_backend()}')
  print(
    f'would train up to step {config.num_steps} in batches of '
    f'{config.batch_size} and write to {workdir}'
  )


def _settings(config: ml_collections.ConfigDict) -> LoopSettings:
  return LoopSettings(
    num_steps=config.num_steps,
    log_every=config.log_every,
    checkpoint_every=config.checkpoint_every,
    checkpoint_minutes=config.checkpoint_minutes,
    keep=config.keep_checkpoints,
    keep_every=config.keep_every,
    sample_every=config.sample_every,
    profile_step=config.profile_step,
    profile_steps=config.profile_steps,
    guard=GuardSettings(config.max_loss_ratio, config.max_skipped),
  )


def _run(
  args: argparse.Namespace, config: ml_collections.ConfigDict, plain: dict
) -> None:
  """Everything after the hosts have found each other."""
  with processes.together('Setting up'):
    processes.check_devices(config.num_devices)
    mesh = make_mesh(config.mesh)
    rows = local_rows(mesh, config.batch_size, config.accumulate)
    program = by_name.build_program(config, mesh)
    # Shapes that do not divide are refused here, before anything is made.
    abstract_state(program, config.seed, mesh, MODEL_RULES)
    lazy_weights.shapes_of(program.frozen, mesh, MODEL_RULES)
    if args.dry_run:
      if jax.process_index() == 0:
        _describe(program, config, mesh, args.workdir)
      return
  for first in (True, False):
    # Host 0 prepares the data while the others, which may share the folder with
    # it, wait.
    with processes.together('Opening the data'):
      if (jax.process_index() == 0) == first:
        loader = by_name.build_loader(config, rows)
  # Last of all, so that bad input leaves no trace in the workdir.
  with _claim(args.workdir, plain):
    result = train(
      program,
      loader,
      _settings(config),
      workdir=args.workdir,
      mesh=mesh,
      rules=MODEL_RULES,
      seed=config.seed,
      fingerprint=fingerprint(plain),
      sample_fn=getattr(program, 'sample_fn', None),
    )
    if result.outcome == 'was finished':
      say(f'nothing to do: step {result.step} of {config.num_steps} is done')
    print(f'{result.outcome} at step {result.step}: {result.checkpoint}')
    with processes.together('Exporting the weights'):
      for path in export_weights(result.state, args.workdir, plain):
        print(path)


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad config, workdir or data; nothing has been overwritten then.
  """
  args, overrides = _parse_args(argv)
  config = load_config(args.config, overrides)
  # As it would be read back: tuples become lists.
  plain = json.loads(json.dumps(config.to_dict()))
  check_same_config(args.workdir / 'config.json', plain)
  enable_compile_cache()
  processes.join(args.hosts, args.coordinator, args.host_index)
  try:
    _run(args, config, plain)
  except BaseException as error:
    code = EXIT_CODES.get(type(error), 1)
    if args.hosts > 1:
      processes.leave(error, code)
    if not isinstance(error, TrainingStopped):
      raise
    print(f'unitemp: error: {error}', file=sys.stderr)
    return code
  if args.hosts > 1:
    jax.distributed.shutdown()
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
