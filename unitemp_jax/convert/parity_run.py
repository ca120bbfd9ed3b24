"""A checkpoint on both sides: reads it, makes an input, compares.

PyTorch's side is loaded by diffusers' own reading of the layout, ours by our
tables, so that a wrong line of a table shows as a wrong number.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unitemp_jax.convert import (
  fit,
  load,
  parity_dit,
  parity_torch,
  parity_umt5,
  parity_vae,
)
from unitemp_jax.convert.parity import Row
from unitemp_jax.models import sizes

# The text encoder's names in Wan-Video/Wan2.1 (`wan/modules/t5.py`) and in
# transformers (`UMT5EncoderModel`).
_UMT5 = (
  (r'^token_embedding\.', 'shared.'),
  (r'^norm\.', 'encoder.final_layer_norm.'),
  (r'^blocks\.(\d+)\.norm1\.', r'encoder.block.\1.layer.0.layer_norm.'),
  (r'^blocks\.(\d+)\.norm2\.', r'encoder.block.\1.layer.1.layer_norm.'),
  (r'^blocks\.(\d+)\.attn\.', r'encoder.block.\1.layer.0.SelfAttention.'),
  (
    r'^blocks\.(\d+)\.pos_embedding\.embedding\.',
    r'encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.',
  ),
  (
    r'^blocks\.(\d+)\.ffn\.gate\.0\.',
    r'encoder.block.\1.layer.1.DenseReluDense.wi_0.',
  ),
  (
    r'^blocks\.(\d+)\.ffn\.fc1\.',
    r'encoder.block.\1.layer.1.DenseReluDense.wi_1.',
  ),
  (
    r'^blocks\.(\d+)\.ffn\.fc2\.',
    r'encoder.block.\1.layer.1.DenseReluDense.wo.',
  ),
)


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


def reference_state(found: fit.Found) -> dict[str, np.ndarray]:
  """A checkpoint's weights under the names of diffusers and transformers."""
  state = {
    name: tensor.read().astype(np.float32)
    for name, tensor in found.tensors.items()
    if tensor.dtype is not None
  }
  if found.layout == 'diffusers':
    if found.kind == 'umt5' and 'shared.weight' not in state:
      state['shared.weight'] = state['encoder.embed_tokens.weight']
    return state
  if found.kind == 'umt5':
    for pattern, name in _UMT5:
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
  source: str | Path,
  found: fit.Found,
  config: Any,
  dtypes: Sequence[str],
  size: Input,
) -> list[Row]:
  """Runs both sides on a checkpoint.

  Args:
    source: the checkpoint, for errors.
    found: the network in it.
    config: the size that it should have.
    dtypes: 'float32' and 'bfloat16', or one; the VAE runs in float32 only.
    size: of the input.

  Raises:
    UserError: PyTorch is missing, or the checkpoint does not fit the config.
  """
  parity_torch.require()
  kind = found.kind
  shapes = sizes.param_shapes(config)
  fit.check(found, shapes, str(source))
  state = reference_state(found)
  tensors = {
    name: tensor.read()
    for name, tensor in found.tensors.items()
    if tensor.dtype is not None
  }
  params = load.load_torch(tensors, kind, shapes, layout=found.layout)
  inputs = _inputs(kind, config, size)
  run: Any = {
    'dit': parity_dit.rows,
    'vae': parity_vae.rows,
    'umt5': parity_umt5.rows,
  }[kind]
  rows: list[Row] = []
  for dtype in dtypes:
    if kind == 'vae' and dtype != 'float32':
      continue
    module = parity_torch.build(kind, config, state, dtype)
    sized = (
      config if kind == 'vae' else dataclasses.replace(config, dtype=dtype)
    )
    # Accelerators multiply float32 in fewer bits unless they are told not to.
    with jax.default_matmul_precision('highest'):
      rows += run(sized, params, module, *inputs)
  return rows
