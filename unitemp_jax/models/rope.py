"""3-D rotary embedding for any integer positions, negative ones too.

As in Wan 2.1 (`wan/modules/model.py`) the head's K / 2 complex pairs are split
into c - 2 (c // 3) for time and c // 3 each for rows and columns; every axis
has its own exponent range; pairs are interleaved. Attention sees position
differences only, so angles are computed for the positions at hand and no table
limits them.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.shapes import Angles, Positions, Tokens

THETA = 10000.0


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
  """Complex pairs for (time, rows, columns); 22, 21, 21 for 128."""
  pairs = head_dim // 2
  third = pairs // 3
  return pairs - 2 * third, third, third


def frequencies(pairs: int, theta: float = THETA) -> np.ndarray:
  """theta^(-2 i / (2 pairs)) for i < pairs, float32."""
  exponent = np.arange(pairs, dtype=np.float64) / max(pairs, 1)
  return (theta**-exponent).astype(np.float32)


def angles(
  positions: Positions,
  height: int,
  width: int,
  head_dim: int,
  theta: float = THETA,
) -> Angles:
  """Rotation angles `[F * height * width, head_dim / 2]`, radians.

  Args:
    positions: int `[F]`, temporal position of every latent frame.
    height: token rows of a frame.
    width: token columns of a frame.
    head_dim: K, even.
    theta: base of the frequencies.
  """
  pairs_t, pairs_h, pairs_w = axis_pairs(head_dim)
  f = positions.shape[0]
  grid = (f, height, width)

  def along(index, axis, pairs):
    index = jnp.asarray(index, jnp.float32)
    angle = index[:, None] * jnp.asarray(frequencies(pairs, theta))[None]
    shape = [1, 1, 1, pairs]
    shape[axis] = index.shape[0]
    return jnp.broadcast_to(angle.reshape(shape), (*grid, pairs))

  parts = [
    along(positions, 0, pairs_t),
    along(jnp.arange(height), 1, pairs_h),
    along(jnp.arange(width), 2, pairs_w),
  ]
  return jnp.concatenate(parts, axis=-1).reshape(-1, head_dim // 2)


def rotate(x_BTNK: Tokens, angle_TK: Angles) -> Tokens:
  """Rotates interleaved pairs of queries or keys, in float32, cast back."""
  if device_mesh.platform() == 'tpu':
    return _rotate_by_product(x_BTNK, angle_TK)
  pair = x_BTNK.astype(jnp.float32).reshape(*x_BTNK.shape[:-1], -1, 2)
  cos = jnp.cos(angle_TK)[None, :, None]
  sin = jnp.sin(angle_TK)[None, :, None]
  real, imag = pair[..., 0], pair[..., 1]
  out = jnp.stack([real * cos - imag * sin, real * sin + imag * cos], axis=-1)
  return out.reshape(x_BTNK.shape).astype(x_BTNK.dtype)


def _rotate_by_product(x_BTNK, angle_TK):
  """As `rotate`: to swap neighbouring lanes is cheapest as a product."""
  width = x_BTNK.shape[-1]
  even = np.arange(0, width, 2)
  swap = np.zeros((width, width), np.float32)
  swap[even + 1, even], swap[even, even + 1] = -1.0, 1.0
  swapped = jnp.einsum(
    '...k,kj->...j',
    x_BTNK,
    jnp.asarray(swap, x_BTNK.dtype),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  cos, sin = (
    jnp.repeat(f(angle_TK), 2, axis=-1)[None, :, None]
    for f in (jnp.cos, jnp.sin)
  )
  x = x_BTNK.astype(jnp.float32) * cos + swapped * sin
  return x.astype(x_BTNK.dtype)
