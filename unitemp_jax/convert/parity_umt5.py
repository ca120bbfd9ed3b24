"""The text encoder beside transformers', module by module."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.convert import parity_torch
from unitemp_jax.convert.parity import Row, compare
from unitemp_jax.models import umt5
from unitemp_jax.models.umt5 import TextConfig, TextEncoder


def torch_encode(module, ids, mask) -> np.ndarray:
  """transformers' embeddings `BED`, zeroed after the end as Wan does."""
  made = module(
    input_ids=parity_torch.to_torch(np.asarray(ids, np.int64)),
    attention_mask=parity_torch.to_torch(np.asarray(mask, np.int64)),
  ).last_hidden_state
  return parity_torch.to_numpy(made) * np.asarray(mask)[..., None]


def encode(config: TextConfig, params: Any, ids, mask) -> np.ndarray:
  """Our embeddings of the same."""
  encoder = TextEncoder(config)
  run = jax.jit(lambda params, *a: encoder.apply({'params': params}, *a))
  return np.asarray(run(params, ids, mask), np.float32)


def rows(config: TextConfig, params: Any, module, ids, mask) -> list[Row]:
  """Compares every layer and the whole encoder.

  Rows after the end of a text are left out: nothing reads them.

  Args:
    config: size and dtype of our side.
    params: our weights.
    module: transformers' encoder, in the same dtype.
    ids: int `BE`.
    mask: bool `BE`.
  """
  dtype = config.dtype
  block = 'encoder.block.{}'.format
  norm = 'encoder.final_layer_norm'
  theirs, calls = parity_torch.record(
    module,
    ['encoder.embed_tokens', *map(block, range(config.num_layers)), norm],
    lambda: torch_encode(module, ids, mask),
  )
  mask = np.asarray(mask)
  found = []

  def add(name, ours):
    made = np.asarray(ours, np.float32)
    found.append(compare(name, dtype, made[mask], calls[name][0].output[mask]))

  embedding = params['token_embedding']['embedding'].astype(dtype)
  add('encoder.embed_tokens', jnp.take(embedding, ids, axis=0))

  @jax.jit
  def layer(params, x):
    module = umt5.TextLayer(config)
    return module.apply({'params': params}, x.astype(dtype), mask)

  for i in range(config.num_layers):
    add(block(i), layer(params[f'layer{i}'], calls[block(i)][0].input))
  x = jnp.asarray(calls[norm][0].input, dtype)
  add(norm, umt5.T5Norm().apply({'params': params['norm_out']}, x))
  whole = encode(config, params, ids, mask)
  return [*found, compare('network', dtype, whole, theirs)]
