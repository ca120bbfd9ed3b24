"""Benchmark `baselines`: our networks beside diffusers' and transformers'.

Both sides have the same random weights and input, and their outputs are
compared before anything is timed. A few-step rollout in PyTorch is built from
diffusers' blocks as Self-Forcing's pipeline does it (guandeh17/Self-Forcing,
`pipeline/self_forcing_training.py`). Every case runs in processes of its own:
both sides in turns, on one core and on all, then each alone for its memory.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import orders
from unitemp_jax.bench import measure
from unitemp_jax.bench.measure import Context, Outcome
from unitemp_jax.convert import incoming, parity, parity_torch
from unitemp_jax.convert.parity_torch import channels_first, to_torch
from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap, results
from unitemp_jax.evaluation.suites.bench import Section
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.models.vae3d import VAE, VAEConfig
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import row_noise

Run = Callable[[], Any]
_BLOCK, _TEXT = 3, 512
_ERROR = 1e-3  # relative, float32; weights are random
_FASTER = "PyTorch's time over ours in the same round; geometric mean"
_MEMORY = 'most memory of a process that runs this side alone'
_SAME = "norm of the difference over that of PyTorch's output"


@dataclasses.dataclass(frozen=True)
class Case:
  """What is timed."""

  kind: str  # of network: 'dit', 'vae' or 'umt5'
  what: str  # 'layer', 'rollout', 'encode', 'decode' or 'embed'
  config: Any  # size of the network
  # latent frames, rows and columns; of pixels for the VAE; of a prompt the
  # tokens
  grid: tuple[int, ...]


def cases(small: bool = False) -> dict[str, Case]:
  """Cases by name: Wan's width at few layers, or `small` for a test."""
  dit, text, vae = (
    DiTConfig(num_layers=2),
    TextConfig(num_layers=2),
    VAEConfig(),
  )
  grid, clips = (3, 60, 104), ((9, 128, 128), (5, 256, 256))
  rollouts = [(9, 30, 52)]
  if jax.default_backend() != 'cpu':
    rollouts.append((9, 60, 104))
  tokens = 512
  if small:
    dit = dataclasses.replace(dit, dim=48, ffn_dim=96, num_heads=2, text_dim=24)
    text = dataclasses.replace(
      text, dim=32, ffn_dim=64, num_heads=2, head_dim=16, vocab=50
    )
    vae = dataclasses.replace(vae, base_dim=8)
    grid, clips, rollouts, tokens = (3, 4, 4), ((5, 16, 16),), [(6, 4, 4)], 16
  one = dataclasses.replace(dit, num_layers=1)
  number = grid[0] * one.tokens_per_frame(*grid[1:])
  found = {f'DiT layer, {number:,} tokens': Case('dit', 'layer', one, grid)}
  found[f'UMT5, 2 layers, {tokens} tokens'] = Case(
    'umt5', 'embed', text, (tokens,)
  )
  for clip in clips:
    size = 'x'.join(map(str, clip))
    for what in ('encode', 'decode'):
      found[f'VAE {what}, {size}'] = Case('vae', what, vae, clip)
  for frames, *size in rollouts:
    name = f'few-step rollout, {size[0]}x{size[1]}, {frames // _BLOCK} blocks'
    found[name] = Case('dit', 'rollout', dit, (frames, *size))
  return found


def _weights(kind: str, config: Any) -> dict[str, np.ndarray]:
  """Random ones in PyTorch's layout; activations stay near 1."""
  rng, found = np.random.default_rng(0), {}
  for name, shape in parity_torch.torch_shapes(kind, config).items():
    fan_in = int(np.prod(shape[1:])) or 1
    made = rng.standard_normal(shape, np.float32) / np.sqrt(fan_in)
    vector = len(shape) == 1 or 'gamma' in name
    if vector and not name.endswith('bias'):
      made = 1 + 0.1 * rng.standard_normal(shape, np.float32)
    found[name] = np.float32(made)
  if kind == 'umt5':
    found['encoder.embed_tokens.weight'] = found['shared.weight']
  return found


def sides(case: Case) -> dict[str, Callable[[], Run]]:
  """What makes our side and PyTorch's: functions that return the same array."""
  state = _weights(case.kind, case.config)
  rng = np.random.default_rng(1)

  def normal(*shape):
    return rng.standard_normal(shape, np.float32)

  made = {
    'layer': _layer,
    'rollout': _rollout,
    'encode': _vae,
    'decode': _vae,
    'embed': _embed,
  }[case.what]
  ours, theirs = made(case, state, normal)
  return {'ours': ours, 'PyTorch': theirs}


def _ours(case: Case, state) -> Any:
  shapes = sizes.param_shapes(case.config)
  return jax.device_put(incoming.load_torch(state, case.kind, shapes))


def _theirs(case: Case, state) -> Any:
  import torch

  module = parity_torch.build(case.kind, case.config, state, 'float32')
  return module.to('cuda' if torch.cuda.is_available() else 'cpu')


def _on(module, x):
  return to_torch(x, 'float32').to(next(module.parameters()).device)


def _without_gradient(run: Run) -> Run:
  import torch

  @torch.no_grad()
  def waited():
    made = run()
    if torch.cuda.is_available():
      torch.cuda.synchronize()
    return made.float().cpu().numpy()

  return waited


def _layer(case, state, normal):
  c, (frames, *grid) = case.config, case.grid
  rows, columns = (size // c.patch for size in grid)
  x = normal(1, frames * rows * columns, c.dim)
  text, e6 = normal(1, _TEXT, c.dim), normal(1, frames, 6, c.dim)

  def ours():
    params = jax.tree.map(lambda leaf: leaf[0], _ours(case, state)['blocks'])
    run = parity.block_alone(c, frames, rows, columns)
    arguments = [jnp.asarray(a) for a in (x, text, e6)]
    return lambda: run(params, *arguments)

  def theirs():
    module = _theirs(case, state)
    whole = _on(module, channels_first(normal(1, frames, *grid, c.channels)))
    rotary = module.rope(whole)
    wide = np.repeat(e6, rows * columns, axis=1)
    arguments = [_on(module, a) for a in (x, text, wide)]
    return _without_gradient(lambda: module.blocks[0](*arguments, rotary))

  return ours, theirs


def _embed(case, state, normal):
  del normal
  (tokens,) = case.grid
  rng = np.random.default_rng(2)
  ids = rng.integers(0, case.config.vocab, (1, tokens), np.int32)
  mask = np.ones((1, tokens), bool)

  def ours():
    params = _ours(case, state)
    run = jax.jit(TextEncoder(case.config).apply)
    return lambda: run({'params': params}, ids, mask)

  def theirs():
    module = _theirs(case, state)
    arguments = [_on(module, a) for a in (ids.astype(np.int64), mask)]
    return _without_gradient(lambda: module(*arguments)[0])

  return ours, theirs


def _vae(case, state, normal):
  c, (frames, *size) = case.config, case.grid
  encode = case.what == 'encode'
  if encode:
    x = np.tanh(normal(1, frames, *size, 3))
  else:
    latents = 1 + (frames - 1) // c.temporal_stride
    x = normal(1, latents, *(s // c.spatial_stride for s in size), c.z_dim)

  def ours():
    params, on_device = _ours(case, state), jnp.asarray(x)
    run = jax.jit(
      lambda p, x: VAE(c).apply({'params': p}, x, method=case.what)[0]
    )
    return lambda: run(params, on_device)

  def theirs():
    module = _theirs(case, state)
    tensor = _on(module, channels_first(x))
    if encode:
      run = lambda: module.encode(tensor).latent_dist.mean  # noqa: E731
    else:
      run = lambda: module.decode(tensor).sample  # noqa: E731
    return _without_gradient(lambda: run().movedim(1, -1))

  return ours, theirs


def _rollout(case, state, normal):
  c, (frames, *grid) = case.config, case.grid
  levels = flow.student_sigmas()
  text, keys = normal(1, _TEXT, c.text_dim), sampler.sample_keys([0])
  plan = orders.forward(frames, block=_BLOCK, anchors=0)

  def ours():
    params, dit = _ours(case, state), DiT(c)

    @jax.jit
    def run(params, text):
      net = sampler.make_net(dit, params, text[None])
      return sampler.run_plan(
        sampler.cached_denoise(dit),
        sampler.committer(c.tokens_per_frame(*grid)),
        net,
        plan,
        sampler.cache_for(c, plan, 1, *grid),
        jnp.zeros((1, frames, *grid, c.channels)),
        keys,
        levels,
      )[0]

    on_device = jnp.asarray(text)
    return lambda: run(params, on_device)

  def theirs():
    module = _theirs(case, state)
    noise = np.array(
      [
        [
          row_noise(keys, row, level, (_BLOCK, *grid, c.channels))
          for level in range(len(levels) - 1)
        ]
        for row in range(frames // _BLOCK)
      ]
    )
    tensor, draws = _on(module, text), _on(module, noise)
    return _without_gradient(
      lambda: torch_rollout(module, tensor, draws, levels)
    )

  return ours, theirs


def torch_rollout(module, text, noise, levels: Sequence[float]):
  """A forward rollout with a cache, from diffusers' modules.

  Args:
    module: diffusers' transformer.
    text: `BED`.
    noise: `[rows, levels, B, F, h, w, C]`.
    levels: of noise, the last one 0.

  Returns:
    Latents `BFHWC`.
  """
  import torch

  cache: list[Any] = [None] * len(module.blocks)
  text = module.condition_embedder.text_embedder(text)
  crossed = [_heads(part.attn2, text) for part in module.blocks]
  made = []
  for row, draws in enumerate(noise):
    x = draws[0]
    for level, sigma in enumerate(levels[:-1]):
      v, _ = _torch_pass(module, x, float(sigma), row, cache, crossed)
      x = x - float(sigma) * v
      if level + 2 < len(levels):
        after = float(levels[level + 1])
        x = (1 - after) * x + after * draws[level + 1]
    made.append(x)
    if row + 1 < len(noise):
      _, cache = _torch_pass(module, x, 0.0, row, cache, crossed)
  return torch.cat(made, dim=1)


def _heads(attention, x):
  """Normalised keys and values `BENK`."""
  keys = attention.norm_k(attention.to_k(x)).unflatten(2, (attention.heads, -1))
  return keys, attention.to_v(x).unflatten(2, (attention.heads, -1))


def _turned(x, rotary):
  """Rotates interleaved pairs; `rotary` are cosines and sines of all pairs."""
  import torch

  cos, sin = (part[..., 0::2] for part in rotary)
  real, imag = x.unflatten(-1, (-1, 2)).unbind(-1)
  pairs = [real * cos - imag * sin, real * sin + imag * cos]
  return torch.stack(pairs, dim=-1).flatten(3)


def _seen(q, k, v):
  import torch

  parts = (x.transpose(1, 2) for x in (q, k, v))
  y = torch.nn.functional.scaled_dot_product_attention(*parts)
  return y.transpose(1, 2).flatten(2)


def _torch_pass(module, x, sigma: float, row: int, cache, crossed):
  """Velocity of one block, and the cache with its keys and values."""
  import torch

  batch, frames, height, width, _ = x.shape
  first = x.movedim(-1, 1)
  whole = first.repeat_interleave(row + 1, dim=2)
  tokens = frames * height * width // module.config.patch_size[1] ** 2
  rotary = [part[:, -tokens:] for part in module.rope(whole)]
  h = module.patch_embedding(first).flatten(2).transpose(1, 2)
  told = torch.full((batch,), 1000.0 * sigma, device=x.device)
  embedder = module.condition_embedder
  temb = embedder.time_embedder(embedder.timesteps_proj(told))
  projected = embedder.time_proj(embedder.act_fn(temb)).unflatten(1, (6, -1))
  staged = []
  for part, before, (text_k, text_v) in zip(
    module.blocks, cache, crossed, strict=True
  ):
    table = (part.scale_shift_table + projected).chunk(6, dim=1)
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table
    y = part.norm1(h) * (1 + scale) + shift
    own = part.attn1
    q = own.norm_q(own.to_q(y)).unflatten(2, (own.heads, -1))
    k, v = _heads(own, y)
    q, k = _turned(q, rotary), _turned(k, rotary)
    if before is not None:
      k, v = torch.cat([before[0], k], 1), torch.cat([before[1], v], 1)
    staged.append((k, v))
    h = h + own.to_out[0](_seen(q, k, v)) * gate
    y, other = part.norm2(h), part.attn2
    q = other.norm_q(other.to_q(y)).unflatten(2, (other.heads, -1))
    h = h + other.to_out[0](_seen(q, text_k, text_v))
    y = part.norm3(h) * (1 + ffn_scale) + ffn_shift
    h = h + part.ffn(y) * ffn_gate
  shift, scale = (module.scale_shift_table + temb[:, None]).chunk(2, dim=1)
  h = module.proj_out(module.norm_out(h) * (1 + scale) + shift)
  h = h.reshape(batch, frames, height // 2, width // 2, 2, 2, -1)
  h = h.permute(0, 1, 2, 4, 3, 5, 6)
  return h.reshape(batch, frames, height, width, -1), staged


def _child(name: str, side: str, cores: int, repeats: int, small: bool) -> dict:
  """Runs one case in a process of its own, and returns what it prints."""
  words = [name, side, str(cores), str(repeats), str(int(small))]
  done = subprocess.run(
    [sys.executable, '-m', 'unitemp_jax.bench.pytorch', *words],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise UserError(
      f'{name} failed by itself: {done.stderr.strip().splitlines()[-1][:300]}'
    )
  return json.loads(done.stdout.splitlines()[-1])


def main(words: Sequence[str]) -> dict:
  """What a child does: NAME SIDE CORES REPEATS SMALL."""
  name, side, cores, repeats, small = words
  if hasattr(os, 'sched_setaffinity'):
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[: int(cores)])
  import torch

  torch.set_num_threads(int(cores))
  case = cases(bool(int(small)))[name]
  wanted = [who for who in ('ours', 'PyTorch') if side in ('both', who)]
  both = sides(case)
  runs = {who: both[who]() for who in wanted}
  made = {who: np.asarray(run(), np.float64) for who, run in runs.items()}
  found: dict[str, Any] = {}
  if side == 'both':
    theirs = made['PyTorch']
    apart = np.linalg.norm(made['ours'] - theirs) / np.linalg.norm(theirs)
    found['error'] = float(apart)
    if not apart < _ERROR:
      raise ValueError(f'outputs differ by {apart:.2g}, more than {_ERROR}')
    seconds = measure.in_turns(runs, int(repeats), warm_up=1)
    found['seconds'] = {who: list(one) for who, one in seconds.items()}
  found['MiB'] = measure.peak_host_mebibytes()
  return found


def run(context: Context, small: bool = False) -> Outcome:
  """Times all cases; UserError if PyTorch is missing, or the outputs differ."""
  parity_torch.require()
  rows, series = [], {}
  every = int(measure.hardware()['cores'])
  for name in cases(small):
    for cores in sorted({1, every}):
      found = _child(name, 'both', cores, context.repeats, small)
      where = 'one core' if cores == 1 else f'{cores} cores'
      group = f'{name}, float32, {where}'
      times = {k: np.array(v) for k, v in found['seconds'].items()}
      for who, values in times.items():
        series[f'{group}: {who}'] = values.tolist()
        mean = bootstrap.mean(1000 * values)
        rows.append(_row('time', f'{group}: {who}', mean, 'ms', 'in turns'))
      ratio = bootstrap.paired('geometric', times['PyTorch'], times['ours'])
      rows.append(_row('PyTorch / ours', group, ratio, 'ratio', _FASTER))
      context.report(f'  {group}: {ratio.value:.2f}')
    error = bootstrap.exact(found['error'], 1)
    rows.append(_row('difference', name, error, 'ratio', _SAME))
    for who in ('ours', 'PyTorch'):
      alone = _child(name, who, every, context.repeats, small)
      memory = bootstrap.exact(alone['MiB'], 1)
      rows.append(_row('memory', f'{name}: {who}', memory, 'MiB', _MEMORY))
  title = 'Beside diffusers and transformers in PyTorch'
  return Outcome((Section(title, tuple(rows)),), series)


def _row(metric, group, measured, unit, how):
  how = f'{how}; unitemp bench baselines'
  return results.result(metric, group, measured, unit=unit, how=how)


if __name__ == '__main__':
  print(json.dumps(main(sys.argv[1:])))
