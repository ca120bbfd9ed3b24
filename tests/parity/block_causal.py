"""A block-causal student in PyTorch: diffusers' blocks with a mask.

diffusers has no causal Wan, so that this is our own reference: its modules in
its order, but self-attention takes a mask and positions are given. A pass sees
[clean latents | noisy latents] of one video. Clean queries see clean keys of
their own and of earlier blocks; noisy ones see their own noisy block and clean
keys of earlier blocks, as in Self-Forcing's teacher forcing
(`wan/modules/causal_model.py`). The noisy half is what a student
computes that has written every earlier block to its cache at level 0.
"""

import cases
import numpy as np
import torch

from unitemp_jax.convert import parity_torch


def _block(block, x, text, temb, rotary, mask):
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


def velocity(module, clean, noisy, sigma: float, text, block: int):
  """Velocity `BFHWC` of the noisy half.

  Args:
    module: diffusers' transformer, float32.
    clean: latents `BFHWC` of the timeline, from frame 0 on.
    noisy: the same frames at level sigma.
    sigma: noise level of the noisy half; the clean half is at 0.
    text: `BED`.
    block: latents per block.
  """
  batch, frames, height, width, _ = clean.shape
  tokens = height * width // 4
  x = np.concatenate([clean, noisy], axis=1)
  t = np.repeat(np.float32([0.0, 1000.0 * sigma]), frames * tokens)
  mask = cases.frame_mask(np.arange(frames) // block)
  mask = mask.repeat(tokens, axis=0).repeat(tokens, axis=1)
  with torch.no_grad():
    one = parity_torch.to_torch(parity_torch.channels_first(clean))
    rotary = [torch.cat([part, part], dim=1) for part in module.rope(one)]
    x = parity_torch.to_torch(parity_torch.channels_first(x))
    h = module.patch_embedding(x).flatten(2).transpose(1, 2)
    t = torch.from_numpy(t).repeat(batch)
    temb, projected, text, _ = module.condition_embedder(
      t,
      parity_torch.to_torch(text),
      None,
      timestep_seq_len=2 * frames * tokens,
    )
    projected = projected.unflatten(2, (6, -1))
    for part in module.blocks:
      h = _block(part, h, text, projected, rotary, torch.from_numpy(mask))
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
