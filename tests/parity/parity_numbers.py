"""Weights and inputs that every framework and machine makes alike.

A bit generator's raw output never changes between versions of numpy, unlike
the distributions drawn from it. No number is zero: a zero bias or modulation
would hide a branch that is missing or wrong.
"""

import math
import zlib

import numpy as np


def uniform(name: str, shape) -> np.ndarray:
  """Numbers of mean 0 and variance 1, float32, named by a text."""
  size = math.prod(shape)
  bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-size // 4))
  whole = bits.astype('<u8').view('<i2')[:size].astype(np.float32)
  return ((whole + 0.5) * (math.sqrt(3.0) / 2**15)).reshape(shape)


def weight(name: str, shape) -> np.ndarray:
  """A parameter in PyTorch's layout, of the size that its kind has."""
  x = uniform(name, shape)
  if name.endswith(('gamma', 'norm.weight')) or (
    'norm' in name and name.endswith('weight')
  ):
    return 1 + 0.3 * x
  if name.endswith('bias'):
    return 0.2 * x
  if name.endswith('scale_shift_table'):
    return 0.5 * x
  if 'relative_attention_bias' in name or name == 'shared.weight':
    return x
  x = x / np.float32(math.sqrt(math.prod(shape[1:])))
  # Attention logits of UMT5 are not scaled.
  return x / 8 if name.endswith('SelfAttention.q.weight') else x


def weights(shapes: dict) -> dict[str, np.ndarray]:
  """A state dict in PyTorch's layout, from names and shapes."""
  return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}
