"""Timing, hardware and memory of a benchmark."""

import contextlib
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import unitemp_jax

_MIB = 2**20


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


def hardware() -> dict[str, str | int]:
  """Returns hardware and versions, for the results of a benchmark."""
  device = jax.devices()[0]
  processor = platform.processor()
  with contextlib.suppress(OSError, IndexError):
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = [line for line in lines if line.startswith('model name')]
    processor = names[0].split(':')[1].strip()
  return {
    'device': device.device_kind,
    'devices': jax.device_count(),
    'platform': device.platform,
    'processor': processor,
    'cores': len(os.sched_getaffinity(0))
    if hasattr(os, 'sched_getaffinity')
    else os.cpu_count() or 1,
    'python': platform.python_version(),
    'jax': jax.__version__,
    'version': unitemp_jax.__version__,
  }


def live_mebibytes() -> float:
  """Returns the memory of all arrays that jax keeps, not of its programs."""
  return sum(array.nbytes for array in jax.live_arrays()) / _MIB


def peak_host_mebibytes() -> float:
  """Returns the most memory that this process has held so far."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / _MIB if sys.platform == 'darwin' else peak / 1024
