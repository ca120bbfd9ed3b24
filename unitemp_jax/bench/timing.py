"""Times functions fairly: warm, repeated, and in turns."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def in_turns(
  functions: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 2
) -> dict[str, np.ndarray]:
  """Times functions one after the other, round by round.

  A machine that becomes slower for a while slows all of them, so that their
  ratios within a round stay fair.

  Args:
    functions: without arguments, by name; what they return is waited for.
    repeats: rounds that are timed.
    warm_up: rounds before, which compile.

  Returns:
    Seconds `[repeats]` by name.
  """
  seconds = {name: np.empty(repeats) for name in functions}
  for turn in range(-warm_up, repeats):
    for name, function in functions.items():
      began = time.perf_counter()
      jax.block_until_ready(function())
      if turn >= 0:
        seconds[name][turn] = time.perf_counter() - began
  return seconds
