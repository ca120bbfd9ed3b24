"""Logs of a training as JSON lines: its metrics, and where the time goes.

A resumed run continues the metrics without a trace. Every line of goodput
accounts for the time since the line before it: seconds by kind, and the number
of finished steps. A restart has a line of its own, with the time during which
nothing ran and the steps that have to be done again.
"""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from clu import metrics

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.parallel import processes
from unitemp_jax.training.program import SKIPPED, TrainingStopped


def open_log(path: Path, last_step: int | None = None) -> TextIO:
  """Opens a file of JSON lines to append to, without a half-written line.

  Lines of steps after `last_step` are dropped too, atomically.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  text = path.read_bytes() if path.exists() else b''
  kept = []
  for line in text.splitlines(keepends=True):
    if not line.endswith(b'\n'):
      break
    if last_step is None:
      pass
    elif _parsed(path, line, {'step': int})['step'] > last_step:
      break
    kept.append(line)
  if (whole := b''.join(kept)) != text:
    files.write(path, whole)
  return files.append_to(path)


@dataclasses.dataclass(frozen=True)
class LoopSettings:
  """Settings of the loop; a run may be resumed with other values.

  The names are those of the config, which refuses what no training can have.
  """

  num_steps: int  # steps in all, those before a resume included
  log_every: int = 50  # steps per line of metrics
  checkpoint_every: int = 0  # steps between checkpoints; 0 for none
  # Minutes between them; the last step has one anyway.
  checkpoint_minutes: float = 0.0
  keep_checkpoints: int = 2  # how many of the newest checkpoints are kept
  # Steps between checkpoints that are kept for good; 0 for none.
  keep_every: int = 0
  sample_every: int = 0  # steps between samples; 0 for none
  profile_step: int = 10  # the first step that is traced
  profile_steps: int = 0  # how many are; 0 for none
  # Steps with a larger loss, in units of its running mean, are skipped, as
  # those with a metric that is not finite; 0 sets no limit.
  max_loss_ratio: float = 0.0
  # Number of skipped steps in a row that stops the training.
  max_skipped: int = 5


# Besides 'initialise', 'compile', 'data', 'checkpoint' and 'sample': the rest.
STEP = 'step'

STARTED = time.time()  # When the process began, as far as this package knows.


def read_lines(path: Path) -> list[dict[str, Any]]:
  """Returns the lines of a log, without one that a kill cut off."""
  if not path.exists():
    return []
  lines = path.read_bytes().splitlines(keepends=True)
  kinds = {'time': int | float, 'at_step': int, 'seconds': dict}
  return [_parsed(path, line, kinds) for line in lines if line.endswith(b'\n')]


def _parsed(path: Path, line: bytes, kinds: dict[str, Any]) -> dict[str, Any]:
  """A line with values of these kinds; UserError if it is no such line."""
  with contextlib.suppress(ValueError, RecursionError):
    value = json.loads(line)
    if isinstance(value, dict) and all(
      isinstance(value.get(name), kind) for name, kind in kinds.items()
    ):
      numbers = value['seconds'].values() if 'time' in kinds else ()
      if all(isinstance(number, int | float) for number in numbers):
        return value
  raise UserError(
    f'{path} is no log of a training (see {line[:40]!r}); move it away to go '
    'on without it, or choose another --workdir.'
  )


def _redone(lines: list[dict[str, Any]]) -> float:
  """Returns the seconds of steps that a restart threw away."""
  alive: list[tuple[int, float]] = []
  lost = 0.0
  for line in lines:
    at, spent = line['at_step'], line['seconds']
    if 'restart' in line:
      lost += sum(seconds for step, seconds in alive if step > at)
      alive = [pair for pair in alive if pair[0] <= at]
    alive.append((at, spent.get(STEP, 0.0)))
  return lost


def summarize(lines: list[dict[str, Any]]) -> dict[str, float]:
  """Returns the seconds of each kind of a whole run.

  `lost` are steps done again, and were taken out of `step`; `down` is the time
  between two processes. `goodput` is the share of `step` in all of it.
  """
  total: dict[str, float] = {}
  for line in lines:
    for kind, seconds in line['seconds'].items():
      total[kind] = total.get(kind, 0.0) + seconds
  total['lost'] = _redone(lines)
  total[STEP] = total.get(STEP, 0.0) - total['lost']
  everything = sum(total.values())
  total['goodput'] = total[STEP] / everything if everything else 0.0
  return total


def describe(total: dict[str, float]) -> str:
  """Returns a summary as one line, the largest parts first."""
  parts = {k: v for k, v in total.items() if k != 'goodput' and v >= 0.05}
  shown = ', '.join(
    f'{kind} {seconds:.1f} s'
    for kind, seconds in sorted(parts.items(), key=lambda pair: -pair[1])
  )
  return f'goodput {100 * total["goodput"]:.1f} % of the time: {shown}'


class Goodput:
  """Writes the log; only process 0 does, the others' times are alike."""

  def __init__(
    self, path: Path, *, first_step: int, clock=time.time, started=STARTED
  ):
    """Continues `path`.

    Args:
      path: of the JSON lines; created with its folder.
      first_step: number of finished steps.
      clock: seconds since 1970.
      started: when this process began, on that clock.
    """
    before = read_lines(path)
    if before:  # A second training in one process began where the first ended.
      started = max(started, before[-1]['time'])
    self._clock = clock
    self._last = started
    self._spent: dict[str, float] = {}
    self._nested = 0.0
    self._path = path
    self._file: TextIO | None = None
    if jax.process_index() != 0:
      return
    self._file = open_log(path)
    if before:
      down = started - before[-1]['time']
      restarts = 1 + sum('restart' in line for line in before)
      self._append(first_step, {'down': down}, started, restart=restarts)

  @contextlib.contextmanager
  def measure(self, kind: str) -> Iterator[None]:
    """Counts the time in the context as `kind`, one inside it as its own."""
    start, outer = self._clock(), self._nested
    self._nested = 0.0
    try:
      yield
    finally:
      spent = self._clock() - start
      own = spent - self._nested
      self._spent[kind] = self._spent.get(kind, 0.0) + own
      self._nested = outer + spent

  def initialised(self) -> None:
    """Counts everything up to now as `initialise`."""
    known = sum(self._spent.values())
    self._spent['initialise'] = self._clock() - self._last - known

  def write(self, step: int) -> None:
    """Accounts for the time since the last line; `step` steps are finished."""
    now = self._clock()
    spent, self._spent = self._spent, {}
    spent[STEP] = now - self._last - sum(spent.values())
    self._last = now
    self._append(step, spent, now)

  def _append(self, step: int, spent: dict, now: float, **more: Any) -> None:
    if self._file is None:
      return
    seconds = {kind: round(value, 4) for kind, value in spent.items()}
    seconds = {kind: value for kind, value in seconds.items() if value}
    line = {'time': round(now, 3), 'at_step': step, **more, 'seconds': seconds}
    self._file.write(json.dumps(line) + '\n')
    self._file.flush()

  def summary(self) -> str:
    """Returns the whole run in one line."""
    return describe(summarize(read_lines(self._path)))

  def close(self) -> None:
    """Closes the file; time since the last line is not accounted for."""
    if self._file is not None:
      self._file.close()


class RunLog:
  """Metrics, goodput, profiler traces and data checksums of a run.

  The metrics of a step are fetched after the next step has been dispatched, so
  that the device never waits for the host. Each metric is averaged over the
  steps that reported it, so steps of different kinds may report different ones.
  Skipped steps are counted and left out of the means. Where TensorFlow is
  installed the lines are written for TensorBoard too.
  """

  def __init__(
    self, workdir: Path, step: int, host: dict[str, Any], settings: LoopSettings
  ):
    """Continues a run after `step` steps, when `get_state` returned `host`.

    That is {} at first. Lines of later steps are dropped.
    """
    guard = host.get('guard', {})
    self._skipped, self._in_row = guard.get('total', 0), guard.get('in_row', 0)
    # Name of a step -> the running mean of its loss, see `program.guarded`.
    self.means: dict[str, Any] = {
      name: np.asarray(mean, np.float32)
      for name, mean in guard.get('means', {}).items()
    }
    self.goodput = Goodput(workdir / 'goodput.jsonl', first_step=step)
    self.measure = self.goodput.measure
    self._settings, self._crc = settings, host.get('data_crc', 0)
    self._pending: tuple[int, Any, int] | None = None
    self._window = {
      name: metrics.Average(np.float64(total), np.int64(count))
      for name, (total, count) in host.get('metrics', {}).items()
    }
    self._start = self._last_time = time.monotonic()
    self._last_step = step
    self._profile, self._tracing = str(workdir / 'profile'), False
    first = settings.profile_step
    self._profiled = range(first, first + settings.profile_steps)
    self._file: TextIO | None = None
    self._board: Any = None
    if jax.process_index() == 0:
      self._file = open_log(workdir / 'metrics.jsonl', step)
      if importlib.util.find_spec('tensorflow'):
        # clu's writers cannot be imported without it.
        from clu import metric_writers

        self._board = metric_writers.create_default_writer(
          workdir / 'tensorboard'
        )
    self.goodput.initialised()

  def get_state(self) -> dict[str, Any]:
    """Returns what a resumed run needs, as JSON-able values."""
    sums = {
      name: [float(mean.total), int(mean.count)]
      for name, mean in self._window.items()
    }
    means = {name: np.asarray(mean) for name, mean in self.means.items()}
    guard = {
      'total': self._skipped,
      'in_row': self._in_row,
      'means': {name: mean.tolist() for name, mean in means.items()},
    }
    return {'metrics': sums, 'guard': guard, 'data_crc': self._crc}

  def checked(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds a batch to the checksum of all so far, and returns it."""
    for leaf in jax.tree.leaves(batch):
      data = np.ascontiguousarray(leaf).view(np.uint8).data
      self._crc = zlib.crc32(data, self._crc)
    return batch

  @contextlib.contextmanager
  def paused(self, kind: str) -> Iterator[None]:
    """Counts the context as `kind`, and not towards the steps per second."""
    start = time.monotonic()
    with self.measure(kind):
      yield
    self._last_time += time.monotonic() - start

  @contextlib.contextmanager
  def traced(self, step: int) -> Iterator[None]:
    """Surrounds the dispatch of a step, which traces show by number."""
    if step in self._profiled and not self._tracing:
      jax.profiler.start_trace(self._profile)
      self._tracing = True
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      yield

  def push(self, step: int, values: dict[str, jax.Array]) -> None:
    """Takes the metrics of `step` and handles those of the step before.

    Raises:
      TrainingStopped: too many steps in a row were skipped.
    """
    self._flush()
    self._pending = (step, values, self._crc)
    if self._tracing and step + 1 not in self._profiled:
      jax.block_until_ready(values)
      self._end_trace()
    if step % self._settings.log_every == 0:
      self.goodput.write(step)

  def _flush(self) -> None:
    """Waits for the metrics that were pushed last and handles them."""
    if self._pending is None:
      return
    step, pending, data_crc = self._pending
    self._pending = None
    values = {name: float(v) for name, v in jax.device_get(pending).items()}
    if values.pop(SKIPPED, 0):
      self._skip(step, values)
      values = {}
    else:
      self._in_row = 0
    for name, value in values.items():
      mean = metrics.Average(np.float64(value), np.int64(1))
      if name in self._window:
        mean = self._window[name].merge(mean)
      self._window[name] = mean
    every, last = self._settings.log_every, self._settings.num_steps
    if step % every == 0 or step == last:
      self._write(step, last, data_crc)

  def _skip(self, step: int, values: dict[str, float]) -> None:
    """Counts a skipped step; many in a row stop the training."""
    self._skipped, self._in_row = self._skipped + 1, self._in_row + 1
    most = min(self._settings.max_skipped, self._settings.num_steps)
    shown = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    broken = [k for k, value in values.items() if not math.isfinite(value)]
    why = f'{broken[0]} is not finite' if broken else 'the loss exploded'
    processes.log(
      f'step {step} skipped, because {why}: {shown} ({self._in_row} in a row, '
      f'{most} stop the training)'
    )
    if self._in_row >= most:
      raise TrainingStopped(
        f'{self._in_row} steps in a row were skipped up to step {step} '
        f'({why}); training stopped at its last good checkpoint: lower the '
        'learning rate, look at the data, or raise config.max_skipped.'
      )

  def _write(self, step: int, last: int, data_crc: int) -> None:
    means = {name: float(m.compute()) for name, m in self._window.items()}
    self._window = {}
    now = time.monotonic()
    rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
    self._last_step, self._last_time = step, now
    if self._file is None:
      return
    line = {'step': step, **means, 'data_crc': data_crc}
    line |= {'skipped_steps': self._skipped}
    line |= {'seconds': round(now - self._start, 3)}
    line |= {'steps_per_second': round(rate, 4)}
    self._file.write(json.dumps(line) + '\n')
    self._file.flush()
    if self._board is not None:
      self._board.write_scalars(step, {**means, 'steps_per_second': rate})
    left = round((last - step) / rate)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in means.items())
    print(
      f'step {step}/{last}  {shown}  {rate:.3g} steps/s  '
      f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left',
      flush=True,
    )

  def sync(self) -> None:
    """Waits for the last step; its line survives a crash of the machine."""
    self._flush()
    if self._file is not None:
      os.fsync(self._file.fileno())

  def finish(self, step: int, wait: Callable[[], None]) -> None:
    """Waits for the last checkpoint and reports where the time went."""
    with self.measure('checkpoint'):
      wait()
    self.goodput.write(step)
    processes.log(self.goodput.summary())

  def _end_trace(self) -> None:
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()
      number = len(self._profiled)
      processes.log(f'profile of {number} steps: {self._profile}')

  def close(self) -> None:
    """Ends a trace and closes the files; what is pending is dropped."""
    self._end_trace()
    for file in (self._file, self._board, self.goodput):
      if file is not None:
        file.close()
