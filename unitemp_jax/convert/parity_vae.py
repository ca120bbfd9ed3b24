"""The VAE beside diffusers', module by module, float32 as Wan runs it.

diffusers works through a video in chunks of one latent and keeps its memory
inside; the calls of a module, joined along time, are one call of ours.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from unitemp_jax.convert import parity_torch
from unitemp_jax.convert.parity import Row, compare
from unitemp_jax.models import vae3d, vae_blocks
from unitemp_jax.models.causal_conv import CausalConv, Tape
from unitemp_jax.models.vae3d import VAE, VAEConfig


def torch_encode(module, video) -> np.ndarray:
  """diffusers' latents `BFhwz` of pixels `BTHW3`, not normalised."""
  video = parity_torch.to_torch(parity_torch.channels_first(video))
  mean = module.encode(video).latent_dist.mean
  return parity_torch.channels_last(parity_torch.to_numpy(mean))


def torch_decode(module, latents) -> np.ndarray:
  """diffusers' pixels of latents that are not normalised."""
  z = parity_torch.to_torch(parity_torch.channels_first(latents))
  made = module.decode(z, return_dict=False)[0]
  return parity_torch.channels_last(parity_torch.to_numpy(made))


def in_chunks(config: VAEConfig, params: Any, method: str, x, lengths):
  """Our `encode` or `decode` of x, chunk after chunk with explicit memory."""
  vae = VAE(config)
  run = jax.jit(
    lambda params, x, memory: vae.apply(
      {'params': params}, x, memory, method=method
    )
  )
  made, memory, start = [], None, 0
  for length in lengths:
    piece, memory = run(params, x[:, start : start + length], memory)
    made.append(np.asarray(piece))
    start += length
  return np.concatenate(made, axis=1)


def _both(config: VAEConfig, half: str) -> Iterator[tuple[str, str, nn.Module]]:
  """PyTorch's name, our name and our module, for what both halves have."""
  width = config.base_dim * config.dim_mult[-1]
  yield f'{half}.mid_block', 'middle', vae3d.Middle(width, config.conv_form)
  yield f'{half}.norm_out', 'norm_out', vae_blocks.ChannelNorm()


def _encoder(config: VAEConfig) -> Iterator[tuple[str, str, nn.Module]]:
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


def _decoder(config: VAEConfig) -> Iterator[tuple[str, str, nn.Module]]:
  c = config
  width = c.base_dim * c.dim_mult[-1]
  yield 'decoder.conv_in', 'conv_in', CausalConv(width)
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


def _joined(calls, side: str) -> np.ndarray:
  arrays = [getattr(call, side) for call in calls]
  return parity_torch.channels_last(np.concatenate(arrays, axis=2))


def _half(modules, params: Any, calls) -> Iterator[Row]:
  """Compares the modules of one half on what PyTorch's received."""
  for name, ours, block in modules:
    x = _joined(calls[name], 'input')

    def run(params, x, block=block):
      tape = () if isinstance(block, vae_blocks.ChannelNorm) else (Tape(None),)
      return block.apply({'params': params}, x, *tape)

    made = jax.jit(run)(params[ours], x)
    yield compare(name, 'float32', made, _joined(calls[name], 'output'))


def rows(config: VAEConfig, params: Any, module, video, latents) -> list[Row]:
  """Compares every module, both whole halves, and both in chunks.

  Args:
    config: its size, with `latent_mean` and `latent_std`.
    params: our weights.
    module: diffusers' VAE, which does not normalise.
    video: pixels `BTHW3` in [-1, 1].
    latents: normalised, `BFhwz`.
  """
  found: list[Row] = []
  mean = np.asarray(config.latent_mean or 0.0, np.float32)
  std = np.asarray(config.latent_std or 1.0, np.float32)
  stride = config.temporal_stride
  runs = {
    'encode': (video, lambda: (torch_encode(module, video) - mean) / std),
    'decode': (latents, lambda: torch_decode(module, latents * std + mean)),
  }
  for method, modules in (('encode', _encoder), ('decode', _decoder)):
    half = f'{method}r'
    names = list(modules(config))
    x, run = runs[method]
    theirs, calls = parity_torch.record(module, [n for n, *_ in names], run)
    found += _half(names, params[half], calls)
    step = stride if method == 'encode' else 1
    rest = (x.shape[1] - 1) // step
    for words, lengths in (
      (method, (x.shape[1],)),
      (f'{method} in chunks', (1, *(step,) * rest)),
    ):
      made = in_chunks(config, params, method, x, lengths)
      found.append(compare(f'network, {words}', 'float32', made, theirs))
  return found
