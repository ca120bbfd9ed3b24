"""The diffusion transformer of Wan 2.1: teacher, critic and student alike.

Positions, per-frame noise levels, cache and visible length are inputs; weights
and parameter names are the same for all three roles
(Wan-Video/Wan2.1, `wan/modules/model.py`; noise levels per frame as in
guandeh17/Self-Forcing, `wan/modules/causal_model.py`).
The network's output is the velocity, noise - data.

Statistics, modulation and residual additions are in float32, matrix products in
the compute dtype.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from unitemp_jax.diffusion import flow
from unitemp_jax.errors import check_known
from unitemp_jax.models import nag, rope
from unitemp_jax.models.attention import RESIDUALS, attention
from unitemp_jax.models.cache import KVCache, beside, init_cache, stage
from unitemp_jax.models.params import draws, param
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import join_heads, split_heads, split_tokens
from unitemp_jax.shapes import (
  AnyArray,
  FrameMask,
  Index,
  Latents,
  Positions,
  Sigmas,
  Text,
)


class Linear(nn.Module):
  """`[..., D]` to `[..., features]`; parameters as in `nn.Dense`.

  The weight gradient of `[B, T, D] @ [D, M]` contracts two axes, which XLA's
  CPU backend does slower than one: there the product has one leading axis. On
  TPU and GPU the axes stay apart, so that they can be sharded apart.
  """

  features: int
  use_bias: bool = True
  dtype: DTypeLike = jnp.float32
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: AnyArray) -> jax.Array:
    """Applies the layer in `dtype`."""
    shape = (x.shape[-1], self.features)
    kernel = param(self, 'kernel', self.kernel_init, shape)
    leading = x.shape[:-1]
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if device_mesh.platform() == 'cpu':
      # Products of half precision are slower there than those of float32.
      x, kernel = (a.astype(jnp.float32) for a in (x, kernel))
      x = x.reshape(-1, x.shape[-1])
    y = (x @ kernel).astype(self.dtype)
    if self.use_bias:
      bias = param(self, 'bias', nn.initializers.zeros, (self.features,))
      y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y.reshape(*leading, self.features)


# What a layer keeps for the backward pass:
# none       everything: the fastest, and far too much at full size
# full       what enters the layer; the rest is computed again
# attention  what enters the layer and what leaves its attentions, the costliest
#            part; the rest is computed again
# offload    as `full`, but what enters the layer waits in the host's memory
POLICIES = ('none', 'full', 'attention', 'offload')

_INPUT = 'layer_input'


def mark_input(x: AnyArray) -> jax.Array:
  """Names what enters a layer."""
  return checkpoint_name(x, _INPUT)


def policy_named(policy: str | bool) -> str:
  """Checks a name; True and False, of older models, are full and none.

  Raises:
    UserError: there is no such policy.
  """
  if isinstance(policy, bool):
    return 'full' if policy else 'none'
  check_known("the dit config's remat is", policy, POLICIES)
  return policy


def rematerialised(block: type[nn.Module], policy: str) -> Any:
  """Returns the layer, keeping what the policy says."""
  if policy == 'none':
    return block
  policies = jax.checkpoint_policies
  kept = {
    'full': None,
    'attention': policies.save_only_these_names(RESIDUALS),
    'offload': policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=[_INPUT],
      offload_src='device',
      offload_dst='pinned_host',
    ),
  }
  return nn.remat(block, policy=kept[policy])


EPS = 1e-6


def layer_norm(x: AnyArray) -> jax.Array:
  """LayerNorm without affine, in float32, over the last axis."""
  x = x.astype(jnp.float32)
  mean = x.mean(-1, keepdims=True)
  var = ((x - mean) ** 2).mean(-1, keepdims=True)
  return (x - mean) * jax.lax.rsqrt(var + EPS)


class RMSNorm(nn.Module):
  """RMSNorm with a learned weight, over the full width, before head split."""

  @nn.compact
  def __call__(self, x: AnyArray) -> jax.Array:
    """Normalises the last axis in float32, cast back."""
    scale = param(self, 'scale', nn.initializers.ones, (x.shape[-1],))
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt((x32**2).mean(-1, keepdims=True) + EPS)
    return (x32 * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Projections(nn.Module):
  """q, k, v, o of one attention, with RMSNorm on q and k."""

  dim: int
  num_heads: int
  dtype: DTypeLike

  def setup(self):
    """Xavier-uniform kernels, as in Wan's own initialisation."""

    def dense(name):
      init = nn.initializers.xavier_uniform()
      return Linear(self.dim, dtype=self.dtype, kernel_init=init, name=name)

    self.q, self.k, self.v, self.o = (dense(n) for n in 'qkvo')
    self.norm_q = RMSNorm()
    self.norm_k = RMSNorm()

  def split(self, x: AnyArray) -> jax.Array:
    """`BTD` or `BFSD` to `BTNK`, T = F S."""
    heads = x.reshape(*x.shape[:-1], self.num_heads, -1)
    if x.ndim == 4:
      heads = split_heads(heads)
    return heads.reshape(x.shape[0], -1, *heads.shape[-2:])

  def query(self, x: AnyArray) -> jax.Array:
    """`BFSD` to normalised queries `BTNK`."""
    return self.split(self.norm_q(self.q(x)))

  def key_value(self, x: AnyArray) -> tuple[jax.Array, jax.Array]:
    """`BED` or `BFSD` to normalised keys and values `BENK` or `BTNK`."""
    return self.split(self.norm_k(self.k(x))), self.split(self.v(x))

  def out(self, y_BTNK: jax.Array, frames: int) -> jax.Array:
    """Heads `BTNK` back to `BFSD`."""
    b, t, *heads = y_BTNK.shape
    y = join_heads(y_BTNK.reshape(b, frames, t // frames, *heads))
    return self.o(y.reshape(*y.shape[:3], -1))


class Block(nn.Module):
  """Self-attention, cross-attention, feed-forward; scanned over layers.

  Self-attention and feed-forward are modulated per latent frame by the
  timestep; cross-attention is neither modulated nor gated.
  """

  dim: int
  num_heads: int
  ffn_dim: int
  dtype: DTypeLike

  def setup(self):
    """One layer's parameters."""
    init = nn.initializers.normal(self.dim**-0.5)
    self.modulation = param(self, 'modulation', init, (6, self.dim))
    self.self_attn = Projections(self.dim, self.num_heads, self.dtype)
    self.cross_attn = Projections(self.dim, self.num_heads, self.dtype)
    # Not the fast variance, which loses all digits far from zero.
    self.norm_cross = nn.LayerNorm(epsilon=EPS, use_fast_variance=False)
    xavier = nn.initializers.xavier_uniform()
    self.ffn_up = Linear(self.ffn_dim, dtype=self.dtype, kernel_init=xavier)
    self.ffn_down = Linear(self.dim, dtype=self.dtype, kernel_init=xavier)

  def text_kv(self, carry, text: jax.Array):
    """This layer's keys and values of the text `BED`; the carry is unused."""
    return carry, self.cross_attn.key_value(text)

  def __call__(
    self, carry, text_kv, e_BF6D, angle_TK, token, kv_len, mask_BQS, read
  ):
    """One layer on the carry (x, cache or None, layer index).

    Args:
      carry: x `BFSD` (or `BTD`, T = F S), the whole cache (all layers) or None,
        and this layer's index.
      text_kv: keys and values `BENK` of the text for this layer.
      e_BF6D: timestep modulation of every frame, float32.
      angle_TK: rotary angles of the tokens of x.
      token: where in the cache this pass stages its keys.
      kv_len: how many keys are visible, staged ones included, or None.
      mask_BQS: bool mask or None.
      read: a whole cache that is only read, in place of the carried one.
    """
    given, cache, layer = carry
    given = mark_input(given)
    frames = e_BF6D.shape[1]
    x = given.reshape(given.shape[0], frames, -1, given.shape[-1])

    def modulate(y, scale_BFD, shift_BFD):
      y = layer_norm(y) * (1.0 + scale_BFD[:, :, None]) + shift_BFD[:, :, None]
      return split_tokens(y.astype(self.dtype))

    def add(y, delta, gate_BFD=None):
      delta = delta.astype(jnp.float32)
      if gate_BFD is not None:
        delta = delta * gate_BFD[:, :, None]
      return split_tokens((y.astype(jnp.float32) + delta).astype(y.dtype))

    m = self.modulation[None, None].astype(jnp.float32) + e_BF6D
    m = [m[:, :, i] for i in range(6)]

    h = modulate(x, m[1], m[0])
    q = rope.rotate(self.self_attn.query(h), angle_TK)
    raw, v = self.self_attn.key_value(h)
    k = rope.rotate(raw, angle_TK)
    whole = None
    if cache is not None:
      cache, k, v = stage(cache, layer, k, v, token, raw)
      whole = cache.k_LBSNK, cache.v_LBSNK, layer
    elif read is not None:
      k, v = beside(read, layer, k, v, token)
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    y = attention(q, k, v, kv_len, mask_BQS, whole)
    x = add(x, self.self_attn.out(y, frames), m[2])

    h = split_tokens(self.norm_cross(x).astype(self.dtype))
    attend = nag.attend if text_kv[2:] else attention
    y = attend(self.cross_attn.query(h), *text_kv)
    x = add(x, self.cross_attn.out(y, frames))

    h = modulate(x, m[4], m[3])
    h = self.ffn_down(nn.gelu(self.ffn_up(h), approximate=True))
    x = add(x, h, m[5]).reshape(given.shape)
    return (x, cache, layer + 1), None


def zero_init_carry(x: AnyArray, cache: KVCache | None):
  """The carry that enters layer 0."""
  return x, cache, jnp.zeros((), jnp.int32)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Size of the transformer; the defaults are Wan 2.1 T2V 1.3B's.

  `remat` names what a layer keeps for the backward pass (`POLICIES`);
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
  """Cross-attention keys and values of a prompt, computed once, `LBENK`.

  `other` is what guides away from another prompt, see `nag`.
  """

  k_LBENK: jax.Array
  v_LBENK: jax.Array
  other: tuple = ()


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
      # That traces a layer twice; without it other weights are drawn.
      'check_constancy_invariants': draws(self),
    }
    self.blocks = nn.scan(
      rematerialised(Block, c.remat),
      methods={
        '__call__': {'in_axes': (0,) + (nn.broadcast,) * 6, **over_layers},
        'text_kv': {'in_axes': nn.broadcast, **over_layers},
      },
    )(c.dim, c.num_heads, c.ffn_dim, dtype)
    init = nn.initializers.normal(c.dim**-0.5)
    self.head_modulation = param(self, 'head_modulation', init, (2, c.dim))
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
      x_BFHWC, 'b f (h p) (w q) c -> b f (h w) (c p q)', p=c.patch, q=c.patch
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
    carry = zero_init_carry(x, cache)
    text_kv = (context.k_LBENK, context.v_LBENK, *context.other)
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

  def _head(self, x: AnyArray, e_BFD: jax.Array) -> jax.Array:
    """Modulated LayerNorm and projection of `BFSD`, in float32."""
    m = self.head_modulation[None, None] + e_BFD[:, :, None]  # [B, F, 2, D]
    y = layer_norm(x)
    y = y.reshape(y.shape[0], e_BFD.shape[1], -1, y.shape[-1])
    y = y * (1.0 + m[:, :, None, 1]) + m[:, :, None, 0]
    return self.head(y.reshape(x.shape))

  def init_all(self, x_BFHWC, sigma_BF, positions_F, text):
    """Touches every parameter; for `init` only."""
    context = self.text_context(text)
    return self(x_BFHWC, sigma_BF, positions_F, context)
