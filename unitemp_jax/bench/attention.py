"""Benchmark `attention`: autotunes the tiles of attention kernels.

All sizes and the baseline (plain XLA with all logits at once, or in pieces
where memory does not take them) are timed in turns in one run: forward, then
forward and backward with the forward sizes that won. Sizes are tried in stages,
each starting from what won in the one before; those that do not fit are left
out. The winner is written as a table of tiles, see `models.attention.tiles`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.bench import measure
from unitemp_jax.bench.measure import CallShape, Context, Outcome
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, results
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.models.attention import splash, xla
from unitemp_jax.models.attention.dispatch import backend_for
from unitemp_jax.models.attention.tiles import Entry, Table, Tiles, to_json
from unitemp_jax.parallel import mesh as device_mesh

# Name of a choice -> the sizes that differ.
Choices = dict[str, dict[str, int]]

QUERIES = (520, 1040, 1560, 2344)
KEYS = (512, 1024, 2048)
COMPUTED = (256, 512, 1024)
LOGITS = (2**20, 2**21, 2**22, 2**23)


def _splash(q, k, v, length, mask, tiles):
  interpret = device_mesh.platform() != 'tpu'
  return splash.attention(q, k, v, length, mask, tiles, interpret)


def _pieces(q, k, v, length, mask, tiles):
  return xla.in_pieces(q, k, v, length, mask, logits=tiles.xla_logits)


def _cudnn(q, k, v, length, mask, tiles):
  del mask, tiles  # takes no mask, chooses by itself
  return xla.cudnn_attention(q, k, v, length)


# Backend -> attention with given tiles.
FORMS = {'splash': _splash, 'xla': _pieces, 'cudnn': _cudnn}


def stages(backend: str, unit: tuple[int, int]) -> list[tuple[bool, Choices]]:
  """Returns the stages: with a backward pass or not, and what to try.

  Args:
    backend: see FORMS.
    unit: queries and keys that are cut into blocks; of a frame with a mask.
  """
  if backend == 'cudnn':
    only: Choices = {'cudnn': {}}
    return [(False, only), (True, only)]
  if backend == 'xla':
    return [(False, {f'{n} logits': {'xla_logits': n} for n in LOGITS})]
  keys = KEYS + _whole(unit[1])
  forward = {
    f'q {q}, kv {kv}, compute {compute}': {
      'block_q': q,
      'block_kv': kv,
      'block_kv_compute': compute,
    }
    for q in QUERIES
    for kv in keys
    for compute in _computed(kv)
  }
  backward = {
    f'dkv: q {q}, kv {kv}, compute {compute}': {
      'block_q_dkv': q,
      'block_kv_dkv': kv,
      'block_kv_dkv_compute': compute,
      'block_q_dq': 512,
      'block_kv_dq': kv,
    }
    for q in (896, 1664)
    for kv in keys
    for compute in _computed(kv)
  }
  return [(False, forward), (True, backward)]


def _whole(keys: int) -> tuple[int, ...]:
  """All keys of a short unit in one block, as of a frame under a mask."""
  padded = -(-keys // 128) * 128
  return (padded,) if padded <= 2048 and padded not in KEYS else ()


def _computed(keys: int) -> tuple[int, ...]:
  """How many keys to compute at a time, of a block."""
  fitting = tuple(size for size in COMPUTED if keys % size == 0)
  return fitting or (128, keys)


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
  """One call of attention, on random inputs."""

  shape: CallShape  # its sizes
  inputs: tuple[jax.Array, jax.Array, jax.Array]  # queries, keys, values
  mask: jax.Array | None  # of frames, or None

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
      run = FORMS[backend]
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
  platform = device_mesh.platform()
  shape = context.call or (SMALL if platform == 'cpu' else FULL)
  call = make_call(shape, jnp.float32 if platform == 'cpu' else jnp.bfloat16)
  return search(context, call, backend_for(*call.inputs[:2], call.mask))


def make_call(shape: CallShape, dtype) -> Call:
  """Random inputs of a shape; frames see those before them.

  UserError if frames do not divide the tokens.
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

  UserError if the hardware takes none.
  """
  rows, series = [], {}
  best = Tiles()
  for backward, choices in stages(backend, call.unit):
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
      f'{device_mesh.device_kind()} takes none of {len(tried)} sizes for '
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
    ratio = bootstrap.paired('geometric', baseline, seconds)
    rows.append(
      results.result(
        'faster than xla by', group, ratio, unit='ratio', how=_FASTER
      )
    )
  return rows


def _table(call: Call, best: Tiles, repeats: int) -> Table:
  hardware = device_mesh.device_kind()
  queries, keys = call.unit
  how = f'measured on {hardware}, jax {jax.__version__}, {repeats} repeats'
  entry = Entry(queries, keys, call.mask is not None, best, how)
  return Table((hardware,), (entry,))
