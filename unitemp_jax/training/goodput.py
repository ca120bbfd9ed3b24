"""Where the time of a training goes, over all its restarts, as JSON lines.

Every line accounts for the time since the line before it: seconds by kind, and
the number of finished steps. A restart has a line of its own, with the time
during which nothing ran and the steps that have to be done again.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import jax

from unitemp_jax.training.metrics import open_log

# Besides 'initialise', 'compile', 'data', 'checkpoint' and 'sample': the rest.
STEP = 'step'

STARTED = time.time()  # When the process began, as far as this package knows.


def read_lines(path: Path) -> list[dict[str, Any]]:
  """Returns the lines of a log, without one that a kill cut off."""
  if not path.exists():
    return []
  lines = path.read_bytes().splitlines(keepends=True)
  return [json.loads(line) for line in lines if line.endswith(b'\n')]


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
