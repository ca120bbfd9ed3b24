"""What a benchmark ran on, and how much memory it holds."""

import os
import platform
import resource
import sys
from pathlib import Path

import jax

import unitemp_jax

_MIB = 2**20


def describe() -> dict[str, str | int]:
  """Hardware and versions, for the results of a benchmark."""
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'devices': jax.device_count(),
    'platform': device.platform,
    'processor': _processor(),
    'cores': len(os.sched_getaffinity(0))
    if hasattr(os, 'sched_getaffinity')
    else os.cpu_count() or 1,
    'python': platform.python_version(),
    'jax': jax.__version__,
    'version': unitemp_jax.__version__,
  }


def _processor() -> str:
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [line for line in lines if line.startswith('model name')]
  return names[0].split(':')[1].strip() if names else platform.processor()


def live_mebibytes() -> float:
  """Memory of all arrays that jax keeps; what programs use inside is not in."""
  return sum(array.nbytes for array in jax.live_arrays()) / _MIB


def device_mebibytes() -> float | None:
  """Memory in use on the first device; None where it does not say (CPU)."""
  stats = jax.devices()[0].memory_stats() or {}
  used = stats.get('bytes_in_use')
  return None if used is None else used / _MIB


def peak_host_mebibytes() -> float:
  """The most memory that this process has held so far."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / _MIB if sys.platform == 'darwin' else peak / 1024
