"""The one training loop. Objectives plug in as programs; nobody forks it."""

import contextlib
import dataclasses
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

from unitemp_jax import files
from unitemp_jax.parallel.mesh import Rules, alone, put_batch
from unitemp_jax.parallel.preemption import StopSignal
from unitemp_jax.parallel.processes import say, to_host, together
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.training.checkpoint import Checkpoints
from unitemp_jax.training.goodput import Goodput
from unitemp_jax.training.guard import Guard, TrainingStopped
from unitemp_jax.training.loop_settings import LoopSettings
from unitemp_jax.training.metrics import MetricsLog
from unitemp_jax.training.profiler import Profiler
from unitemp_jax.training.programs import lazy_weights
from unitemp_jax.training.programs.program import (
  CompiledSteps,
  Loader,
  Program,
  SampleFn,
  abstract_state,
  first_state,
)
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
  sample_fn: SampleFn, state: TrainState, step: int, parent: Path
) -> None:
  """Lets `sample_fn` fill a folder that appears complete or not at all.

  Of several processes only the first one samples, on its own devices.
  """
  if jax.process_count() > 1:
    state = state.replace(params={}, opt_state={}, ema=to_host(state.ema))
  folder = parent / f'{step:08}'
  with together('Sampling'):
    if jax.process_index() != 0:
      return
    if folder.exists():  # Written before an interruption, from the same state.
      return
    with files.writing(folder, folder=True) as temporary, alone():
      sample_fn(state, temporary)


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
    say(f'resuming after step {int(state.step)}')
    loader.set_state(host['loader'])
    return state, host
  return first_state(program, seed, mesh, rules), {}


class _Run:
  """The parts of a running training that belong together."""

  def __init__(
    self,
    program: Program,
    loader: Loader,
    settings: LoopSettings,
    checkpoints: Checkpoints,
    workdir: Path,
    state: TrainState,
    host: dict,
    stack: contextlib.ExitStack,
  ):
    """Continues after `state` with what was stored beside it, `host`."""
    self.program, self.loader, self.settings = program, loader, settings
    self.checkpoints, self.workdir = checkpoints, workdir
    self.crc = host.get('data_crc', 0)
    self.guard = Guard(settings.guard, host.get('guard', {}))
    first = int(state.step)
    self.goodput = Goodput(workdir / 'goodput.jsonl', first_step=first)
    stack.callback(self.goodput.close)
    self.log = MetricsLog(
      workdir / 'metrics.jsonl',
      first_step=first,
      num_steps=settings.num_steps,
      log_every=settings.log_every,
      sums=host.get('metrics', {}),
      guard=self.guard,
    )
    stack.callback(self.log.close)
    self.profiler = Profiler(
      workdir / 'profile', settings.profile_step, settings.profile_steps
    )
    stack.callback(self.profiler.close)
    self.goodput.initialised()

  def steps(
    self, state: TrainState, mesh: Mesh, rules: Rules
  ) -> Iterator[tuple[int, TrainState]]:
    """Yields (finished steps, state) after each step.

    The state is donated to the next step, so use it before asking for that.
    """
    compiled = CompiledSteps(
      self.program, state, mesh, self.settings.guard.max_loss_ratio
    )
    frozen = lazy_weights.load(self.program.frozen, mesh, rules)
    means = self.guard.means
    for step in range(int(state.step) + 1, self.settings.num_steps + 1):
      with self.goodput.measure('data'):
        local_batch = next(self.loader)
        self.crc = _chain_crc(local_batch, self.crc)
        batch = put_batch(local_batch, mesh)
      with self.log.paused(), self.goodput.measure('compile'):
        one = compiled.get(step - 1, state, batch, frozen)
      mean = compiled.put_mean(means.get(one.kind, np.zeros(2)))
      with self.profiler.step(step):
        state, metrics, means[one.kind] = one.run(state, batch, frozen, mean)
      self.profiler.after(step, metrics)
      self.log.push(step, metrics, self.crc)
      if step % self.settings.log_every == 0:
        self.goodput.write(step)
      yield step, state

  def sample(self, sample_fn: SampleFn, step: int, state: TrainState) -> None:
    """Writes samples of this step."""
    self.log.flush()
    with self.log.paused(), self.goodput.measure('sample'):
      _write_samples(sample_fn, state, step, self.workdir / 'samples')

  def save(self, step: int, state: TrainState) -> None:
    """Saves unless a parameter is broken: an older, good one would go for it.

    The time until the step has been computed is the step's.
    """
    self.log.sync()
    if not _all_finite(state.params):
      raise TrainingStopped(
        f'A parameter is not finite after step {step}; training stopped at its '
        'last good checkpoint: lower the learning rate or look at the data.'
      )
    with self.goodput.measure('checkpoint'):
      host = {
        'loader': self.loader.get_state(),
        'metrics': self.log.get_state(),
        'guard': self.guard.get_state(),
        'data_crc': self.crc,
      }
      self.checkpoints.save(step, state, host)
    self.goodput.write(step)


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
  sample_fn: SampleFn | None = None,
) -> TrainResult:
  """Trains to the last step, from the newest checkpoint if there is one.

  A run that was killed at any moment and started again equals an uninterrupted
  one bit for bit: parameters, metrics and order of data.

  Args:
    program: the objective.
    loader: this process's share of the data.
    settings: how long, and what is written how often.
    workdir: receives `checkpoints/`, `metrics.jsonl`, `goodput.jsonl`,
      `samples/` and `profile/`; the same folder in every process.
    mesh: from `make_mesh`.
    rules: how parameters are split over it.
    seed: of `state.key`.
    fingerprint: of the config; a checkpoint with another one is refused.
    sample_fn: `(state, folder)`, writes samples into `folder`; of several
      processes only the first one calls it, with nothing but the means.

  Raises:
    UserError: see `Checkpoints.restore_latest` and `put_batch`.
    TrainingStopped: too many steps in a row went wrong, or a parameter to be
      saved is not finite (nothing is saved then).
  """
  workdir, num_steps = Path(workdir), settings.num_steps
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    checkpoints = Checkpoints(
      workdir / 'checkpoints',
      fingerprint=fingerprint,
      keep=settings.keep,
      keep_every=settings.keep_every,
    )
    stack.callback(checkpoints.close)
    state, host = _restore_or_init(
      program, loader, checkpoints, mesh, rules, seed
    )
    if (step := int(state.step)) >= num_steps:
      path = checkpoints.path(step)
      return TrainResult(state, step, 'was finished', path)
    clock = _CheckpointClock(
      settings.checkpoint_every,
      settings.checkpoint_minutes,
      settings.log_every,
    )
    run = _Run(
      program, loader, settings, checkpoints, workdir, state, host, stack
    )
    every = settings.sample_every if sample_fn else 0
    steps = run.steps(state, mesh, rules)
    for step, state in steps:
      if sample_fn and every and step % every == 0:
        run.sample(sample_fn, step, state)
      stopping = stop.asked(step)
      if stopping or step == num_steps or clock.due(step):
        run.save(step, state)
        clock.restart()
      if stopping:
        break
    with run.goodput.measure('checkpoint'):
      checkpoints.wait()
    run.goodput.write(step)
    say(run.goodput.summary())
    outcome = 'finished' if step == num_steps else 'stopped'
    return TrainResult(state, step, outcome, checkpoints.path(step))
