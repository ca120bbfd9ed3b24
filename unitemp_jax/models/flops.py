"""How many floating-point operations a pass takes, from its sizes.

XLA counts the body of a scan once and kernels not at all, so this is analytic:
multiplications and additions of matrix products and convolutions; everything
else is left out. Attention counts the keys that are visible, as kernels that
skip blocks do.
"""

import dataclasses

from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

# Backward passes in units of forward ones. A product has two gradients. Flash
# attention also computes its logits again: five products for two.
BACKWARD_DENSE = 2.0
BACKWARD_ATTENTION = 2.5


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations, those of attention (logits and weighted sums) apart."""

  dense: float = 0.0
  attention: float = 0.0

  @property
  def total(self) -> float:
    """All of them."""
    return self.dense + self.attention

  def __add__(self, other: 'Flops') -> 'Flops':
    return Flops(self.dense + other.dense, self.attention + other.attention)

  def __mul__(self, times: float) -> 'Flops':
    return Flops(times * self.dense, times * self.attention)

  __rmul__ = __mul__


def trained(
  forward: Flops,
  recomputed: float = 0.0,
  backward_attention: float = BACKWARD_ATTENTION,
) -> Flops:
  """Forward and backward, with `recomputed` more forward passes.

  Args:
    forward: of the pass.
    recomputed: 1 where the backward pass computes activations again.
    backward_attention: 2 without a kernel, whose logits are kept.
  """
  return Flops(
    forward.dense * (1 + BACKWARD_DENSE + recomputed),
    forward.attention * (1 + backward_attention + recomputed),
  )


def dit_pass(
  config: DiTConfig, batch: int, frames: int, frame: int, keys: int, text: int
) -> Flops:
  """One pass of the transformer.

  Args:
    config: its size.
    batch: rows B.
    frames: latent frames of the pass.
    frame: tokens of one of them.
    keys: tokens that are attended to, the pass's own included.
    text: E, tokens of the prompt, whose keys and values exist already.
  """
  c, d = config, config.dim
  tokens = frames * frame
  # Self-attention q, k, v, o; cross-attention q, o; feed-forward.
  layer = 2 * tokens * (4 * d * d + 2 * d * d + 2 * d * c.ffn_dim)
  attention = 4 * tokens * d * (keys + text)
  patch = c.channels * c.patch**2
  ends = 2 * tokens * 2 * patch * d
  time = 2 * frames * (c.freq_dim * d + d * d + 6 * d * d)
  return batch * Flops(
    c.num_layers * layer + ends + time, c.num_layers * attention
  )


def text_context(config: DiTConfig, batch: int, text: int) -> Flops:
  """Keys and values of prompts for all layers, from their embeddings."""
  d = config.dim
  ends = 2 * text * (config.text_dim * d + d * d)
  return batch * Flops(ends + config.num_layers * 2 * text * 2 * d * d)


def text_encoder(config: TextConfig, batch: int) -> Flops:
  """The text encoder on prompts that are padded to its length."""
  c, inner = config, config.num_heads * config.head_dim
  dense = 2 * c.length * (4 * c.dim * inner + 3 * c.dim * c.ffn_dim)
  return batch * c.num_layers * Flops(dense, 4 * c.length * c.length * inner)


def _residual(size: int, before: int, after: int) -> float:
  shortcut = before * after if before != after else 0
  return 2 * size * (27 * before * after + 27 * after * after + shortcut)


def _middle(frames: int, area: int, width: int) -> Flops:
  dense = 2 * _residual(frames * area, width, width)
  dense += 2 * frames * area * 4 * width * width
  return Flops(dense, 4 * frames * area * area * width)


def vae_decode(
  config: VAEConfig, latents: int, height: int, width: int, start: bool = True
) -> Flops:
  """Decodes latents of height x width.

  Args:
    config: size of the VAE.
    latents: how many.
    height: rows of a latent.
    width: columns of a latent.
    start: whether the first of them begins the video: it is one frame, and no
      layer doubles it in time.
  """
  c, frames, area = config, latents, height * width
  top = c.base_dim * c.dim_mult[-1]
  dense = 2.0 * frames * area * (c.z_dim**2 + 27 * c.z_dim * top)
  total = Flops(dense) + _middle(frames, area, top)
  before = top
  temporal = c.temporal_down[::-1]
  for i, mult in enumerate(c.dim_mult[::-1]):
    own = c.base_dim * mult
    for _ in range(c.num_res_blocks + 1):
      total += Flops(_residual(frames * area, before, own))
      before = own
    if i == len(temporal):
      break
    if temporal[i]:
      doubled = frames - start
      total += Flops(2 * doubled * area * 3 * own * 2 * own)
      frames += doubled
    area *= 4
    total += Flops(2 * frames * area * 9 * own * (own // 2))
    before = own // 2
  return total + Flops(2 * frames * area * 27 * before * 3 * c.patch**2)


def vae_encode(
  config: VAEConfig, frames: int, height: int, width: int, start: bool = True
) -> Flops:
  """Encodes frames of height x width pixels; `start` as in `vae_decode`."""
  c, area = config, height * width // config.patch**2
  first = 3 * c.patch**2
  total = Flops(2 * frames * area * 27 * first * c.base_dim)
  before = c.base_dim
  for i, mult in enumerate(c.dim_mult):
    own = c.base_dim * mult
    for _ in range(c.num_res_blocks):
      total += Flops(_residual(frames * area, before, own))
      before = own
    if i == len(c.temporal_down):
      break
    area //= 4
    total += Flops(2 * frames * area * 9 * own * own)
    if c.temporal_down[i]:
      halved = (frames - start) // 2
      total += Flops(2 * halved * area * 3 * own * own)
      frames = start + halved
  total += _middle(frames, area, before)
  moments = 2 * c.z_dim
  return total + Flops(
    2 * frames * area * (27 * before * moments + moments * moments)
  )
