"""Mesh, accumulation and rematerialisation with the least step time.

All candidates are judged by arithmetic first: state split over `fsdp` and
`context`, what a layer keeps for each token, operations, and the weights that
go round. The best of them are compiled, and those results count.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.aot import memory_report, steps
from unitemp_jax.aot.memory_report import GIB, HEADROOM, MemoryReport
from unitemp_jax.aot.step import Step
from unitemp_jax.aot.table import Entry
from unitemp_jax.aot.topology import Topology
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.training.build import build_program
from unitemp_jax.training.programs import builders

# A compiled step needs this many times what its layers keep: gradients, the
# caches of rollouts, the teacher's activations (configs/aot/tables.md).
_ACTIVATIONS = 6.0
# What a layer keeps of a token, in units of its width: `none` keeps inputs of
# all products as well, `attention` what leaves the attentions.
_KEPT = {'none': 20.0, 'attention': 4.0, 'full': 1.0}
COMPILED = 4  # candidates that are compiled by default


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One way of laying a training out."""

  mesh: tuple[int, int, int]  # sizes of the axes data, fsdp and context
  accumulate: int  # passes of a step
  remat: str  # of `models.dit.POLICIES`; '' where a config does not say.
  gib: float = 0.0  # what it needs of each device, estimated
  # that arithmetic and links take of its longest step at least
  seconds: float = 0.0

  @property
  def name(self) -> str:
    """Of its report."""
    mesh = 'x'.join(map(str, self.mesh))
    return f'{mesh}-accumulate-{self.accumulate}-{self.remat or "own"}'

  @property
  def overrides(self) -> list[str]:
    """Of the config."""
    axes = zip(('data', 'fsdp', 'context'), self.mesh, strict=True)
    return [
      *(f'mesh.{axis}={size}' for axis, size in axes),
      f'accumulate={self.accumulate}',
      *([f'model.dit.remat={self.remat}'] if self.remat else []),
    ]


def candidates(
  config: ConfigDict, devices: int, slices: int
) -> list[Candidate]:
  """All meshes, passes and rematerialisations that divide.

  Args:
    config: of a training.
    devices: of all slices.
    slices: over which only `data` may reach.
  """
  models = [config.model]
  if config.get('teacher_model'):
    models.append(config.teacher_model)
  widths = [model.dit.dim for model in models]
  widths += [model.text.dim for model in models if 'text' in model]
  heads = math.gcd(*(model.dit.num_heads for model in models))
  found = []
  for data in _divisors(devices):
    for context in _divisors(math.gcd(devices // data, heads)):
      fsdp = devices // data // context
      rows = config.batch_size // (data * fsdp)
      if data % slices or config.batch_size % (data * fsdp):
        continue
      if any(width % (fsdp * context) for width in widths):
        continue
      found += [
        Candidate((data, fsdp, context), accumulate, remat)
        for accumulate in _divisors(rows)
        for remat in _remats(config)
      ]
  return found


def _remats(config: ConfigDict) -> tuple[str, ...]:
  return tuple(_KEPT) if 'remat' in config.model.dit else ('',)


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]


class Estimate:
  """What candidates of one config need, by arithmetic."""

  def __init__(
    self, config: ConfigDict, target: Topology, devices: Sequence[Any]
  ):
    """Traces the steps once, on as few rows as there are devices."""
    self._config, self._target = config, target
    changed = config.copy_and_resolve_references()
    changed.batch_size, changed.accumulate = target.devices, 1
    made = steps.training_steps(changed, make_mesh({'data': -1}, devices))
    step = max(made.values(), key=lambda step: step.flops.total)
    self.step, self._bytes = step.name, _state_bytes(step)
    self._flops = {}
    for remat in _remats(config):
      if remat:
        changed.model.dit.remat = remat
      self._flops[remat] = build_program(changed).flops()[step.name].total
    dit = builders.dit_config(config.model)
    frames, *grid = builders.latent_shape(config)
    self._tokens = frames * dit.tokens_per_frame(*grid)
    self._token_bytes = dit.num_layers * dit.dim * np.dtype(dit.dtype).itemsize
    self._weights = _dit_bytes(config)
    # Passes through the network that a step takes.
    one = 2 * self._tokens * self._weights / np.dtype(dit.dtype).itemsize
    self._passes = max(self._flops.values()) / one

  def of(self, candidate: Candidate) -> Candidate:
    """The candidate with its estimates."""
    data, fsdp, context = candidate.mesh
    chip, rows = self._target.chip, self._config.batch_size
    here = rows / (data * fsdp * candidate.accumulate)
    kept = here * self._tokens / context * self._token_bytes
    kept *= _KEPT[candidate.remat or 'none']
    state = self._bytes / (fsdp * context)
    flops = self._flops[candidate.remat]
    compute = rows * flops / (self._target.devices * chip.tflops * 1e12)
    parts = fsdp * context
    sent = candidate.accumulate * self._passes * self._weights
    sent *= 1 - 1 / parts
    if context > 1:  # Tokens become heads and back, in every layer.
      own = here * candidate.accumulate * self._tokens / context
      sent += 4 * self._passes * own * self._token_bytes * (1 - 1 / context)
    # Part of it is hidden, so that of two that compute as long it decides.
    network = sent / (chip.ici * 1e9)
    return dataclasses.replace(
      candidate,
      gib=(state + _ACTIVATIONS * kept) / GIB,
      seconds=max(compute, network) + 0.1 * min(compute, network),
    )


def _dit_bytes(config: ConfigDict) -> float:
  from unitemp_jax.models import sizes

  dit = builders.dit_config(config.model)
  return float(sizes.num_bytes(sizes.inference_shapes(dit)))


def _state_bytes(step: Step) -> float:
  """All that is split of what a step is given, over all devices."""
  trees = [tree for name, tree in step.arguments.items() if name != 'batch']
  return float(
    sum(
      math.prod(leaf.shape) * getattr(leaf.dtype, 'itemsize', 8)
      for leaf in jax.tree.leaves(trees)
    )
  )


def best(
  config: ConfigDict, target: Topology, devices: Sequence[Any], most: int
) -> tuple[str, list[Candidate], int]:
  """The candidates to compile.

  Returns:
    The step that is compiled, the best by the estimate, and how many there are.

  Raises:
    UserError: no candidate divides, or none comes near the memory.
  """
  found = candidates(config, target.devices, target.slices)
  if not found:
    raise UserError(
      f'a batch of {config.batch_size} and the widths of the model divide over '
      f'no mesh of {target}; change config.batch_size to a multiple of '
      f'{target.devices}.'
    )
  estimate = Estimate(config, target, devices)
  # Of those within a percent, the one that needs least.
  judged = sorted(
    map(estimate.of, found),
    key=lambda one: (round(math.log(one.seconds), 2), one.gib),
  )
  near = [one for one in judged if one.gib <= target.chip.gib]
  if not near:
    least = min(judged, key=lambda one: one.gib)
    raise UserError(
      f'{target} has too little memory: the least that is estimated is '
      f'{least.gib:.0f} of {target.chip.gib:g} GiB per device '
      f'({" ".join(least.overrides)}); take a larger slice.'
    )
  return estimate.step, near[:most], len(found)


def compiled(
  chosen: Sequence[Candidate], entry: Entry, folder: Path | None
) -> list[tuple[Candidate, MemoryReport]]:
  """Compiles candidates, or reads the reports that a folder has of them.

  Args:
    chosen: by `best`.
    entry: the config, its own overrides, the topology and the step.
    folder: where the reports are kept; None for nowhere.

  Raises:
    UserError: a report there is of something else.
  """
  found = []
  for one in chosen:
    overrides = (*entry.overrides, *one.overrides)
    asked = dataclasses.replace(entry, name=one.name, overrides=overrides)
    path = folder and folder / f'{one.name}.json'
    if path and path.exists():
      report = memory_report.read(path)
      if not asked.is_of(report):
        raise UserError(f'{path} is of another search; choose another --out.')
    else:
      report = asked.compile()
      if path:
        memory_report.write(path, report)
    found.append((one, report))
  return found


def table(
  step: str, found: Sequence[tuple[Candidate, MemoryReport]], number: int
) -> str:
  """The candidates that were compiled, the best first, and what to paste."""
  best_first = ranked(found)
  lines = [
    f'{step}: {number} layouts, {len(found)} of them compiled (not run)',
    'data fsdp context accumulate remat      peak GiB  schedule   sent GB  ',
  ]
  for one, report in best_first:
    (made,) = report.steps
    seconds = f'{made.time.seconds:.1f} s' if made.time else ''
    mesh = '{:4} {:4} {:7}'.format(*one.mesh)
    lines.append(
      f'{mesh} {one.accumulate:10} {one.remat or "own":9} '
      f'{made.peak_gib:9.2f} {seconds:>9} {made.sent / 1e9:9.0f}  '
      f'{report.outcome(made)}'
    )
  first, report = best_first[0]
  if not report.fits:
    lines.append('none of them fits: take a larger slice, or compile more.')
  else:
    pasted = ' '.join(f'--config.{one}' for one in first.overrides)
    lines.append(f'use: {pasted}')
  if report.mode == 'fast':
    lines.append('no verdict at the least effort: compile that without --fast.')
  return '\n'.join(lines)


def ranked(
  found: Sequence[tuple[Candidate, MemoryReport]],
) -> list[tuple[Candidate, MemoryReport]]:
  """The best first."""
  return sorted(found, key=lambda pair: _rank(*pair))


def _rank(candidate: Candidate, report: MemoryReport) -> tuple:
  """Those with headroom, then those that fit, by their time."""
  (made,) = report.steps
  spare = made.peak_gib <= (1 - HEADROOM) * report.chip_gib
  return (
    not report.fits,
    not spare,
    made.time.seconds if made.time else math.inf,
    made.sent,
    candidate.seconds,
  )
