"""Benchmark `reading`: do clips come as fast as a training takes them?

The clips are those of a config, read as `unitemp train` reads them. What its
step takes is bounded from above: by its operations, at the speed of a matrix
product on this machine's devices.
"""

import time

import jax
import numpy as np

from unitemp_jax.bench.measure import Claim, Context, Outcome
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.training import build, encode

TIMES = 10  # as many clips should be read as are taken
_SECONDS = 1.0  # of reading per repeat
_READ = 'mean over repeats of a second or more; batches of the whole config'
_TAKEN = (
  'at most: operations of the steps of a round, at the speed of a matrix '
  'product here'
)


def run(context: Context) -> Outcome:
  """Reads the clips of the config, and compares with what its steps take.

  Raises:
    UserError: there is no config, or its data are not there.
  """
  config = context.config
  if config is None:
    raise UserError('reading needs --config, of a training and its data.')
  program = build.build_program(config)
  loader = build.build_loader(config, range(config.batch_size))
  nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(next(loader)))
  rates = []
  for _ in range(context.repeats):
    began, batches = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < _SECONDS:
      next(loader)
      batches += 1
    rates.append(batches * config.batch_size / spent)
  read = bootstrap.mean(np.array(rates))
  flops, steps = program.flops(), program.steps
  round_flops = sum(flops[name].total * n for name, (_, n) in steps.items())
  operations = round_flops / sum(n for _, n in steps.values())
  taken = encode.speed() * jax.local_device_count() / operations
  ratio = read.value / taken
  rows = (
    context.row('clips read', 'loader', read, '/s', _READ),
    context.row(
      'bytes read',
      'loader',
      bootstrap.exact(nbytes * read.value / config.batch_size / 1e6, 1),
      'MB/s',
      _READ,
    ),
    context.row('clips taken', 'step', bootstrap.exact(taken, 1), '/s', _TAKEN),
  )
  claim = Claim(
    f'clips are read {TIMES} times as fast as they are taken',
    ratio,
    ratio >= TIMES,
  )
  series = {'clips a second': rates}
  return Outcome((Section('Reading', rows),), series, (claim,))
