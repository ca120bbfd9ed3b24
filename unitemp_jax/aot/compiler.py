"""Compiles a step with the TPU compiler, and reads off what it needs."""

import contextlib
import importlib.metadata
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from unitemp_jax.aot import hlo, schedule, serving, steps, topology
from unitemp_jax.aot.memory_report import (
  GIB,
  MemoryReport,
  StepReport,
  step_report,
)
from unitemp_jax.aot.step import Step
from unitemp_jax.aot.topology import Topology
from unitemp_jax.training.config import TRAINING, load_config

# Of the compiler: as little as it can do, or what it does by default.
_FAST, _EXACT = -1.0, 0.0


@contextlib.contextmanager
def effort(fast: bool) -> Iterator[None]:
  """Sets how hard the compiler tries to make fast programs."""
  name = 'jax_exec_time_optimization_effort'
  before = getattr(jax.config, name)
  jax.config.update(name, _FAST if fast else _EXACT)
  try:
    yield
  finally:
    jax.config.update(name, before)


def run(
  step: Step, topology: Topology, fast: bool, schedules: Path | None = None
) -> StepReport:
  """Traces and compiles a step.

  Args:
    step: for the devices of a topology.
    topology: the same.
    fast: with the least effort; memory then differs.
    schedules: where the compiler writes those of kernels; its time is read off
      then.

  Raises:
    jax.errors.JaxRuntimeError: an error that has nothing to do with memory.
  """
  began = time.monotonic()
  traffic: list[hlo.Traffic] = []
  largest: list[str] = []
  found: schedule.StepTime | None = None
  if schedules is not None:
    schedule.take_bundles(schedules)  # of a step before
  try:
    with effort(fast):
      compiled = step.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    fits, seconds = False, time.monotonic() - began
    # What the compiler asked for holds the arguments too.
    peak, largest = read_exhausted(str(error))
    scratch = max(peak - step.argument_bytes(), 0)
  else:
    fits, seconds = True, time.monotonic() - began
    memory = compiled.memory_analysis()
    peak, scratch = memory.peak_memory_in_bytes, memory.temp_size_in_bytes
    text = compiled.as_text()
    devices, slices = topology.devices, topology.slices
    traffic = hlo.count(text, devices, slices, step.loops, step.kinds)
    if schedules is not None:
      bundles = schedule.take_bundles(schedules)
      found = schedule.analyse(
        *(text, topology, bundles, step.cache, step.loops, step.flops.total),
        step.kinds,
      )
  return step_report(
    step,
    compiled=fits,
    peak=peak,
    scratch=scratch,
    compile_seconds=seconds,
    traffic=traffic,
    largest=largest,
    time=found,
  )


_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def _bytes(number: str, unit: str) -> int:
  return int(float(number) * _UNITS[unit])


def read_exhausted(message: str) -> tuple[int, list[str]]:
  """Returns the bytes that a program asked for, and its largest allocations.

  Args:
    message: of the compiler's RESOURCE_EXHAUSTED.
  """
  size = r'([\d.]+)([KMGT]?)'
  asked = re.search(
    rf'Used {size} of|required for HLO temporaries \({size}\)', message
  )
  peak = 0
  if asked is not None:
    peak = _bytes(*[part or '' for part in asked.groups() if part is not None])
  found = []
  for entry in re.split(r'\n\s*\d+\. Size: ', message)[1:4]:
    amount = re.match(size, entry)
    operator = re.search(r'op_name="([^"]*)"', entry)
    shape = re.search(r'Shape: (\S+?)[{\s]', entry)
    if amount is not None:
      words = [f'{_bytes(*amount.groups()) / GIB:.2f} GiB']
      words += [shape[1]] if shape else []
      words += [f'of {operator[1]}'] if operator else []
      found.append(' '.join(words))
  return peak, found


def compile_config(
  name: str,
  overrides: list[str],
  target: Topology,
  names: list[str] | None = None,
  *,
  depth: int | None = None,
  fast: bool = False,
  dry_run: bool = False,
  mesh: Mapping[str, int] | None = None,
) -> MemoryReport:
  """Compiles the steps of a config for a topology; nothing is run.

  Args:
    name: `FILE[:ARG]` of the config; or the folder of a model to be served.
    overrides: `a.b=value` each.
    target: what to compile for.
    names: of steps, see `steps.steps_of`; by default all that it has.
    depth: compiles so many layers only.
    fast: least effort of the compiler.
    dry_run: only prints what would be compiled.
    mesh: that a student is served on; by default all devices along `data`.

  Raises:
    UserError: see `load_config` and `steps.steps_of`.
  """
  schedules = None if fast else schedule.folder()
  devices = topology.devices(target)
  if os.path.isdir(name):
    limit = target.chip.gib * 2**30
    names = list(serving.FOLDER) if names is None else names
    found = serving.folder_steps(Path(name), names, devices, limit, mesh)
  else:
    words = [f'--config.{one}' for one in overrides]
    config = load_config(name, words, TRAINING)
    if depth is not None:
      steps.with_depth(config, depth)
    if names is None:
      names = list(steps.NAMES) if 'student' in config else [steps.TRAIN]
    found = steps.steps_of(config, names, devices, mesh)
  made = []
  for step in found:
    if dry_run:
      print(f'would compile {step.name} for {target}, batch {step.rows}')
      continue
    print(f'compiling {step.name} for {target} ...', flush=True)
    made.append(run(step, target, fast, schedules))
  return MemoryReport(
    config=name,
    overrides=overrides,
    topology=target.name,
    slices=target.slices,
    chips=target.chips,
    chip_gib=target.chip.gib,
    layers=depth,
    mode='fast' if fast else 'exact',
    versions={
      name: importlib.metadata.version(name) for name in ('jax', 'libtpu')
    },
    steps=made,
  )
