"""Numerical parity with PyTorch, on a checkpoint and one input.

PyTorch's side is loaded by diffusers' own reading of the layout, ours by our
tables, so that a wrong line of a table shows. The error of a module is the norm
of the difference over the norm of PyTorch's output, on PyTorch's own input, so
that errors do not add up from layer to layer; the rows named `network` run both
sides from end to end. Of a transformer and of a text encoder each side holds
one layer at a time.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from unitemp_jax.convert import fit, parity_torch, rollout
from unitemp_jax.convert.checkpoints import Tensor
from unitemp_jax.convert.incoming import Layers
from unitemp_jax.convert.parity_torch import (
  Row,
  channels_first,
  channels_last,
  compare,
  to_numpy,
  to_torch,
)
from unitemp_jax.diffusion import flow
from unitemp_jax.models import dit as dit_lib
from unitemp_jax.models import rope, sizes, umt5, vae3d, vae_blocks
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAE, VAEConfig
from unitemp_jax.models.vae_blocks import CausalConv, ConvCache


def torch_velocity(module, x, sigma, text, dtype: str) -> np.ndarray:
  """diffusers' velocity `BFHWC`, with a noise level of its own per frame."""
  tokens = x.shape[2] * x.shape[3] // module.config.patch_size[1] ** 2
  t = np.repeat(np.asarray(flow.timestep(sigma)), tokens, axis=1)
  made = module(
    to_torch(channels_first(x), dtype),
    to_torch(t),  # Never rounded: 937.5 is not 936.
    to_torch(text, dtype),
    return_dict=False,
  )[0]
  return channels_last(to_numpy(made))


def _apply(config: DiTConfig, params: Any, method: Callable, *arguments):
  """Runs a function of the transformer with its weights, in float32."""
  run = functools.partial(DiT(config).apply, method=method)
  return np.asarray(jax.jit(run)({'params': params}, *arguments), np.float32)


def block_alone(config: DiTConfig, frames, rows, columns) -> Callable:
  """Our transformer block by itself, compiled once."""
  c, dtype = config, jnp.dtype(config.dtype)
  block = dit_lib.Block(c.dim, c.num_heads, c.ffn_dim, dtype)
  angles = rope.angles(
    jnp.arange(frames), rows, columns, c.head_dim, c.rope_theta
  )

  @jax.jit
  def run(layer, x, text, e6):
    variables = {'params': layer}
    text = text.astype(dtype)
    _, text_kv = block.apply(variables, None, text, method='text_kv')
    carry = dit_lib.zero_init_carry(x.astype(dtype), None)
    made, _ = block.apply(
      variables, carry, text_kv, e6, angles, None, None, None, None
    )
    return made[0].astype(jnp.float32)

  return run


def dit_rows(
  config: DiTConfig, layers: Layers, module, x, sigma, text
) -> list[Row]:
  """Compares every module and the whole transformer on one input.

  Args:
    config: size and dtype of our side.
    layers: our weights.
    module: diffusers' transformer, in the same dtype.
    x: noisy latents `BFHWC`, float32.
    sigma: `BF`.
    text: `BED`.
  """
  dtype, p = config.dtype, config.patch
  embed, block = 'condition_embedder', 'blocks.{}'.format
  ends = [f'{embed}.{n}' for n in ('time_embedder', 'time_proj')]
  ends += [f'{embed}.text_embedder', 'patch_embedding', 'norm_out', 'proj_out']
  blocks = [block(i) for i in range(config.num_layers)]
  theirs, calls = parity_torch.record(
    module,
    [*ends, *blocks],
    lambda: torch_velocity(module, x, sigma, text, dtype),
  )
  one = {name: found[0] for name, found in calls.items()}
  frames, grid = x.shape[1], (x.shape[2] // p, x.shape[3] // p)
  # The reference has a noise level per token, ours one per latent frame.
  e = one[ends[0]].output[:, :: grid[0] * grid[1]]
  e6 = one[ends[1]].output[:, :: grid[0] * grid[1]]
  context = one[ends[2]].output
  patches = one['patch_embedding'].output
  patches = patches.reshape(*patches.shape[:2], -1).swapaxes(1, 2)

  def in_patches(m, x):
    return m.patch_embedding(
      rearrange(x, 'b f (h p) (w q) c -> b (f h w) (c p q)', p=p, q=p)
    )

  def in_time(m, sigma):
    features = dit_lib.sinusoid(flow.timestep(sigma), m.config.freq_dim)
    return m.time_out(jax.nn.silu(m.time_in(features)))

  def in_text(m, text):
    return m.text_out(jax.nn.gelu(m.text_in(text), approximate=True))

  def projected(m, e):
    return m.time_projection(jax.nn.silu(e))

  def head(m, x, e):
    return m._head(x, e)

  others = {path.split('/')[0] for path in layers.entries} - {'blocks'}
  run = functools.partial(_apply, config, layers.load(*others))
  own_x, own_e = run(in_patches, x), run(in_time, sigma)
  own_e6, own_context = run(projected, own_e), run(in_text, text)
  found = [
    compare('patch_embedding', dtype, own_x, patches),
    compare(ends[0], dtype, own_e, e),
    compare(ends[1], dtype, run(projected, e), e6),
    compare(ends[2], dtype, own_context, context),
  ]
  by_six = (*e6.shape[:2], 6, config.dim)
  e6, own_e6 = e6.reshape(by_six), own_e6.reshape(by_six)
  ours = block_alone(config, frames, *grid)
  for i, name in enumerate(blocks):
    layer = layers.load('blocks', layer=i)['blocks']
    made = ours(layer, one[name].input, context, e6)
    found.append(compare(name, dtype, made, one[name].output))
    own_x = jax.block_until_ready(ours(layer, own_x, own_context, own_e6))
    del layer  # The next one is read now.
  made = run(head, one['norm_out'].input, e)
  found.append(compare('proj_out', dtype, made, one['proj_out'].output))
  whole = rearrange(
    run(head, own_x, own_e),
    'b (f h w) (p q c) -> b f (h p) (w q) c',
    **{'f': frames, 'h': grid[0], 'p': p, 'q': p},
  )
  return [*found, compare('network', dtype, whole, theirs)]


def torch_embeddings(module, ids, mask) -> np.ndarray:
  """transformers' embeddings `BED`, zeroed after the end as Wan does."""
  made = module(
    input_ids=to_torch(np.asarray(ids, np.int64)),
    attention_mask=to_torch(np.asarray(mask, np.int64)),
  ).last_hidden_state
  return to_numpy(made) * np.asarray(mask)[..., None]


def umt5_rows(
  config: TextConfig, layers: Layers, module, ids, mask
) -> list[Row]:
  """Compares every layer and the whole text encoder.

  Rows after the end of a text are left out: nothing reads them.

  Args:
    config: size and dtype of our side.
    layers: our weights.
    module: transformers' encoder, in the same dtype.
    ids: int `BE`.
    mask: bool `BE`.
  """
  dtype, norm = config.dtype, 'encoder.final_layer_norm'
  blocks = [f'encoder.block.{i}' for i in range(config.num_layers)]
  theirs, calls = parity_torch.record(
    module,
    ['encoder.embed_tokens', *blocks, norm],
    lambda: torch_embeddings(module, ids, mask),
  )
  mask = np.asarray(mask)
  found = []

  def add(name, ours):
    made = np.asarray(ours, np.float32)
    found.append(compare(name, dtype, made[mask], calls[name][0].output[mask]))

  def load(name):
    # The table of tokens is only looked up: it need not be widened.
    exact = {'dtype': None} if name == 'token_embedding' else {}
    return layers.load(name, **exact)[name]

  own = jnp.take(load('token_embedding')['embedding'], ids, axis=0)
  add('encoder.embed_tokens', own := own.astype(dtype))

  @jax.jit
  def layer(params, x):
    module = umt5.TextLayer(config)
    return module.apply({'params': params}, x.astype(dtype), mask)

  for i, name in enumerate(blocks):
    here = load(f'layer{i}')
    add(name, layer(here, calls[name][0].input))
    own = jax.block_until_ready(layer(here, own))
    del here  # The next one is read now.

  def normed(x):
    x = jnp.asarray(x, dtype)
    return umt5.T5Norm().apply({'params': load('norm_out')}, x)

  add(norm, normed(calls[norm][0].input))
  whole = np.asarray(normed(own), np.float32) * mask[..., None]
  return [*found, compare('network', dtype, whole, theirs)]


def torch_encode(module, video) -> np.ndarray:
  """diffusers' latents `BFhwz` of pixels `BTHW3`, not normalised."""
  mean = module.encode(to_torch(channels_first(video))).latent_dist.mean
  return channels_last(to_numpy(mean))


def torch_decode(module, latents) -> np.ndarray:
  """diffusers' pixels of latents that are not normalised."""
  z = to_torch(channels_first(latents))
  return channels_last(to_numpy(module.decode(z, return_dict=False)[0]))


def in_chunks(config: VAEConfig, params: Any, method: str, x, lengths):
  """Our `encode` or `decode` of x, chunk after chunk with an explicit cache."""
  run = jax.jit(functools.partial(VAE(config).apply, method=method))
  made, cache, start = [], None, 0
  for length in lengths:
    piece, cache = run({'params': params}, x[:, start : start + length], cache)
    made.append(np.asarray(piece))
    start += length
  return np.concatenate(made, axis=1)


Modules = Iterator[tuple[str, str, nn.Module]]


def _both(config: VAEConfig, half: str) -> Modules:
  """PyTorch's name, our name and our module, for what both halves have."""
  features = config.base_dim * config.dim_mult[-1]
  yield f'{half}.mid_block', 'middle', vae3d.Middle(features, config.conv_form)
  yield f'{half}.norm_out', 'norm_out', vae_blocks.ChannelNorm()


def _encoder(config: VAEConfig) -> Modules:
  c = config
  yield 'encoder.conv_in', 'conv_in', CausalConv(c.base_dim)
  flat = 0
  for i, mult in enumerate(c.dim_mult):
    for j in range(c.num_res_blocks):
      block = vae_blocks.ResidualBlock(c.base_dim * mult)
      yield f'encoder.down_blocks.{flat}', f'stage{i}_res{j}', block
      flat += 1
    if i < len(c.temporal_down):
      down = vae_blocks.Downsample(c.temporal_down[i])
      yield f'encoder.down_blocks.{flat}', f'stage{i}_down', down
      flat += 1
  yield from _both(c, 'encoder')
  yield 'encoder.conv_out', 'conv_out', CausalConv(2 * c.z_dim)


def _decoder(config: VAEConfig) -> Modules:
  c = config
  conv = CausalConv(c.base_dim * c.dim_mult[-1])
  yield 'decoder.conv_in', 'conv_in', conv
  for i, mult in enumerate(c.dim_mult[::-1]):
    theirs = f'decoder.up_blocks.{i}'
    for j in range(c.num_res_blocks + 1):
      block = vae_blocks.ResidualBlock(c.base_dim * mult)
      yield f'{theirs}.resnets.{j}', f'stage{i}_res{j}', block
    if i < len(c.temporal_down):
      up = vae_blocks.Upsample(c.temporal_down[::-1][i])
      yield f'{theirs}.upsamplers.0', f'stage{i}_up', up
  yield from _both(c, 'decoder')
  yield 'decoder.conv_out', 'conv_out', CausalConv(3)


def _half(modules, params: Any, calls) -> Iterator[Row]:
  """Compares the modules of one half on what PyTorch's received.

  diffusers works through a video in chunks of one latent and keeps its cache
  inside; the calls of a module, joined along time, are one call of ours.
  """
  for name, ours, block in modules:
    x, theirs = (
      channels_last(np.concatenate([getattr(c, s) for c in calls[name]], 2))
      for s in ('input', 'output')
    )

    def run(params, x, block=block):
      conv_cache = (
        () if isinstance(block, vae_blocks.ChannelNorm) else (ConvCache(None),)
      )
      return block.apply({'params': params}, x, *conv_cache)

    yield compare(name, 'float32', jax.jit(run)(params[ours], x), theirs)


def vae_rows(
  config: VAEConfig, layers: Layers, module, video, latents
) -> list[Row]:
  """Compares every module of the VAE, both whole halves, and both in chunks.

  Args:
    config: its size, with `latent_mean` and `latent_std`.
    layers: our weights.
    module: diffusers' VAE, which does not normalise, in float32.
    video: pixels `BTHW3` in [-1, 1].
    latents: normalised, `BFhwz`.
  """
  found: list[Row] = []
  params = layers.load()
  mean = np.asarray(config.latent_mean or 0.0, np.float32)
  std = np.asarray(config.latent_std or 1.0, np.float32)
  runs = {
    'encode': (video, lambda: (torch_encode(module, video) - mean) / std),
    'decode': (latents, lambda: torch_decode(module, latents * std + mean)),
  }
  for method, modules in (('encode', _encoder), ('decode', _decoder)):
    names = list(modules(config))
    x, run = runs[method]
    theirs, calls = parity_torch.record(module, [n for n, *_ in names], run)
    found += _half(names, params[f'{method}r'], calls)
    step = config.temporal_stride if method == 'encode' else 1
    rest = (x.shape[1] - 1) // step
    for words, lengths in (
      (method, (x.shape[1],)),
      (f'{method} in chunks', (1, *(step,) * rest)),
    ):
      made = in_chunks(config, params, method, x, lengths)
      found.append(compare(f'network, {words}', 'float32', made, theirs))
  return found


ROWS: dict[str, Callable[..., list[Row]]] = {
  'dit': dit_rows,
  'vae': vae_rows,
  'umt5': umt5_rows,
}


# The original's names of the text encoder and transformers'.
_BLOCK = r'^blocks\.(\d+)\.'
_UMT5 = {
  r'^token_embedding\.': 'shared.',
  r'^norm\.': 'encoder.final_layer_norm.',
  rf'{_BLOCK}norm1\.': r'encoder.block.\1.layer.0.layer_norm.',
  rf'{_BLOCK}norm2\.': r'encoder.block.\1.layer.1.layer_norm.',
  rf'{_BLOCK}attn\.': r'encoder.block.\1.layer.0.SelfAttention.',
  rf'{_BLOCK}pos_embedding\.embedding\.': (
    r'encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.'
  ),
  rf'{_BLOCK}ffn\.gate\.0\.': r'encoder.block.\1.layer.1.DenseReluDense.wi_0.',
  rf'{_BLOCK}ffn\.fc1\.': r'encoder.block.\1.layer.1.DenseReluDense.wi_1.',
  rf'{_BLOCK}ffn\.fc2\.': r'encoder.block.\1.layer.1.DenseReluDense.wo.',
}


@dataclasses.dataclass(frozen=True)
class Input:
  """How large the input of a comparison is."""

  frames: int = 3  # latent frames
  height: int = 16  # latent rows
  width: int = 16  # latent columns
  tokens: int = 512  # positions of the text
  seed: int = 0  # of the random numbers


def reference_state(found: fit.Found) -> dict[str, Tensor]:
  """A checkpoint's weights under the names of diffusers and transformers."""
  state = {k: v for k, v in found.tensors.items() if v.dtype is not None}
  if found.layout == 'diffusers':
    if found.kind == 'umt5' and 'shared.weight' not in state:
      state['shared.weight'] = state['encoder.embed_tokens.weight']
    return state
  if found.kind == 'umt5':
    for pattern, name in _UMT5.items():
      state = {re.sub(pattern, name, k): v for k, v in state.items()}
    return state
  from diffusers.loaders import single_file_utils

  readers = {
    'dit': single_file_utils.convert_wan_transformer_to_diffusers,
    'vae': single_file_utils.convert_wan_vae_to_diffusers,
  }
  return readers[found.kind](state)


def _inputs(kind: str, config: Any, size: Input) -> tuple:
  rng = np.random.default_rng(size.seed)

  def normal(*shape):
    return rng.standard_normal(shape, np.float32)

  grid = (size.frames, size.height, size.width)
  if kind == 'dit':
    # Every latent frame has a noise level of its own, as the student's do.
    sigma = np.linspace(1.0, 0.0, size.frames, dtype=np.float32)[None]
    text = normal(1, size.tokens, config.text_dim)
    text[:, size.tokens // 2 :] = 0  # Wan attends to the padding as well.
    return normal(1, *grid, config.channels), sigma, text
  if kind == 'vae':
    stride = config.spatial_stride
    frames = 1 + (size.frames - 1) * config.temporal_stride
    pixels = (size.height * stride, size.width * stride)
    video = np.tanh(normal(1, frames, *pixels, 3))
    return video, normal(1, *grid, config.z_dim)
  ids = rng.integers(0, config.vocab, (2, size.tokens), np.int32)
  ends = np.array([[size.tokens], [1 + size.tokens // 3]])
  return ids, np.arange(size.tokens)[None] < ends


def compare_checkpoint(
  found: fit.Found,
  config: Any,
  dtypes: Sequence[str],
  size: Input,
  *,
  block: int | None = None,
) -> list[Row]:
  """Runs both sides on a checkpoint.

  With `block`, latents per block, rollouts are compared too.
  """
  parity_torch.require()
  kind, shapes = found.kind, sizes.param_shapes(config)
  layers = Layers(found, fit.check(found, shapes))
  fit.check_heads(found, config)
  state = reference_state(found)
  inputs = _inputs(kind, config, size)
  rows: list[Row] = []
  for dtype in dtypes:
    if kind == 'vae' and dtype != 'float32':
      continue
    module = parity_torch.build(kind, config, state, dtype)
    sized = config
    if kind != 'vae':
      sized = dataclasses.replace(config, dtype=dtype)
    # Accelerators multiply float32 in fewer bits unless they are told not to.
    with jax.default_matmul_precision('highest'):
      rows += ROWS[kind](sized, layers, module, *inputs)
      if kind == 'dit' and dtype == 'float32' and block:
        long = dataclasses.replace(size, frames=3 * block)
        noise, _, text = _inputs(kind, config, long)
        rows += rollout.rows(sized, layers.load(), module, noise, text, block)
  return rows


def format_rows(rows: Sequence[Row]) -> str:
  """The rows as a text table, one line each."""
  width = max(len(row.module) for row in rows)
  head = f'{"module":<{width}}  dtype     max error  relative  tolerance'
  lines = [
    f'{row.module:<{width}}  {row.dtype:<8}  {row.max_error:9.2e}  '
    f'{row.relative_error:8.1e}  {row.tolerance:9.0e}'
    f'{"" if row.passed else "  FAILS"}'
    for row in rows
  ]
  return '\n'.join([head, *lines])
