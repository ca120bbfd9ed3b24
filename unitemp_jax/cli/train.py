"""`unitemp train`: trains what a config describes, and resumes by itself."""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

import jax
from clu import parameter_overview

from unitemp_jax import storage
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  enable_compile_cache,
  local_rows,
  make_mesh,
)
from unitemp_jax.training import build, workdir
from unitemp_jax.training.config import TRAINING, load_config
from unitemp_jax.training.loop import LoopSettings, train
from unitemp_jax.training.program import TrainingStopped, abstract_state

# 128 + SIGTERM: what is ended by it ends with, so that scripts stop and pods
# start it again.
EXIT_STOPPED = 143
# Of errors with a sentence; anything else is 1.
EXIT_CODES: dict[type[BaseException], int] = {UserError: 2, TrainingStopped: 4}

_EXAMPLE = """examples:
  unitemp train --config=configs/tiny_vae.py --workdir=runs/vae \\
    --config.num_steps=2000
  unitemp train --config=... --workdir=... --hosts=4      (on each of 4 hosts)

Run the same command again to resume, on any number of hosts; SIGTERM to one of
them saves a checkpoint first. WORKDIR/goodput.jsonl says where the time goes.

exit codes: 0 finished; 2 bad input; 4 diverged: steps were skipped because the
loss was not finite or exploded (see config.max_loss_ratio and
config.max_skipped), the last checkpoint is good; 143 stopped by SIGTERM: the
weights are written at the end, or by --config.num_steps=STEPS as they are."""


_OPTIONS = """
@config
--workdir! OUT
@hosts @coordinator @host_index @dry_run
"""


def _describe(state, config, mesh, folder: Path) -> None:
  """Prints what a training would do, and how it splits what it trains."""
  for name, tree in state.params.items():
    print(
      parameter_overview.get_parameter_overview(tree, include_stats='sharding')
    )
    leaves = jax.tree.leaves(tree)
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    here = sum(math.prod(l.sharding.shard_shape(l.shape)) for l in leaves)
    print(f'{name}: {total:,} parameters, {here:,} on each device')
  sizes = ', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  print(f'mesh: {sizes} on {jax.default_backend()}')
  print(
    f'would train up to step {config.num_steps} in batches of '
    f'{config.batch_size} and write to {folder}'
  )


def _run(
  args: argparse.Namespace, config, plain: dict, settings: LoopSettings
) -> int:
  """Everything after the hosts have found each other; returns exit code."""
  with processes.sync('Setting up'):
    processes.check_devices(config.num_devices)
    mesh = make_mesh(config.mesh)
    rows = local_rows(mesh, config.batch_size, config.accumulate)
    program = build.build_program(config)
    weights.check_lazy((program.frozen, program.initial))
    # Shapes that do not divide are refused here, before anything is made.
    state = abstract_state(program, config.seed, mesh, MODEL_RULES)
    workdir.check_weights(args.workdir, state.ema, plain)
    weights.shapes_of(program.frozen, mesh, MODEL_RULES)
    if args.dry_run:
      if jax.process_index() == 0:
        _describe(state, config, mesh, args.workdir)
      return 0
  for first in (True, False):
    # Host 0 prepares the data while the others, which may share the folder with
    # it, wait.
    with processes.sync('Opening the data'):
      if (jax.process_index() == 0) == first:
        loader = build.build_loader(config, rows)
  # Last of all, so that bad input leaves no trace in the workdir.
  with workdir.claimed(args.workdir, plain):
    result = train(
      program,
      loader,
      settings,
      workdir=args.workdir,
      mesh=mesh,
      rules=MODEL_RULES,
      seed=config.seed,
      fingerprint=workdir.fingerprint(plain),
    )
    if result.outcome == 'was finished':
      done = f'step {result.step} of {config.num_steps} is done'
      processes.log(f'nothing to do: {done}')
    print(f'{result.outcome} at step {result.step}: {result.checkpoint}')
    if result.outcome == 'stopped':  # A next stage finds nothing half-trained.
      processes.log('run the same command again to go on')
      return EXIT_STOPPED
    with processes.sync('Exporting the weights'):
      for path in workdir.export_weights(result.state, args.workdir, plain):
        print(path)
  return 0


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('train', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  names = [field.name for field in dataclasses.fields(LoopSettings)]
  needs = dict.fromkeys((*TRAINING, *names))
  config = load_config(args.config, overrides, needs)
  settings = LoopSettings(**{name: config[name] for name in names})
  # As it would be read back, on any machine: tuples become lists.
  plain = json.loads(storage.addressed(json.dumps(config.to_dict())))
  workdir.check_config(args.workdir, plain)
  enable_compile_cache()
  processes.join(args.hosts, args.coordinator, args.host_index)
  try:
    code = _run(args, config, plain, settings)
  except BaseException as error:
    code = EXIT_CODES.get(type(error), 1)
    if args.hosts > 1:
      processes.abort(error, code)
    if not isinstance(error, TrainingStopped):
      raise
    print(f'unitemp: error: {error}', file=sys.stderr)
    return code
  if args.hosts > 1:
    jax.distributed.shutdown()
  return code
