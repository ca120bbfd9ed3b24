"""How close our networks are to PyTorch's, on a checkpoint and one input.

PyTorch's side is loaded by diffusers' own reading of the layout, ours by our
tables, so that a wrong line of a table shows as a wrong number. The error of a
module is the norm of the difference over the norm of PyTorch's output. A
module's input is PyTorch's own, so that errors do not add up from layer to
layer; the rows named `network` run both sides from end to end.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from unitemp_jax.convert import fit, incoming, parity_networks, parity_torch
from unitemp_jax.convert.parity_torch import TOLERANCES, Row
from unitemp_jax.models import sizes

# The original's names of the text encoder and transformers'.
_BLOCK = r'^blocks\.(\d+)\.'
_UMT5 = {
  r'^token_embedding\.': 'shared.',
  r'^norm\.': 'encoder.final_layer_norm.',
  rf'{_BLOCK}norm1\.': r'encoder.block.\1.layer.0.layer_norm.',
  rf'{_BLOCK}norm2\.': r'encoder.block.\1.layer.1.layer_norm.',
  rf'{_BLOCK}attn\.': r'encoder.block.\1.layer.0.SelfAttention.',
  rf'{_BLOCK}pos_embedding\.embedding\.': (
    r'encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.'
  ),
  rf'{_BLOCK}ffn\.gate\.0\.': r'encoder.block.\1.layer.1.DenseReluDense.wi_0.',
  rf'{_BLOCK}ffn\.fc1\.': r'encoder.block.\1.layer.1.DenseReluDense.wi_1.',
  rf'{_BLOCK}ffn\.fc2\.': r'encoder.block.\1.layer.1.DenseReluDense.wo.',
}


@dataclasses.dataclass(frozen=True)
class Input:
  """How large the input of a comparison is.

  Attributes:
    frames: latent frames.
    height: latent rows.
    width: latent columns.
    tokens: positions of the text.
    seed: of the random numbers.
  """

  frames: int = 3
  height: int = 16
  width: int = 16
  tokens: int = 512
  seed: int = 0


def reference_state(
  found: fit.Found, tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """A checkpoint's weights under the names of diffusers and transformers."""
  state = {name: value.astype(np.float32) for name, value in tensors.items()}
  if found.layout == 'diffusers':
    if found.kind == 'umt5' and 'shared.weight' not in state:
      state['shared.weight'] = state['encoder.embed_tokens.weight']
    return state
  if found.kind == 'umt5':
    for pattern, name in _UMT5.items():
      state = {re.sub(pattern, name, k): v for k, v in state.items()}
    return state
  from diffusers.loaders import single_file_utils

  readers = {
    'dit': single_file_utils.convert_wan_transformer_to_diffusers,
    'vae': single_file_utils.convert_wan_vae_to_diffusers,
  }
  return readers[found.kind](state)


def _inputs(kind: str, config: Any, size: Input) -> tuple:
  rng = np.random.default_rng(size.seed)

  def normal(*shape):
    return rng.standard_normal(shape, np.float32)

  grid = (size.frames, size.height, size.width)
  if kind == 'dit':
    # Every latent frame has a noise level of its own, as the student's do.
    sigma = np.linspace(1.0, 0.0, size.frames, dtype=np.float32)[None]
    text = normal(1, size.tokens, config.text_dim)
    text[:, size.tokens // 2 :] = 0  # Wan attends to the padding as well.
    return normal(1, *grid, config.channels), sigma, text
  if kind == 'vae':
    stride = config.spatial_stride
    frames = 1 + (size.frames - 1) * config.temporal_stride
    pixels = (size.height * stride, size.width * stride)
    video = np.tanh(normal(1, frames, *pixels, 3))
    return video, normal(1, *grid, config.z_dim)
  ids = rng.integers(0, config.vocab, (2, size.tokens), np.int32)
  ends = np.array([[size.tokens], [1 + size.tokens // 3]])
  return ids, np.arange(size.tokens)[None] < ends


def compare_checkpoint(
  found: fit.Found, config: Any, dtypes: Sequence[str], size: Input
) -> list[Row]:
  """Runs both sides on a checkpoint.

  Args:
    found: the network in it.
    config: the size that it should have.
    dtypes: names of `TOLERANCES`; the VAE runs in float32 only.
    size: of the input.

  Raises:
    UserError: PyTorch is missing, or the checkpoint does not fit the config.
  """
  parity_torch.require()
  kind, shapes = found.kind, sizes.param_shapes(config)
  fit.check(found, shapes)
  fit.check_heads(found, config)
  tensors = {
    name: tensor.read()
    for name, tensor in found.tensors.items()
    if tensor.dtype is not None
  }
  state = reference_state(found, tensors)
  params = incoming.load_torch(tensors, kind, shapes, layout=found.layout)
  inputs = _inputs(kind, config, size)
  rows: list[Row] = []
  for dtype in dtypes:
    if kind == 'vae' and dtype != 'float32':
      continue
    module = parity_torch.build(kind, config, state, dtype)
    sized = config
    if kind != 'vae':
      sized = dataclasses.replace(config, dtype=dtype)
    # Accelerators multiply float32 in fewer bits unless they are told not to.
    with jax.default_matmul_precision('highest'):
      rows += parity_networks.ROWS[kind](sized, params, module, *inputs)
  return rows


def format_rows(rows: Sequence[Row]) -> str:
  """The rows as a text table, one line each."""
  width = max(len(row.module) for row in rows)
  head = f'{"module":<{width}}  dtype     max error  relative  tolerance'
  lines = [
    f'{row.module:<{width}}  {row.dtype:<8}  {row.max_error:9.2e}  '
    f'{row.relative_error:8.1e}  {row.tolerance:9.0e}'
    f'{"" if row.passed else "  FAILS"}'
    for row in rows
  ]
  return '\n'.join([head, *lines])


__all__ = ['TOLERANCES', 'Input', 'compare_checkpoint', 'format_rows']
