"""Metrics as JSON lines that a resumed run continues without a trace."""

import contextlib
import importlib.util
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from clu import metrics

from unitemp_jax import files
from unitemp_jax.training.guard import SKIPPED, Guard

# Fields that differ between two equal runs.
TIME_FIELDS = ('seconds', 'steps_per_second')


def open_log(path: Path, last_step: int | None = None) -> TextIO:
  """Opens a file of JSON lines to append to, without a half-written line.

  Args:
    path: created with its folder.
    last_step: lines of later steps are dropped too, atomically.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  text = path.read_bytes() if path.exists() else b''
  kept = []
  for line in text.splitlines(keepends=True):
    if not line.endswith(b'\n'):
      break
    if last_step is not None and json.loads(line)['step'] > last_step:
      break
    kept.append(line)
  if (whole := b''.join(kept)) != text:
    files.write(path, whole)
  return path.open('a')


class MetricsLog:
  """Averages metrics over `log_every` steps; writes a line and prints progress.

  The metrics of a step are fetched after the next step has been dispatched, so
  that the device never waits for the host. Each metric is averaged over the
  steps that reported it, so steps of different kinds may report different ones.
  Skipped steps are counted and left out of the means. Where TensorFlow is
  installed the lines are written for TensorBoard too.
  """

  def __init__(
    self,
    path: Path,
    *,
    first_step: int,
    num_steps: int,
    log_every: int,
    sums: dict[str, list],
    guard: Guard,
  ):
    """Continues the file `path`, and `sums` of an unfinished line.

    Args:
      path: of the JSON lines; later ones than `first_step` are dropped.
      first_step: number of finished steps.
      num_steps: the last step, which gets a line in any case.
      log_every: steps per line.
      sums: what `get_state` returned after `first_step`; {} at first.
      guard: counts skipped steps.
    """
    self._guard = guard
    self._num_steps = num_steps
    self._log_every = log_every
    self._pending: tuple[int, Any, int] | None = None
    self._window = {
      name: metrics.Average(np.float64(total), np.int64(count))
      for name, (total, count) in sums.items()
    }
    self._start = self._last_time = time.monotonic()
    self._last_step = first_step
    self._file: TextIO | None = None
    self._board: Any = None
    if jax.process_index() == 0:
      self._file = open_log(path, first_step)
      if importlib.util.find_spec('tensorflow'):
        # clu's writers cannot be imported without it.
        from clu import metric_writers

        self._board = metric_writers.create_default_writer(
          path.parent / 'tensorboard'
        )

  def get_state(self) -> dict:
    """Returns the sums since the last line, as JSON-able values."""
    return {
      name: [float(mean.total), int(mean.count)]
      for name, mean in self._window.items()
    }

  def push(self, step: int, values: Any, data_crc: int) -> None:
    """Takes the metrics of `step` and handles those of the step before.

    Args:
      step: number of finished steps, this one included.
      values: name -> scalar on the device.
      data_crc: checksum of all batches so far.

    Raises:
      TrainingStopped: too many steps in a row were skipped.
    """
    self.flush()
    self._pending = (step, values, data_crc)

  def flush(self) -> None:
    """Waits for the metrics that were pushed last and handles them."""
    if self._pending is None:
      return
    step, pending, data_crc = self._pending
    self._pending = None
    values = {name: float(v) for name, v in jax.device_get(pending).items()}
    if self._guard.count(step, values):
      values = {}
    values.pop(SKIPPED, None)
    for name, value in values.items():
      mean = metrics.Average(np.float64(value), np.int64(1))
      if name in self._window:
        mean = self._window[name].merge(mean)
      self._window[name] = mean
    if step % self._log_every == 0 or step == self._num_steps:
      self._write(step, data_crc)

  def _write(self, step: int, data_crc: int) -> None:
    means = {name: float(m.compute()) for name, m in self._window.items()}
    self._window = {}
    now = time.monotonic()
    rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
    self._last_step, self._last_time = step, now
    if self._file is None:
      return
    line = {'step': step, **means, 'data_crc': data_crc}
    line |= {'skipped_steps': self._guard.total}
    line |= {'seconds': round(now - self._start, 3)}
    line |= {'steps_per_second': round(rate, 4)}
    self._file.write(json.dumps(line) + '\n')
    self._file.flush()
    if self._board is not None:
      self._board.write_scalars(step, {**means, 'steps_per_second': rate})
    left = round((self._num_steps - step) / rate)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in means.items())
    print(
      f'step {step}/{self._num_steps}  {shown}  {rate:.3g} steps/s  '
      f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left',
      flush=True,
    )

  def sync(self) -> None:
    """Flushes, and makes the lines so far survive a crash of the machine."""
    self.flush()
    if self._file is not None:
      os.fsync(self._file.fileno())

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside the context out of the steps per second."""
    start = time.monotonic()
    yield
    self._last_time += time.monotonic() - start

  def close(self) -> None:
    """Closes the file; metrics that were not flushed are dropped."""
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      self._board.close()
