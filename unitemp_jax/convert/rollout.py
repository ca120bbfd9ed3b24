"""A block-causal student in PyTorch, and ours: cached, masked and windowed.

diffusers has no causal Wan, so that PyTorch's side is our own reference: its
modules in its order, but self-attention takes a mask. A pass sees [clean
latents | noisy latents] of one video. Clean queries see clean keys of their own
and of earlier blocks; noisy ones see their own noisy block and clean keys of
earlier blocks, as in Self-Forcing's teacher forcing
(`wan/modules/causal_model.py`). The noisy half is what a student computes that
has written every earlier block to its cache at level 0.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import orders
from unitemp_jax.convert import parity_torch
from unitemp_jax.convert.parity_torch import Row, compare
from unitemp_jax.diffusion import flow
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler


def frame_mask(blocks: np.ndarray, window: int | None = None) -> np.ndarray:
  """Which of [clean | noisy] frames sees which.

  Args:
    blocks: the block of every frame.
    window: how many frames before its own block a frame sees; all if None.
      Self-Forcing's `local_attn_size` is that and the block.
  """
  query, key = blocks[:, None], blocks[None, :]
  first = np.searchsorted(blocks, query)
  least = 0 if window is None else first - window
  near = np.arange(len(blocks))[None] >= least
  nothing = np.zeros_like(key == query)
  clean = np.concatenate([(key <= query) & near, nothing], axis=1)
  noisy = np.concatenate([(key < query) & near, key == query], axis=1)
  return np.concatenate([clean, noisy])


def _masked(block, x, text, temb, rotary, mask):
  """One of diffusers' blocks, with a mask in its self-attention."""
  parts = (block.scale_shift_table.unsqueeze(0) + temb.float()).chunk(6, dim=2)
  shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (
    part.squeeze(2) for part in parts
  )
  h = block.norm1(x.float()) * (1 + scale) + shift
  x = x + block.attn1(h, None, mask, rotary) * gate
  x = x + block.attn2(block.norm2(x.float()), text, None, None)
  h = block.norm3(x.float()) * (1 + ffn_scale) + ffn_shift
  return x + block.ffn(h) * ffn_gate


def torch_velocity(
  module, clean, noisy, sigma: float, text, mask: np.ndarray
) -> np.ndarray:
  """PyTorch's velocity `BFHWC` of the noisy half.

  Args:
    module: diffusers' transformer, float32.
    clean: latents `BFHWC` of the timeline, from frame 0 on.
    noisy: the same frames at level sigma.
    sigma: noise level of the noisy half; the clean half is at 0.
    text: `BED`.
    mask: see `frame_mask`.
  """
  import torch

  batch, frames, height, width, _ = clean.shape
  tokens = height * width // 4
  x = np.concatenate([clean, noisy], axis=1)
  t = np.repeat(np.float32([0.0, 1000.0 * sigma]), frames * tokens)
  mask = mask.repeat(tokens, axis=0).repeat(tokens, axis=1)
  with torch.no_grad():
    one = parity_torch.to_torch(parity_torch.channels_first(clean))
    rotary = [torch.cat([part, part], dim=1) for part in module.rope(one)]
    x = parity_torch.to_torch(parity_torch.channels_first(x))
    h = module.patch_embedding(x).flatten(2).transpose(1, 2)
    t = torch.from_numpy(t).repeat(batch)
    temb, projected, text, _ = module.condition_embedder(
      t, parity_torch.to_torch(text), None, timestep_seq_len=2 * frames * tokens
    )
    projected = projected.unflatten(2, (6, -1))
    mask = torch.from_numpy(mask)
    for part in module.blocks:
      # Called as a module it reads its weights (`parity_torch.build`).
      part.forward = functools.partial(_masked, part)
      h = part(h, text, projected, rotary, mask)
      del part.forward
    shift, scale = (
      part.squeeze(2)
      for part in (
        module.scale_shift_table.unsqueeze(0) + temb.unsqueeze(2)
      ).chunk(2, dim=2)
    )
    h = module.proj_out(module.norm_out(h) * (1 + scale) + shift)
  made = h.reshape(batch, 2 * frames, height // 2, width // 2, 2, 2, -1)
  made = made.permute(0, 1, 2, 4, 3, 5, 6).reshape(
    batch, 2 * frames, height, width, -1
  )
  return made[:, frames:].numpy()


def cached_velocities(
  config: DiTConfig, params: Any, plan: Plan, clean, noisy, text, sigmas
) -> list[np.ndarray]:
  """Our velocities with the cache that generation uses, row after row.

  `plan` has no anchors and positions from 0 on; `clean` latents `BFHWC` go into
  the cache, `noisy` ones are at each of the `sigmas`.
  """
  dit = DiT(config)
  batch, frames, height, width, _ = clean.shape
  net = sampler.make_net(dit, params, jnp.asarray(text)[None])
  denoise = jax.jit(sampler.cached_denoise(dit))
  commit = sampler.committer(config.tokens_per_frame(height, width))
  cache = sampler.cache_for(config, plan, batch, height, width)
  made = [np.zeros(clean.shape, np.float32) for _ in sigmas]
  for row in range(plan.num_rows):
    count, visible = int(plan.count[row]), jnp.int32(plan.visible[row])
    if not count:
      continue
    target = np.asarray(plan.target[row])
    here = np.minimum(target, frames - 1)

    def run(
      x, sigma, cache, here=here, target=target, visible=visible, count=count
    ):
      levels = jnp.full((batch, len(here)), sigma)
      return denoise(
        net, x[:, here], levels, target, 0, cache, visible, visible + count
      )

    if not plan.conditioning[row]:
      for out, sigma in zip(made, sigmas, strict=True):
        out[:, here[:count]] = run(noisy, sigma, cache)[0][:, :count]
    cache = commit(run(clean, 0.0, cache)[1], visible, plan.write[row])
  return made


def masked_velocities(
  config: DiTConfig, params: Any, mask: np.ndarray, clean, noisy, text, sigmas
) -> list[np.ndarray]:
  """The same in one masked pass per level, as training runs them."""
  dit, frames = DiT(config), clean.shape[1]

  @jax.jit
  def run(sigma):
    context = dit.apply({'params': params}, text, method='text_context')
    velocity, _ = dit.apply(
      {'params': params},
      np.concatenate([clean, noisy], axis=1),
      jnp.repeat(jnp.stack([0.0, sigma]), frames)[None].repeat(len(clean), 0),
      jnp.tile(jnp.arange(frames), 2),
      context,
      mask_BFF=mask[None],
    )
    return velocity[:, frames:]

  return [np.asarray(run(jnp.float32(sigma))) for sigma in sigmas]


def rows(
  config: DiTConfig,
  params: Any,
  module,
  noise: np.ndarray,
  text: np.ndarray,
  block: int,
) -> list[Row]:
  """Compares the passes of a rollout in float32, three blocks long."""
  clean, noisy = 0.5 * noise[:, ::-1], noise
  frames = noise.shape[1]
  blocks = np.arange(frames) // block
  sigmas = [float(sigma) for sigma in flow.student_sigmas()[:-1]]
  found = []
  for name, window in (('', None), ('windowed ', block)):
    mask = frame_mask(blocks, window)
    plan = orders.forward(frames, block=block, anchors=0, window=window)
    inputs = clean, noisy, text, sigmas
    cached = cached_velocities(config, params, plan, *inputs)
    masked = masked_velocities(config, params, mask, *inputs)
    for i, sigma in enumerate(sigmas):
      theirs = torch_velocity(module, clean, noisy, sigma, text, mask)
      for kind, made in (('cached', cached), ('masked', masked)):
        label = f'network, {name}{kind} rollout, level {i}'
        found.append(compare(label, 'float32', made[i], theirs))
  return found
