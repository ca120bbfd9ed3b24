"""The transformer beside diffusers', module by module."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from unitemp_jax.convert import parity_torch
from unitemp_jax.convert.parity import Row, compare
from unitemp_jax.diffusion import flow
from unitemp_jax.models import dit as dit_lib
from unitemp_jax.models import dit_block, rope
from unitemp_jax.models.dit import DiT, DiTConfig


def torch_velocity(module, x, sigma, text, dtype: str) -> np.ndarray:
  """diffusers' velocity `BFHWC`, with a noise level of its own per frame."""
  tokens = x.shape[2] * x.shape[3] // module.config.patch_size[1] ** 2
  t = np.repeat(np.asarray(flow.timestep(sigma)), tokens, axis=1)
  made = module(
    parity_torch.to_torch(parity_torch.channels_first(x), dtype),
    parity_torch.to_torch(t),  # Never rounded: 937.5 is not 936.
    parity_torch.to_torch(text, dtype),
    return_dict=False,
  )[0]
  return parity_torch.channels_last(parity_torch.to_numpy(made))


def velocity(config: DiTConfig, params: Any, x, sigma, text) -> np.ndarray:
  """Our velocity of the same, all frames seeing each other."""
  dit = DiT(config)

  @jax.jit
  def run(params, x, sigma, text):
    context = dit.apply({'params': params}, text, method='text_context')
    positions = jnp.arange(x.shape[1])
    return dit.apply({'params': params}, x, sigma, positions, context)[0]

  return np.asarray(run(params, x, sigma, text))


class _Ours:
  """Our modules, each callable by itself, compiled once."""

  def __init__(self, config: DiTConfig, params: Any, frames, rows, columns):
    self.config, self.params = config, params
    self._dit = DiT(config)
    self.angles = rope.angles(
      jnp.arange(frames), rows, columns, config.head_dim, config.rope_theta
    )
    self._block = jax.jit(self._block_fn)

  def _apply(self, method, *arguments):
    apply = functools.partial(self._dit.apply, method=method)
    return np.asarray(
      jax.jit(apply)({'params': self.params}, *arguments), np.float32
    )

  def patches(self, x):
    p = self.config.patch
    x = rearrange(x, 'b f (h p) (w q) c -> b (f h w) (c p q)', p=p, q=p)
    return self._apply(lambda m, x: m.patch_embedding(x), x)

  def time(self, sigma):
    def embed(m, sigma):
      features = dit_lib.sinusoid(flow.timestep(sigma), m.config.freq_dim)
      return m.time_out(jax.nn.silu(m.time_in(features)))

    return self._apply(embed, sigma)

  def time_projection(self, e):
    return self._apply(lambda m, e: m.time_projection(jax.nn.silu(e)), e)

  def text(self, text):
    def embed(m, text):
      return m.text_out(jax.nn.gelu(m.text_in(text), approximate=True))

    return self._apply(embed, text)

  def head(self, x, e):
    return self._apply(lambda m, x, e: m._head(x, e), x, e)

  def _block_fn(self, layer, x, text, e6):
    c = self.config
    dtype = jnp.dtype(c.dtype)
    block = dit_block.Block(c.dim, c.num_heads, c.ffn_dim, dtype)
    variables = {'params': layer}
    text = text.astype(dtype)
    _, text_kv = block.apply(variables, None, text, method='text_kv')
    carry = dit_block.zero_init_carry(x.astype(dtype), None)
    made, _ = block.apply(
      variables, carry, text_kv, e6, self.angles, None, None, None, None
    )
    return made[0].astype(jnp.float32)

  def block(self, i, x, text, e6):
    layer = jax.tree.map(lambda leaf: leaf[i], self.params['blocks'])
    return np.asarray(self._block(layer, x, text, e6))


def rows(config: DiTConfig, params: Any, module, x, sigma, text) -> list[Row]:
  """Compares every module and the whole network on one input.

  Args:
    config: size and dtype of our side.
    params: our weights.
    module: diffusers' transformer, in the same dtype.
    x: noisy latents `BFHWC`, float32.
    sigma: `BF`.
    text: `BED`.
  """
  dtype = config.dtype
  same = functools.partial(compare, dtype=dtype)
  embed, block = 'condition_embedder', 'blocks.{}'.format
  theirs, calls = parity_torch.record(
    module,
    [
      'patch_embedding',
      f'{embed}.time_embedder',
      f'{embed}.time_proj',
      f'{embed}.text_embedder',
      *map(block, range(config.num_layers)),
      'norm_out',
      'proj_out',
    ],
    lambda: torch_velocity(module, x, sigma, text, dtype),
  )
  one = {name: found[0] for name, found in calls.items()}
  frames = x.shape[1]
  grid = x.shape[2] // config.patch, x.shape[3] // config.patch
  ours = _Ours(config, params, frames, *grid)
  tokens = grid[0] * grid[1]
  # The reference has a noise level per token, ours one per latent frame.
  e = one[f'{embed}.time_embedder'].output[:, ::tokens]
  e6 = one[f'{embed}.time_proj'].output[:, ::tokens]
  context = one[f'{embed}.text_embedder']
  patches = one['patch_embedding'].output
  patches = patches.reshape(*patches.shape[:2], -1).swapaxes(1, 2)
  found = [
    same('patch_embedding', ours=ours.patches(x), theirs=patches),
    same(f'{embed}.time_embedder', ours=ours.time(sigma), theirs=e),
    same(f'{embed}.time_proj', ours=ours.time_projection(e), theirs=e6),
    same(f'{embed}.text_embedder', ours=ours.text(text), theirs=context.output),
  ]
  e6 = e6.reshape(*e6.shape[:2], 6, -1)
  for i in range(config.num_layers):
    call = one[block(i)]
    made = ours.block(i, call.input, context.output, e6)
    found.append(same(block(i), ours=made, theirs=call.output))
  made = ours.head(one['norm_out'].input, e)
  found.append(same('proj_out', ours=made, theirs=one['proj_out'].output))
  made = velocity(config, params, x, sigma, text)
  return [*found, same('network', ours=made, theirs=theirs)]
