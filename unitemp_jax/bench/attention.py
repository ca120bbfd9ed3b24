"""Benchmark `attention`: autotunes the tiles of attention kernels.

All sizes and the baseline are timed in turns in one run: forward, then forward
and backward with the forward sizes that won. The baseline is plain XLA with all
logits at once, or in pieces where memory does not take them; sizes that do not
fit are left out. The winner is written as a table of tiles, which attention
uses from then on if it is told to, see `models.attention.tiles`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.bench import autotune, measure
from unitemp_jax.bench.context import CallShape, Context, Outcome
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, results
from unitemp_jax.evaluation.suites.bench import Section
from unitemp_jax.models.attention import xla
from unitemp_jax.models.attention.dispatch import backend_for
from unitemp_jax.models.attention.tiles import Entry, Table, Tiles, to_json
from unitemp_jax.parallel import mesh_context

TILES = 'tiles.json'
BASELINES = {'xla': None, 'xla in pieces': Tiles()}
# A chunk of three frames of Wan's 480p before its longest cache.
FULL = CallShape(queries=4680, keys=32_760, heads=12, head_dim=128, frames=0)
# What a CPU does in seconds: three frames that see themselves.
SMALL = CallShape(queries=4680, keys=4680, heads=4, head_dim=128, frames=0)
_TIME = 'mean over warm repeats, in turns with the others'
_RATE = '4 x queries x keys x heads x head width, over the time; 3.5 x for both'
_FASTER = 'time of xla over its own, same round; geometric mean'
_BOTH = 3.5  # 2 products forward, 5 backward
# What compilers say of sizes that do not fit.
REFUSALS = (jax.errors.JaxRuntimeError, NotImplementedError, ValueError)


@dataclasses.dataclass(frozen=True)
class Call:
  """One call of attention, on random inputs.

  Attributes:
    shape: its sizes.
    inputs: queries, keys, values.
    mask: of frames, or None.
  """

  shape: CallShape
  inputs: tuple[jax.Array, jax.Array, jax.Array]
  mask: jax.Array | None

  @property
  def unit(self) -> tuple[int, int]:
    """Queries and keys that an entry of a table of tiles is for."""
    frames = max(self.shape.frames, 1)
    return self.shape.queries // frames, self.shape.keys // frames

  def compile(self, backend: str, tiles: Tiles | None, backward: bool):
    """Without tiles plain XLA, all logits at once.

    Returns a function without arguments. Raises one of REFUSALS if it cannot.
    """

    def forward(q, k, v):
      length = None if self.mask is not None else self.shape.keys
      if tiles is None:
        return xla.attention(q, k, v, length, self.mask)
      run = autotune.FORMS[backend]
      return run(q, k, v, length, self.mask, tiles)

    def both(q, k, v):
      y, pull = jax.vjp(forward, q, k, v)
      return pull(y)

    function = jax.jit(both if backward else forward)
    compiled = function.lower(*self.inputs).compile()
    jax.block_until_ready(compiled(*self.inputs))
    return functools.partial(compiled, *self.inputs)


def run(context: Context) -> Outcome:
  """Searches the tiles of one call on the device that there is."""
  platform = mesh_context.platform()
  shape = context.call or (SMALL if platform == 'cpu' else FULL)
  call = make_call(shape, jnp.float32 if platform == 'cpu' else jnp.bfloat16)
  return search(context, call, backend_for(*call.inputs[:2], call.mask))


def make_call(shape: CallShape, dtype) -> Call:
  """Random inputs of a shape; frames see those before them.

  Raises:
    UserError: frames do not divide the tokens.
  """
  frames = shape.frames
  if frames and (shape.queries % frames or shape.keys % frames):
    raise UserError(
      f'--frames={frames} does not divide {shape.queries} queries and '
      f'{shape.keys} keys.'
    )
  rng = np.random.default_rng(0)
  lengths = (shape.queries, shape.keys, shape.keys)
  tail = (shape.heads, shape.head_dim)
  inputs = tuple(
    jnp.asarray(rng.standard_normal((1, length, *tail), np.float32), dtype)
    for length in lengths
  )
  mask = jnp.tril(jnp.ones((1, frames, frames), bool)) if frames else None
  return Call(shape, inputs, mask)


def search(context: Context, call: Call, backend: str) -> Outcome:
  """Times the tiles of a backend against plain XLA.

  Raises:
    UserError: the hardware takes none.
  """
  rows, series = [], {}
  best = Tiles()
  for backward, choices in autotune.stages(backend, call.unit):
    what = 'forward and backward' if backward else 'forward'
    tried = {
      name: dataclasses.replace(best, **c) for name, c in choices.items()
    }
    compiled = _compile(context, call, backend, tried, backward)
    seconds = measure.in_turns(compiled, context.repeats)
    others = [name for name in seconds if name in BASELINES]
    own = [name for name in seconds if name not in BASELINES]
    winner = min(own, key=lambda name: np.median(seconds[name]))
    best = tried[winner]
    context.report(f'  {what}: {winner} is the fastest of {len(own)}')
    for name, values in seconds.items():
      series[f'{what}: {name}'] = values.tolist()
      baseline = seconds[others[0]] if others and name in own else None
      rows += _rows(call.shape, f'{name}, {what}', values, baseline, backward)
  frames = f', {call.shape.frames} frames' if call.mask is not None else ''
  title = (
    f'Attention by {backend}: {call.shape.queries} queries, {call.shape.keys} '
    f'keys, {call.shape.heads} heads of {call.shape.head_dim}{frames}'
  )
  files = {TILES: to_json(_table(call, best, context.repeats))}
  return Outcome((Section(title, tuple(rows)),), series, files=files)


def _compile(
  context: Context, call: Call, backend: str, tried: dict, backward: bool
) -> dict[str, Callable]:
  """What the hardware takes of the baseline and the tiles, by name."""
  found: dict[str, Callable] = {}

  def attempt(name, form, tiles):
    try:
      found[name] = call.compile(form, tiles, backward)
      outcome = 'compiled'
    except REFUSALS as error:
      reason = str(error).strip().partition('\n')[0]
      outcome = f'left out ({reason[:100]})'
    context.report(f'  {name}: {outcome}')

  for name, tiles in BASELINES.items():
    if not found:
      attempt(name, 'xla', tiles)
  for name, tiles in tried.items():
    attempt(name, backend, tiles)
  if not set(found) & set(tried):
    raise UserError(
      f'{mesh_context.device_kind()} takes none of {len(tried)} sizes for '
      f'{call.shape}; use fewer --queries or --keys.'
    )
  return found


def _rows(
  shape: CallShape, group: str, seconds, baseline, backward: bool
) -> list[results.Result]:
  how = f'{_TIME}; unitemp bench attention'
  flops = 4 * shape.queries * shape.keys * shape.heads * shape.head_dim
  flops *= _BOTH if backward else 1
  if shape.frames:
    flops *= (shape.frames + 1) / (2 * shape.frames)  # of what the mask shows
  rate = bootstrap.mean(flops / 1e9 / seconds)
  rows = [
    results.result(
      'time', group, bootstrap.mean(1000 * seconds), unit='ms', how=how
    ),
    results.result('rate', group, rate, unit='GFLOP/s', how=_RATE),
  ]
  if baseline is not None:
    ratio = bootstrap.paired_ratio(baseline, seconds)
    rows.append(
      results.result(
        'faster than xla by', group, ratio, unit='ratio', how=_FASTER
      )
    )
  return rows


def _table(call: Call, best: Tiles, repeats: int) -> Table:
  hardware = mesh_context.device_kind()
  queries, keys = call.unit
  how = f'measured on {hardware}, jax {jax.__version__}, {repeats} repeats'
  entry = Entry(queries, keys, call.mask is not None, best, how)
  return Table((hardware,), (entry,))
