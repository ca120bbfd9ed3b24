"""Metrics as JSON lines that a resumed run continues without a trace."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jax

from unitemp_jax import files
from unitemp_jax.training.guard import SKIPPED, Guard

# Fields that differ between two equal runs.
TIME_FIELDS = ('seconds', 'steps_per_second')


def truncate_lines(path: Path, last_step: int) -> None:
  """Drops all lines of `path` beyond `last_step`, and a half-written one.

  The file is replaced atomically, or left alone if nothing is to be dropped.
  """
  if not path.exists():
    return
  text = path.read_bytes()
  kept = []
  for line in text.splitlines(keepends=True):
    if not line.endswith(b'\n') or json.loads(line)['step'] > last_step:
      break
    kept.append(line)
  kept = b''.join(kept)
  if kept != text:
    files.write(path, kept)


class MetricsLog:
  """Averages metrics over `log_every` steps; writes a line and prints progress.

  The metrics of a step are fetched after the next step has been dispatched, so
  that the device never waits for the host. Each metric is averaged over the
  steps that reported it, so steps of different kinds may report different ones.
  Skipped steps are counted and left out of the means.
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
    self._window = {name: list(pair) for name, pair in sums.items()}
    self._start = self._last_time = time.monotonic()
    self._last_step = first_step
    self._file = None
    if jax.process_index() == 0:
      path.parent.mkdir(parents=True, exist_ok=True)
      truncate_lines(path, first_step)
      self._file = path.open('a')

  def get_state(self) -> dict:
    """Returns the sums since the last line, as JSON-able values."""
    return {name: list(pair) for name, pair in self._window.items()}

  def push(self, step: int, metrics: Any, data_crc: int) -> None:
    """Takes the metrics of `step` and handles those of the step before.

    Args:
      step: number of finished steps, this one included.
      metrics: name -> scalar on the device.
      data_crc: checksum of all batches so far.

    Raises:
      TrainingStopped: too many steps in a row were skipped.
    """
    self.flush()
    self._pending = (step, metrics, data_crc)

  def flush(self) -> None:
    """Waits for the metrics that were pushed last and handles them."""
    if self._pending is None:
      return
    step, metrics, data_crc = self._pending
    self._pending = None
    values = {name: float(v) for name, v in jax.device_get(metrics).items()}
    if self._guard.count(step, values):
      values = {}
    values.pop(SKIPPED, None)
    for name, value in values.items():
      total, count = self._window.get(name, (0.0, 0))
      self._window[name] = [total + value, count + 1]
    if step % self._log_every == 0 or step == self._num_steps:
      self._write(step, data_crc)

  def _write(self, step: int, data_crc: int) -> None:
    means = {
      name: total / count for name, (total, count) in self._window.items()
    }
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
    self._print(step, means, rate)

  def _print(self, step: int, means: dict[str, float], rate: float) -> None:
    left = round((self._num_steps - step) / rate)
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    shown = '  '.join(f'{name} {value:.4g}' for name, value in means.items())
    print(
      f'step {step}/{self._num_steps}  {shown}  {rate:.3g} steps/s  '
      f'{hours}:{minutes:02}:{seconds:02} left',
      flush=True,
    )

  def sync(self) -> None:
    """Flushes, and makes the lines so far survive a crash of the machine."""
    self.flush()
    if self._file is not None:
      os.fsync(self._file.fileno())

  @contextlib.contextmanager
  def paused(self):
    """Leaves the time inside the context out of the steps per second."""
    start = time.monotonic()
    yield
    self._last_time += time.monotonic() - start

  def close(self) -> None:
    """Closes the file; metrics that were not flushed are dropped."""
    if self._file is not None:
      self._file.close()
