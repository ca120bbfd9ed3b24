"""The training loop. Objectives plug in as programs; nobody forks it."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from unitemp_jax import files
from unitemp_jax.models import weights
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.mesh import MODEL_RULES, Rules, local_mesh, put_batch
from unitemp_jax.parallel.processes import StopSignal, sync, to_host
from unitemp_jax.training.metrics import LoopSettings, RunLog
from unitemp_jax.training.program import (
  CompiledSteps,
  Program,
  TrainingStopped,
  TrainState,
  abstract_state,
  first_state,
)
from unitemp_jax.training.workdir import Checkpoints


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a call of `train` ended."""

  state: TrainState  # the last state
  step: int  # number of finished steps
  outcome: str  # 'finished', 'stopped' (SIGTERM) or 'was finished'
  checkpoint: Path  # folder of the checkpoint of `step`


class Loader(Protocol):
  """An endless iterator of dicts of numpy arrays with a position."""

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch of this process."""

  def get_state(self) -> dict:
    """Returns the position: JSON-able, and the same in every process."""

  def set_state(self, state: dict) -> None:
    """Continues after a position that `get_state` returned."""


def train(
  program: Program,
  loader: Loader,
  settings: LoopSettings,
  *,
  workdir: str | Path,
  mesh: Mesh,
  rules: Rules = MODEL_RULES,
  seed: int = 0,
  fingerprint: str = '',
) -> TrainResult:
  """Trains to the last step, from the newest checkpoint if there is one.

  A run that was killed at any moment and started again equals an uninterrupted
  one bit for bit: parameters, metrics and order of data.

  Args:
    program: the objective.
    loader: this process's share of the data.
    settings: see there.
    workdir: receives `checkpoints/`, `metrics.jsonl`, `goodput.jsonl`,
      `samples/` and `profile/`; the same folder in every process.
    mesh: from `make_mesh`.
    rules: how parameters are split over it.
    seed: of `state.key`.
    fingerprint: of the config; a checkpoint with another one is refused.
  """
  workdir, last = Path(workdir), settings.num_steps
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    checkpoints = Checkpoints(
      workdir / 'checkpoints',
      fingerprint=fingerprint,
      keep=settings.keep_checkpoints,
      keep_every=settings.keep_every,
    )
    stack.callback(checkpoints.close)
    shapes = abstract_state(program, seed, mesh, rules)
    state, host = checkpoints.restore_latest(shapes) or (None, {})
    if state is None:
      state = first_state(program, seed, mesh, rules)
    else:
      processes.log(f'resuming after step {int(state.step)}')
      loader.set_state(host['loader'])
    if (step := int(state.step)) >= last:
      return TrainResult(state, step, 'was finished', checkpoints.path(step))
    log = RunLog(workdir, step, host, settings)
    stack.callback(log.close)
    steps = CompiledSteps(program, state, mesh, settings.max_loss_ratio)
    frozen = weights.load_lazy(program.frozen, mesh, rules)
    clock, stopping = _CheckpointClock(settings), False
    while step < last and not stopping:
      with log.measure('data'):
        batch = put_batch(log.checked(next(loader)), mesh)
      name = program.step_name(step)
      with log.paused('compile'):
        steps.compile(name, state, batch, frozen)
      step += 1
      with log.traced(step):
        mean = log.means.get(name, np.zeros(2))
        state, metrics, mean = steps(name, state, batch, frozen, mean)
        log.means[name] = mean
      log.push(step, metrics)
      if program.sample and _every(settings.sample_every, step):
        log.sync()
        with log.paused('sample'):
          _write_samples(program.sample, state, workdir / f'samples/{step:08}')
      stopping = stop.asked(step)
      if stopping or step == last or clock.due(step):
        _save(checkpoints, step, state, loader, log)
        clock.restart()
    log.finish(step, checkpoints.wait)
    outcome = 'finished' if step == last else 'stopped'
    return TrainResult(state, step, outcome, checkpoints.path(step))


def _every(steps: int, step: int) -> bool:
  return bool(steps) and step % steps == 0


class _CheckpointClock:
  """Checkpoint schedule, by steps or by minutes."""

  def __init__(self, settings: LoopSettings):
    self._settings = settings
    self.restart()

  def due(self, step: int) -> bool:
    """Returns the same answer in every process; call it once for every step."""
    if _every(self._settings.checkpoint_every, step):
      return True
    if not self._settings.checkpoint_minutes:
      return False
    minutes = (time.monotonic() - self._last) / 60
    late = minutes >= self._settings.checkpoint_minutes
    if jax.process_count() > 1:
      # Clocks differ, so all follow process 0; asking it costs a round trip.
      if step % self._settings.log_every:
        return False
      late = bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
    return late

  def restart(self) -> None:
    """Counts the minutes from now."""
    self._last = time.monotonic()


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack(finite).all()


def _save(
  checkpoints: Checkpoints,
  step: int,
  state: TrainState,
  loader: Loader,
  log: RunLog,
) -> None:
  """Saves unless a parameter is broken: an older, good one would go for it."""
  log.sync()  # The time until the step has been computed is the step's.
  if not _all_finite(state.params):
    raise TrainingStopped(
      f'A parameter is not finite after step {step}; training stopped at its '
      'last good checkpoint: lower the learning rate or look at the data.'
    )
  with log.measure('checkpoint'):
    host = {'loader': loader.get_state(), **log.get_state()}
    checkpoints.save(step, state, host)
  log.goodput.write(step)


def _write_samples(sample, state: TrainState, folder: Path) -> None:
  """Lets the program fill a folder that appears complete or not at all.

  Of several processes only the first one samples, on its own devices.
  """
  if jax.process_count() > 1:
    state = state.replace(params={}, opt_state={}, ema=to_host(state.ema))
  with sync('Sampling'):
    # It may exist from before an interruption, made of the same state.
    if jax.process_index() == 0 and not folder.exists():
      with local_mesh(), files.writing(folder, folder=True) as temporary:
        sample(state, temporary)
