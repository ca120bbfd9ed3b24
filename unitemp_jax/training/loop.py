"""The one training loop. Objectives plug in as programs; nobody forks it."""

import contextlib
import dataclasses
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from unitemp_jax.errors import UserError
from unitemp_jax.training.checkpoint import Checkpoints
from unitemp_jax.training.mesh import Rules, put_batch, shardings_for
from unitemp_jax.training.metrics import MetricsLog
from unitemp_jax.training.preemption import StopSignal
from unitemp_jax.training.program import (
  CompiledSteps,
  Loader,
  Program,
  SampleFn,
  abstract_state,
)
from unitemp_jax.training.sharding_rules import MODEL_RULES
from unitemp_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a call of `train` ended.

  Attributes:
    state: the last state.
    step: number of finished steps.
    outcome: 'finished', 'stopped' (SIGTERM) or 'was finished'.
    checkpoint: folder of the checkpoint of `step`.
  """

  state: TrainState
  step: int
  outcome: str
  checkpoint: Path


class _CheckpointClock:
  """Says when a checkpoint is due, by steps or by minutes."""

  def __init__(self, every: int, minutes: float, log_every: int):
    self._every = every
    self._seconds = 60 * minutes
    self._log_every = log_every
    self._last = time.monotonic()

  def due(self, step: int) -> bool:
    """Returns the same answer in every process; call it once for every step."""
    if self._every and step % self._every == 0:
      return True
    if not self._seconds:
      return False
    late = time.monotonic() - self._last >= self._seconds
    if jax.process_count() > 1:
      # Clocks differ, so all follow process 0; asking it costs a round trip.
      if step % self._log_every:
        return False
      late = bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
    return late

  def restart(self) -> None:
    """Counts the minutes from now."""
    self._last = time.monotonic()


def _chain_crc(batch: dict[str, np.ndarray], crc: int) -> int:
  """Returns the checksum of all batches so far: equal data, equal number."""
  for leaf in jax.tree.leaves(batch):
    crc = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, crc)
  return crc


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack(finite).all()


def _write_samples(
  sample_fn: SampleFn,
  log: MetricsLog,
  state: TrainState,
  step: int,
  parent: Path,
) -> None:
  """Lets `sample_fn` fill a folder that appears complete or not at all."""
  folder = parent / f'{step:08}'
  temporary = folder.with_name(folder.name + '.tmp')
  if jax.process_index() == 0:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
  log.flush()
  with log.paused():
    sample_fn(state, temporary)
  if jax.process_index() != 0:
    return
  if folder.exists():  # Written before an interruption, from the same state.
    shutil.rmtree(temporary)
  else:
    os.replace(temporary, folder)


def _restore_or_init(
  program: Program,
  loader: Loader,
  checkpoints: Checkpoints,
  mesh: Mesh,
  rules: Rules,
  seed: int,
) -> tuple[TrainState, dict]:
  """Returns the state and what the host knows besides; places the loader."""
  shapes = abstract_state(program, seed, mesh, rules)
  restored = checkpoints.restore_latest(shapes)
  if restored is not None:
    state, host = restored
    print(f'resuming after step {int(state.step)}', flush=True)
    loader.set_state(host['loader'])
    return state, host
  shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  init = jax.jit(program.init, out_shardings=shardings)
  return init(jax.random.key(seed)), {}


def _save(
  checkpoints: Checkpoints,
  loader: Loader,
  log: MetricsLog,
  state: TrainState,
  step: int,
  crc: int,
) -> None:
  """Saves unless a parameter is broken: an older, good one would go for it."""
  log.sync()
  if not _all_finite(state.params):
    raise UserError(
      f'A parameter is not finite after step {step}; training stopped at its '
      'last good checkpoint: lower the learning rate or look at the data.'
    )
  host = {'loader': loader.get_state(), 'metrics': log.get_state()}
  checkpoints.save(step, state, host | {'data_crc': crc})


def _run_steps(
  program: Program,
  loader: Loader,
  log: MetricsLog,
  state: TrainState,
  crc: int,
  steps: range,
  mesh: Mesh,
  rules: Rules,
) -> Iterator[tuple[int, TrainState, int]]:
  """Yields (finished steps, state, checksum of the data) after each step.

  The state is donated to the next step, so use it before asking for that.
  """
  compiled = CompiledSteps(program, state, mesh)
  frozen = jax.device_put(
    program.frozen, shardings_for(program.frozen, mesh, rules)
  )
  for step in steps:
    local_batch = next(loader)
    crc = _chain_crc(local_batch, crc)
    batch = put_batch(local_batch, mesh)
    with log.paused():
      step_fn = compiled.get(step - 1, state, batch, frozen)
    state, metrics = step_fn(state, batch, frozen)
    log.push(step, metrics, crc)
    yield step, state, crc


def train(
  program: Program,
  loader: Loader,
  *,
  num_steps: int,
  workdir: str | Path,
  mesh: Mesh,
  rules: Rules = MODEL_RULES,
  seed: int = 0,
  fingerprint: str = '',
  log_every: int = 50,
  checkpoint_every: int = 0,
  checkpoint_minutes: float = 0.0,
  keep: int = 2,
  sample_every: int = 0,
  sample_fn: SampleFn | None = None,
) -> TrainResult:
  """Trains up to `num_steps` steps, from the last checkpoint if there is one.

  A run that was killed at any moment and started again equals an uninterrupted
  one bit for bit: parameters, metrics and order of data.

  Args:
    program: the objective.
    loader: this process's share of the data.
    num_steps: steps in all, those before a resume included.
    workdir: receives `checkpoints/`, `metrics.jsonl` and `samples/`.
    mesh: from `make_mesh`.
    rules: how parameters are split over it.
    seed: of `state.key`.
    fingerprint: of the config; a checkpoint with another one is refused.
    log_every: steps per line of metrics.
    checkpoint_every: steps between checkpoints; 0 for none.
    checkpoint_minutes: minutes between them; the last step has one anyway.
    keep: number of checkpoints kept.
    sample_every: steps between samples; 0 for none.
    sample_fn: `(state, folder)`, writes samples into `folder`; it is called in
      every process, and only process 0 has the folder.

  Raises:
    UserError: see `Checkpoints.restore_latest` and `put_batch`; or a loss, or
      a parameter to be saved, is not finite (nothing is saved then).
  """
  workdir = Path(workdir)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    checkpoints = Checkpoints(
      workdir / 'checkpoints', fingerprint=fingerprint, keep=keep
    )
    stack.callback(checkpoints.close)
    state, host = _restore_or_init(
      program, loader, checkpoints, mesh, rules, seed
    )
    first, crc = int(state.step), host.get('data_crc', 0)
    if first >= num_steps:
      path = checkpoints.path(first)
      return TrainResult(state, first, 'was finished', path)
    log = MetricsLog(
      workdir / 'metrics.jsonl',
      first_step=first,
      num_steps=num_steps,
      log_every=log_every,
      sums=host.get('metrics', {}),
    )
    stack.callback(log.close)
    clock = _CheckpointClock(checkpoint_every, checkpoint_minutes, log_every)
    steps = range(first + 1, num_steps + 1)
    run = _run_steps(program, loader, log, state, crc, steps, mesh, rules)
    for step, state, crc in run:
      if sample_fn and sample_every and step % sample_every == 0:
        _write_samples(sample_fn, log, state, step, workdir / 'samples')
      stopping = stop.asked(step)
      if stopping or step == num_steps or clock.due(step):
        _save(checkpoints, loader, log, state, step, crc)
        clock.restart()
      if stopping:
        break
    outcome = 'finished' if step == num_steps else 'stopped'
    return TrainResult(state, step, outcome, checkpoints.path(step))
