"""Text encoder and transformer together: the bidirectional teacher."""

from typing import Any

import jax
import jax.numpy as jnp

from unitemp_jax.models.dit import DiT, TextContext
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.shapes import Latents, Sigmas, Text, TokenIds, TokenMask


def encode_text(
  encoder: TextEncoder, params: Any, ids: TokenIds, mask: TokenMask
) -> Text:
  """Token ids `BE` to embeddings `BED`, zero after the end."""
  return encoder.apply({'params': params}, ids, mask)


def batch_text(encoder: TextEncoder, params: Any, batch: Any) -> Text:
  """Embeddings `BED` of a batch: its own `text`, or its token ids encoded.

  With `text` the encoder's parameters may be anything, such as nothing.
  """
  if 'text' in batch:
    return batch['text']
  return encode_text(encoder, params, batch['ids'], batch['mask'])


def init_teacher(
  dit: DiT,
  encoder: TextEncoder,
  key: jax.Array,
  frames: int,
  height: int,
  width: int,
) -> dict[str, Any]:
  """Random parameters `{'dit', 'text'}` for latents of height x width."""
  key_dit, key_text = jax.random.split(key)
  c, t = dit.config, encoder.config
  ids = jnp.zeros((1, t.length), jnp.int32)
  text = jnp.zeros((1, t.length, c.text_dim))
  x = jnp.zeros((1, frames, height, width, c.channels))
  sigma, positions = jnp.zeros((1, frames)), jnp.arange(frames)
  return {
    'dit': dit.init(key_dit, x, sigma, positions, text, method='init_all')[
      'params'
    ],
    'text': encoder.init(key_text, ids, ids == 0)['params'],
  }


def bidirectional(
  dit: DiT, params: Any, x: Latents, sigma: Sigmas, context: TextContext
) -> Latents:
  """Velocity of a whole timeline, every frame seeing every other."""
  positions = jnp.arange(x.shape[1])
  return dit.apply({'params': params}, x, sigma, positions, context)[0]


def text_context(dit: DiT, params: Any, text: Text) -> TextContext:
  """Cross-attention keys and values of text embeddings `BED`."""
  return dit.apply({'params': params}, text, method='text_context')
