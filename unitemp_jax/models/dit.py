"""The diffusion transformer of Wan 2.1: teacher, critic and student alike.

Positions, per-frame noise levels, cache and visible length are inputs; weights
and parameter names are the same for all three roles
(Wan-Video/Wan2.1, `wan/modules/model.py`; noise levels per frame as in
guandeh17/Self-Forcing, `wan/modules/causal_model.py`).
The network's output is the velocity, noise - data.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from unitemp_jax.diffusion import flow
from unitemp_jax.models import dit_block, rope
from unitemp_jax.models.cache import KVCache, init_cache
from unitemp_jax.models.linear import Linear
from unitemp_jax.models.remat import policy_named, rematerialised
from unitemp_jax.parallel.mesh_context import split_tokens
from unitemp_jax.shapes import (
  FrameMask,
  Index,
  Latents,
  Positions,
  Sigmas,
  Text,
)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Size of the transformer; the defaults are Wan 2.1 T2V 1.3B's.

  `remat` names what a layer keeps for the backward pass (`models.remat`);
  `unroll` is how many layers one iteration of the scan runs.
  """

  dim: int = 1536
  ffn_dim: int = 8960
  num_heads: int = 12
  num_layers: int = 30
  channels: int = 16
  patch: int = 2
  text_dim: int = 4096
  freq_dim: int = 256
  rope_theta: float = rope.THETA
  dtype: str = 'float32'
  remat: str | bool = 'none'
  unroll: int = 1

  def __post_init__(self):
    """Older models say True or False for full and none."""
    object.__setattr__(self, 'remat', policy_named(self.remat))

  @property
  def head_dim(self) -> int:
    """K, the size of one head."""
    return self.dim // self.num_heads

  def tokens_per_frame(self, height: int, width: int) -> int:
    """Tokens of one latent frame of height x width latents."""
    return (height // self.patch) * (width // self.patch)

  def new_cache(
    self,
    batch: int,
    slots: int,
    height: int,
    width: int,
    sinks: int = 0,
    block: int = 0,
  ) -> KVCache:
    """An empty cache for `slots` latent frames of height x width latents.

    The first `sinks` of them may change their positions; then `block` says how
    many latent frames a write pass has.
    """
    tokens = self.tokens_per_frame(height, width)
    return init_cache(
      self.num_layers,
      batch,
      slots,
      tokens,
      self.num_heads,
      self.head_dim,
      jnp.dtype(self.dtype),
      sinks,
      block,
    )


@flax.struct.dataclass
class TextContext:
  """Cross-attention keys and values of a prompt, computed once, `LBENK`."""

  k_LBENK: jax.Array
  v_LBENK: jax.Array


def sinusoid(t: jax.Array, dim: int) -> jax.Array:
  """Timestep features, cosines first: `BF` to `[B, F, dim]`."""
  half = dim // 2
  freq = np.exp(-np.log(10000.0) * np.arange(half) / half).astype(np.float32)
  angle = t[..., None] * jnp.asarray(freq)[None, None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class DiT(nn.Module):
  """Velocity network over latent frames."""

  config: DiTConfig

  def setup(self):
    """Embeddings, the scanned stack of blocks, and the head."""
    c = self.config
    dtype = jnp.dtype(c.dtype)
    xavier = nn.initializers.xavier_uniform()
    small = nn.initializers.normal(0.02)

    def dense(features, init, dtype=dtype):
      return Linear(features, dtype=dtype, kernel_init=init)

    self.patch_embedding = dense(c.dim, xavier)
    self.text_in = dense(c.dim, small)
    self.text_out = dense(c.dim, small)
    self.time_in = dense(c.dim, small, jnp.float32)
    self.time_out = dense(c.dim, small, jnp.float32)
    self.time_projection = dense(6 * c.dim, xavier, jnp.float32)
    over_layers = {
      'variable_axes': {'params': 0},
      'split_rngs': {'params': True},
      'length': c.num_layers,
      'unroll': c.unroll,
    }
    self.blocks = nn.scan(
      rematerialised(dit_block.Block, c.remat),
      methods={
        '__call__': {'in_axes': (0,) + (nn.broadcast,) * 6, **over_layers},
        'text_kv': {'in_axes': nn.broadcast, **over_layers},
      },
    )(c.dim, c.num_heads, c.ffn_dim, dtype)
    init = nn.initializers.normal(c.dim**-0.5)
    self.head_modulation = self.param('head_modulation', init, (2, c.dim))
    self.head = dense(
      c.channels * c.patch**2, nn.initializers.zeros, jnp.float32
    )

  def text_context(self, text: Text) -> TextContext:
    """Text embeddings `[B, E, text_dim]`, zero after the end, to `LBENK`.

    All E positions are attended to, padding included, as in Wan.
    """
    h = nn.gelu(self.text_in(text), approximate=True)
    _, (k, v) = self.blocks.text_kv(None, self.text_out(h))
    return TextContext(k, v)

  def __call__(
    self,
    x_BFHWC: Latents,
    sigma_BF: Sigmas,
    positions_F: Positions,
    context: TextContext,
    cache: KVCache | None = None,
    slot: Index = 0,
    visible: Index | None = None,
    mask_BFF: FrameMask | None = None,
    keep: bool = True,
  ) -> tuple[Latents, KVCache | None]:
    """Velocity of noisy latents.

    Args:
      x_BFHWC: noisy latents.
      sigma_BF: noise level of every latent frame.
      positions_F: int, temporal position of every latent frame.
      context: of the prompts, from `text_context`.
      cache: keys and values of earlier passes, or None.
      slot: first slot where this pass stages its own keys; it sees the slots
        before it.
      visible: how many slots it sees in all, its own included; default is
        slot + F.
      mask_BFF: bool; which frame may attend to which, B may be 1. Not
        with a cache.
      keep: whether this pass stages its keys in the cache that is returned.

    Returns:
      Velocity `BFHWC` in float32 and the cache with this pass staged, or None.
    """
    c = self.config
    _, frames, height, width, _ = x_BFHWC.shape
    rows, columns = height // c.patch, width // c.patch
    tokens = rows * columns
    x = rearrange(
      x_BFHWC,
      'b f (h p) (w q) c -> b f (h w) (c p q)',
      p=c.patch,
      q=c.patch,
    )
    x = split_tokens(self.patch_embedding(x))
    e = sinusoid(flow.timestep(sigma_BF), c.freq_dim)
    e_BFD = self.time_out(nn.silu(self.time_in(e)))
    e6 = self.time_projection(nn.silu(e_BFD))
    e_BF6D = e6.reshape(*e6.shape[:2], 6, c.dim)
    angle = rope.angles(positions_F, rows, columns, c.head_dim, c.rope_theta)

    token = kv_len = read = None
    if cache is not None:
      token = jnp.asarray(slot, jnp.int32) * tokens
      seen = slot + frames if visible is None else visible
      kv_len = jnp.asarray(seen, jnp.int32) * tokens
    if not keep:
      cache, read = None, cache
    carry = dit_block.zero_init_carry(x, cache)
    text_kv = (context.k_LBENK, context.v_LBENK)
    (x, cache, _), _ = self.blocks(
      carry, text_kv, e_BF6D, angle, token, kv_len, mask_BFF, read
    )
    x = self._head(x, e_BFD)
    v = rearrange(
      x,
      'b f (h w) (p q c) -> b f (h p) (w q) c',
      h=rows,
      w=columns,
      p=c.patch,
      q=c.patch,
    )
    return v, cache

  def _head(self, x: jax.Array, e_BFD: jax.Array) -> jax.Array:
    """Modulated LayerNorm and projection of `BFSD`, in float32."""
    m = self.head_modulation[None, None] + e_BFD[:, :, None]  # [B, F, 2, D]
    y = dit_block.layer_norm(x)
    y = y.reshape(y.shape[0], e_BFD.shape[1], -1, y.shape[-1])
    y = y * (1.0 + m[:, :, None, 1]) + m[:, :, None, 0]
    return self.head(y.reshape(x.shape))

  def init_all(self, x_BFHWC, sigma_BF, positions_F, text):
    """Touches every parameter; for `init` only."""
    context = self.text_context(text)
    return self(x_BFHWC, sigma_BF, positions_F, context)
