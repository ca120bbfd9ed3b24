"""Traces a few steps of a training for xprof or TensorBoard."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from unitemp_jax.parallel.processes import say


class Profiler:
  """Traces `steps` steps from step `first` on; 0 steps trace nothing.

  Every host writes its own trace into the same folder.
  """

  def __init__(self, folder: Path, first: int, steps: int):
    self._folder = folder
    self._range = range(first, first + steps)
    self._running = False

  @contextlib.contextmanager
  def step(self, step: int) -> Iterator[None]:
    """Surrounds the dispatch of a step, which the trace shows by number."""
    if step in self._range and not self._running:
      jax.profiler.start_trace(str(self._folder))
      self._running = True
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      yield

  def after(self, step: int, metrics) -> None:
    """Ends the trace once the last of its steps has been computed."""
    if self._running and step + 1 not in self._range:
      jax.block_until_ready(metrics)
      self.close()

  def close(self) -> None:
    """Writes the trace if one is running."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
      say(f'profile of {len(self._range)} steps: {self._folder}')
