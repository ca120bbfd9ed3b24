"""Progress with the time left: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')


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
  start = time.monotonic()
  for done, item in enumerate(items, start=1):
    yield item
    left = (time.monotonic() - start) / done * (len(items) - done)
    print(f'{unit} {done}/{len(items)}, {left:.0f} s left', flush=True)
