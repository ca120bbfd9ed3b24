"""What a benchmark is given and finds: model, timing, hardware, memory."""

import contextlib
import dataclasses
import functools
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
from unitemp_jax.evaluation.metrics import results
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder


@dataclasses.dataclass(frozen=True)
class Claim:
  """A sentence that a benchmark finds true or not."""

  text: str  # what is claimed, with the limit
  measured: float  # what was found
  holds: bool  # whether it is within the limit


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What one benchmark found."""

  sections: tuple[Section, ...]  # tables
  # raw numbers by name, for plots and for doubts
  series: dict[str, list[float]]
  claims: tuple[Claim, ...] = ()  # what it was made to show
  # name -> text of what else is written
  files: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CallShape:
  """Sizes of one call of attention."""

  queries: int  # tokens
  keys: int  # tokens
  heads: int  # of them
  head_dim: int  # width of one
  # that tokens are divided into and that see those before them, under a mask; 0
  # is no mask
  frames: int


@dataclasses.dataclass(frozen=True)
class Context:
  """A model, and how much is measured."""

  folder: Path  # of the model
  repeats: int  # how often what is timed is repeated, warm
  blocks: int  # length of the long rollouts
  report: Callable[[str], None] = print  # is given lines about the progress
  # of attention; by default one that the device does in seconds
  call: CallShape | None = None
  config: Any = None  # of a training, whose data are read

  @functools.cached_property
  def card(self) -> model_folder.ModelCard:
    """Sizes of the model."""
    return model_folder.read_card(self.folder)

  @functools.cached_property
  def model(self) -> str:
    """What names the model."""
    return model_folder.fingerprint(self.folder)

  @functools.cached_property
  def pipeline(self) -> Pipeline:
    """The whole model."""
    return Pipeline.load(self.folder)

  @functools.cached_property
  def student(self) -> Any:
    """Parameters of the student."""
    shapes = model_folder.param_shapes(self.card)['student']
    path = self.folder / 'student.safetensors'
    return jax.device_put(weights.load(path, shapes))

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of a latent."""
    return self.card.latent_grid(self.card.height, self.card.width)

  def row(
    self, metric: str, group: str, measured: Interval, unit: str, how: str
  ) -> results.Result:
    """A row of a table; `how` is completed by the command and the model."""
    how = f'{how}; unitemp bench, model {self.model}'
    return results.result(metric, group, measured, unit=unit, how=how)


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
