"""A dense layer whose matrix product has one leading axis on CPU.

The weight gradient of `[B, T, D] @ [D, M]` contracts two axes, which XLA's CPU
backend does slower than one. On TPU and GPU the axes stay apart, so that batch
and sequence can be sharded apart.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from unitemp_jax.parallel import mesh_context


class Linear(nn.Module):
  """`[..., D]` to `[..., features]`; parameters as in `nn.Dense`."""

  features: int
  use_bias: bool = True
  dtype: DTypeLike = jnp.float32
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the layer in `dtype`."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    leading = x.shape[:-1]
    x = x.astype(self.dtype)
    if mesh_context.platform() == 'cpu':
      x = x.reshape(-1, x.shape[-1])
    y = x @ kernel.astype(self.dtype)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y.reshape(*leading, self.features)
