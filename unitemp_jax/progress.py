"""Progress with the time left: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')


def mean_rate(times: Sequence[tuple[int, float]]) -> float:
  """How many a second, of steps (how many, seconds); 0 if there is none.

  The first step compiles: it counts only as long as it is alone.
  """
  timed = times[1:] or times
  seconds = sum(took for _, took in timed)
  return sum(count for count, _ in timed) / seconds if seconds else 0.0


def duration(seconds: float) -> str:
  """A time span to be read: '40 s', '12 min', '3 h 20 min', '2 d 4 h'."""
  seconds = round(seconds)
  if seconds < 100:
    return f'{seconds} s'
  minutes = round(seconds / 60)
  if minutes < 100:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 48:
    return f'{hours} h {minutes} min'
  return f'{hours // 24} d {hours % 24} h'


class Pace:
  """How fast things are done, step by step from now on."""

  def __init__(self, total: int):
    self.total, self.done = total, 0
    self.times: list[tuple[int, float]] = []
    self._last = time.monotonic()

  def step(self, count: int = 1) -> float:
    """So many more are done; returns the seconds that they took."""
    now = time.monotonic()
    self.times.append((count, max(now - self._last, 1e-9)))
    self.done, self._last = self.done + count, now
    return self.times[-1][1]

  @property
  def rate(self) -> float:
    """How many a second."""
    return mean_rate(self.times)

  @property
  def left(self) -> str:
    """The time that the others will take, to be read."""
    return duration((self.total - self.done) / self.rate)


def track(items: Sequence[T], unit: str) -> Iterator[T]:
  """Yields the items and says how many are done, after each.

  Args:
    items: what is to be done.
    unit: what one of them is, such as 'shard'.
  """
  if sys.stderr.isatty():
    import tqdm  # Here, so that what shows no bar does not wait for it.

    yield from tqdm.tqdm(items, unit=unit, dynamic_ncols=True)
    return
  pace = Pace(len(items))
  for item in items:
    yield item
    pace.step()
    print(f'{unit} {pace.done}/{pace.total}, {pace.left} left', flush=True)
