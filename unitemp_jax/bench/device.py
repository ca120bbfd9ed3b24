"""`unitemp bench device PART`: the first minutes on an accelerator.

Its parts are the programs that `unitemp aot` compiles, run on the devices that
there are, with random weights: so a schedule can be held against the clock.
Every part writes a JSON file of its own. On a CPU everything has small sizes.
`launch/device_check.sh` runs all parts.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import files, orders
from unitemp_jax.aot import steps
from unitemp_jax.aot.serving import Serving
from unitemp_jax.aot.step import Step
from unitemp_jax.aot.topology import CHIPS
from unitemp_jax.bench import attention, measure, pytorch
from unitemp_jax.bench.measure import CallShape, Context
from unitemp_jax.data import typed_json
from unitemp_jax.errors import UserError, check_known, foreign
from unitemp_jax.models.attention import attention_backend, dispatch, xla
from unitemp_jax.parallel.mesh import make_mesh, platform
from unitemp_jax.sampling.model_folder import TINY
from unitemp_jax.training.config import load_config

CONFIG = 'configs/wan_1p3b_distill.py'
# What a CPU does in a minute; the shapes of a tree stay.
SMALL = {
  'model.dit.dim': 256,
  'model.dit.ffn_dim': 512,
  'model.dit.num_heads': 2,
  'model.dit.num_layers': 2,
  'model.dit.text_dim': 64,
  'model.text.dim': 64,
  'model.text.length': 32,
  'model.vae.base_dim': 8,
  'data.height': 64,
  'data.width': 64,
  'data.num_frames': 33,
  'batch_size': 1,
  'accumulate': 1,
}
_TRAINED_LAYERS = 4
_TABLE, _HEAD = 'table.md', '| part | device | what was found |'
_FOUND = ('device', 'platform', 'rows')  # keys of a part's file
_TILES = 'attention_tiles.json'  # beside tiles.json, which is the part's own
# Peak in bfloat16, 1e12 operations a second, by a part of jax's device_kind.
_PEAKS = {'H200': 989, 'H100': 989, 'A100': 312, 'L40S': 362, 'L4': 121}
_TPUS = {'v5 lite': 'v5e', 'v5e': 'v5e', 'v6 lite': 'v6e', 'v6e': 'v6e'}
_TPUS |= {'v5p': 'v5p', 'v5': 'v5p', '7x': 'tpu7x'}


def peak_tflops(kind: str) -> float | None:
  """Peak of a device by jax's name for it; None if it is not known."""
  for name, peak in _PEAKS.items():
    if name in kind:
      return peak
  found = [chip for name, chip in _TPUS.items() if name in kind]
  return CHIPS[found[0]].tflops if found and 'TPU' in kind else None


def _config(**more: Any):
  changes = {**SMALL, **more} if platform() == 'cpu' else more
  return load_config(CONFIG, [f'--config.{k}={v}' for k, v in changes.items()])


def _serving() -> Serving:
  """A clip on one device."""
  mesh = make_mesh({'data': 1}, jax.devices()[:1])
  return steps.serving_of(_config(), mesh)


def filled(info: Any) -> jax.Array:
  """A random array, or a key, or zeros where it is of whole numbers."""
  if jnp.issubdtype(info.dtype, jax.dtypes.prng_key):
    made = jax.random.split(jax.random.key(0), max(int(np.prod(info.shape)), 1))
    return made.reshape(info.shape)
  if not jnp.issubdtype(info.dtype, jnp.floating):
    return jnp.zeros(info.shape, info.dtype)
  made = jax.random.normal(jax.random.key(1), info.shape, jnp.bfloat16)
  return (0.02 * made).astype(info.dtype)


def run_step(step: Step, repeats: int = 2) -> dict[str, Any]:
  """Compiles and runs a program on random arguments, and times it."""
  starts = []
  for _ in range(2):  # Cold, and from jax's persistent cache.
    jax.clear_caches()
    began = time.perf_counter()
    lowered = step.lower()
    compiled = lowered.compile()
    starts.append(time.perf_counter() - began)
  infos, _ = lowered.args_info
  names = list(step.arguments)
  shardings, _ = compiled.input_shardings

  def arguments():
    made = jax.tree.map(filled, infos)
    if step.values:
      given = dict(zip(names, made, strict=True))
      for name, tree in step.values.items():
        given[name] = jax.tree.map(jnp.asarray, tree)
      made = tuple(given.values())
    return jax.block_until_ready(jax.device_put(made, shardings))

  times = []
  for _ in range(1 + repeats):
    own = arguments()  # Anew: some are donated.
    began = time.perf_counter()
    jax.block_until_ready(compiled(*own))
    times.append(time.perf_counter() - began)
  best = min(times[1:])
  peak = peak_tflops(jax.devices()[0].device_kind)
  ideal = peak and step.flops.total / (jax.device_count() * peak * 1e12)
  return {
    'step': step.name,
    'rows': step.rows,
    'cold_start_s': starts[0],
    'warm_start_s': starts[1],
    'seconds': times[1:],
    'tflop': step.flops.total / 1e12,
    'roofline': ideal and ideal / best,
    'peak_gib': _peak_gib(),
  }


def _peak_gib() -> float:
  stats = jax.devices()[0].memory_stats() or {}
  peak = stats.get('peak_bytes_in_use', 2**20 * measure.peak_host_mebibytes())
  return peak / 2**30


def _sampled(order: str) -> list[dict]:
  serving = _serving()
  card = serving.card
  plan = orders.ORDERS[order](
    serving.plan.num_latents, block=card.block, anchors=card.anchors
  )
  made = run_step(dataclasses.replace(serving, plan=plan).sampler(), 1)
  made['frames_per_s'] = card.frames / min(made['seconds'])
  return [{**made, 'order': order}]


def _streamed() -> list[dict]:
  """A block with the longest past, its store, and the VAE both ways."""
  serving = _serving()
  names = ('block', 'store', 'decode', 'encode')
  rows = [run_step(getattr(serving, name)()) for name in names]
  block, store, decode = (min(row['seconds']) for row in rows[:3])
  block, pixels = block + store, decode * serving.card.block
  frames = serving.card.block * serving.card.vae.temporal_stride
  seen = {
    'first_block_s': block + pixels,
    'frames_per_s': frames / (block + pixels),
    'frames_per_s_lag': frames / (block + 2 * pixels),
    'frames_per_s_without_vae': frames / block,
  }
  return [*rows, {'step': 'a block with the longest past', **seen}]


def _trained() -> list[dict]:
  """One step of distillation at a reduced depth, one clip."""
  config = _config(batch_size=1, accumulate=1, **{'mesh.context': 1})
  steps.with_depth(config, min(_TRAINED_LAYERS, config.model.dit.num_layers))
  found = steps.steps_of(config, ['student_and_critic'], jax.devices()[:1])
  return [run_step(step, 1) for step in found]


def _attended() -> list[dict]:
  """Backends against the reference: forward, gradient, ragged prefixes."""
  small = platform() == 'cpu'
  sizes = (300, 640, 2) if small else (4680, 32_760, 12)
  queries, keys, heads = sizes
  dtype = jnp.float32 if small else jnp.bfloat16
  call = attention.make_call(CallShape(queries, keys, heads, 128, 0), dtype)
  backend = {'tpu': 'splash', 'gpu': 'cudnn'}.get(platform(), 'splash')
  ours = _with_gradient(lambda *a: _by(backend, *a))
  theirs = _with_gradient(_reference)
  found = []
  for length in (2, 128, keys // 2 + 1, keys):  # Of one the slope is 0.
    made, right = (of(*call.inputs, length) for of in (ours, theirs))
    errors = [_apart(a, b) for a, b in zip(made, right, strict=True)]
    other = theirs(*call.inputs, length // 2)
    found.append(
      {
        'backend': backend,
        'keys': length,
        'forward_error': errors[0],
        'gradient_error': max(errors[1:]),
        'control_error': _apart(other[0], right[0]),
        'good': max(errors) < (1e-4 if small else 0.03),
      }
    )
  return found


def _by(backend: str, q, k, v, length):
  with attention_backend(backend):
    return dispatch.attention(q, k, v, length)


def _reference(q, k, v, length):
  return xla.in_pieces(q, k, v, length, logits=2**22)


def _with_gradient(form: Callable) -> Callable:
  @jax.jit
  def run(q, k, v, length):
    y, pull = jax.vjp(lambda *a: form(*a, length), q, k, v)
    return y, *pull(jnp.ones_like(y))

  return run


def _apart(a, b) -> float:
  a, b = (np.asarray(x, np.float32) for x in (a, b))
  return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def _tiles(out: Path) -> list[dict]:
  outcome = attention.run(Context(TINY, 3, 0))
  files.write(out / _TILES, outcome.files[attention.TILES])
  return [{'tiles': str(out / _TILES)}]


def _baselines() -> list[dict]:
  outcome = pytorch.run(Context(TINY, 3, 0), small=platform() == 'cpu')
  rows = outcome.sections[0].rows
  return [{'metric': r.metric, 'of': r.group, 'value': r.value} for r in rows]


@dataclasses.dataclass(frozen=True)
class Found:
  """What a part has found."""

  device: str  # its kind
  platform: str
  rows: list[dict[str, Any]]  # numbers by name


def check_platform(wanted: str | None) -> None:
  """Raises UserError unless the accelerator is there that was asked for."""
  if wanted and wanted != platform():
    raise UserError(
      f'there is a {platform()} and no {wanted}; leave --accelerator to check '
      'on what there is.'
    )


def check(part: str, out: Path) -> None:
  """Refuses, by UserError, to replace a file that is of something else."""
  path, own = out / (_TABLE if part == 'table' else f'{part}.json'), False
  if not os.path.lexists(path):
    path = out / _TILES
    if part != 'tiles' or not os.path.lexists(path):
      return
  with contextlib.suppress(UserError):
    if path.name == _TABLE:
      own = files.read_text(path).startswith(_HEAD)
    elif path.name != _TILES:
      own = bool(files.read_json(path, keys=_FOUND))
  if not own:
    raise foreign(path, 'not of bench device')


def run(part: str, out: Path) -> None:
  """Runs a part and writes its file, or the table of all that were run.

  Raises:
    UserError: there is no such part.
  """
  parts: dict[str, Callable[[], list[dict]]] = {
    'about': lambda: [measure.hardware()],
    'attention': _attended,
    'forward': lambda: _sampled('forward'),
    'backward': lambda: _sampled('backward'),
    'stream': _streamed,
    'train': _trained,
    'tiles': lambda: _tiles(out),
    'baselines': _baselines,
  }
  if part == 'table':
    check(part, out)
    print(table(out, list(parts)))
    return
  check_known('there is no part', part, (*parts, 'table'))
  check(part, out)
  rows = parts[part]()
  kind = jax.devices()[0].device_kind
  found = {'device': kind, 'platform': platform(), 'rows': rows}
  files.write_json(out / f'{part}.json', found)


def table(out: Path, parts: list[str]) -> str:
  """Markdown of all parts in a folder; also written to table.md there."""
  lines = [_HEAD, '| --- | --- | --- |']
  for name in parts:
    path = out / f'{name}.json'
    if not path.exists():
      lines.append(f'| {name} | | not run |')
      continue
    mend = 'delete it and run the part again'
    found = typed_json.read(path, Found, 'numbers of a device', mend)
    device = found.device
    if found.platform == 'cpu':
      device += ' at small size; on an accelerator not run'
    for row in found.rows:
      cells = ', '.join(f'{k} {_short(v)}' for k, v in row.items())
      lines.append(f'| {name} | {device} | {cells} |')
  text = '\n'.join(lines) + '\n'
  files.write(out / _TABLE, text)
  return text


def _short(value: Any) -> str:
  if isinstance(value, list):
    return ' '.join(map(_short, value))
  return f'{value:.4g}' if isinstance(value, float) else str(value)
