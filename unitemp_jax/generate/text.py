"""Prompt embeddings: from the text encoder, from a cache, or from a folder.

A source is called with the weights of the text encoder and with prompts, and
returns embeddings `[n, E, D]`, zero after the end of each text. It refuses an
empty prompt by UserError, unless `allow_empty`.
"""

import collections
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, umt5, weights
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.parallel.mesh import device_bytes
from unitemp_jax.sampling.model_folder import ModelCard, inference_shapes

TextSource = Callable[..., np.ndarray]
Put = Callable[[np.ndarray], Any]
_SMALL_BYTES = 2e9  # of a text encoder that is always held
_SHARE = 0.7  # of a device's memory that weights may fill
_TOLD_BYTES = 1e9  # of weights, from which on they are told
_AT_A_TIME = 32  # prompts, of an encoder that is read for each batch of them
_KEPT_BYTES = 8e9  # of a memo in host memory; some thousand prompts of Wan's


class Encoder:
  """Encodes all prompts of a call in one batch."""

  def __init__(
    self, card: ModelCard, tokenizer: Tokenizer, put: Put = np.array
  ):
    """Compiles nothing yet; `put` places token ids `[n, E]` on devices."""
    self._tokenizer, self._length = tokenizer, card.text.length
    self._put = put
    network = TextEncoder(card.text)
    self._encode = jax.jit(
      lambda params, ids, mask: umt5.encode_text(network, params, ids, mask)
    )

  def __call__(
    self, params: Any, prompts: Sequence[str], allow_empty: bool = False
  ) -> np.ndarray:
    """Embeddings of prompts."""
    ids, mask = self._tokenizer.encode(
      prompts, self._length, allow_empty=allow_empty
    )
    return np.asarray(self._encode(params, self._put(ids), self._put(mask)))


class LayeredEncoder:
  """Encodes with weights that are read layer by layer in every call.

  So the largest layer is what must fit, and nothing is held between calls.
  """

  def __init__(self, config: TextConfig, load: Callable[[str], Any]):
    """Reads and compiles nothing yet.

    `load` maps the name of a branch of the parameters to that branch.
    """
    self._config, self._load = config, load
    layer, norm = umt5.TextLayer(config), umt5.T5Norm()
    self._layer = jax.jit(
      lambda params, x, mask: layer.apply({'params': params}, x, mask),
      donate_argnums=1,
    )
    self._norm = jax.jit(
      lambda params, x, mask: (
        norm.apply({'params': params}, x) * mask[..., None].astype(x.dtype)
      )
    )

  def encode(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Token ids `[B, E]` to embeddings `[B, E, D]`, zero after the end."""
    table = self._load('token_embedding')['embedding']
    x = jnp.take(table, jnp.asarray(ids), axis=0).astype(self._config.dtype)
    del table
    mask = jnp.asarray(mask)
    for i in range(self._config.num_layers):
      # Waited for: the next layer would be read while this one is still held.
      x = jax.block_until_ready(self._layer(self._load(f'layer{i}'), x, mask))
    return np.asarray(self._norm(self._load('norm_out'), x, mask))


def layered(
  path: Path, config: TextConfig, tokenizer: Tokenizer
) -> 'TextSource':
  """Prompts to embeddings by a file that is read layer by layer."""
  shapes = sizes.inference_shapes(config)
  encoder = LayeredEncoder(
    config, lambda name: weights.load(path, shapes, name)
  )

  def source(
    params: Any, prompts: Sequence[str], allow_empty: bool = False
  ) -> np.ndarray:
    del params
    return encoder.encode(
      *tokenizer.encode(prompts, config.length, allow_empty=allow_empty)
    )

  return Memo(source)


def holds_whole(text_bytes: float, others: float) -> bool:
  """Whether a text encoder stays in memory beside the other networks.

  On a host XLA widens all bfloat16 weights of a program at once, so that it
  would need three times as much.
  """
  if jax.local_devices()[0].platform == 'cpu':
    return text_bytes < _SMALL_BYTES
  limit = device_bytes()
  return limit is None or fits(text_bytes, others, limit)


def fits(text_bytes: float, others: float, limit: float) -> bool:
  """Whether a device with so many bytes holds a text encoder and the others."""
  return text_bytes < _SMALL_BYTES or text_bytes + others < _SHARE * limit


def holds_text(shapes: Mapping[str, Any]) -> bool:
  """Whether the text encoder of a model is held beside its networks."""
  others = sizes.num_bytes([shapes['student'], shapes['vae']])
  return holds_whole(sizes.num_bytes(shapes['text']), others)


def memory_report(card: ModelCard, embeddings: bool) -> str | None:
  """What weights take while videos are made; None if it is less than 1 GB."""
  shapes = inference_shapes(card)
  held = ['student', 'vae']
  text, note = sizes.num_bytes(shapes['text']), ''
  if not embeddings and holds_text(shapes):
    held.append('text')
  elif not embeddings:
    note = (
      f'; the text encoder, {text / 1e9:.1f} GB, is read layer by layer and '
      'not held'
    )
  total = sizes.num_bytes([shapes[name] for name in held])
  if total + text < _TOLD_BYTES:
    return None
  return f'weights of {", ".join(held)}: {total / 1e9:.1f} GB{note}'


class Memo:
  """Least-recently-used cache of another source, which gets single prompts."""

  def __init__(self, source: TextSource):
    """Wraps a source; what it returns belongs to one set of weights."""
    self._source = source
    self._texts: collections.OrderedDict[str, np.ndarray] = (
      collections.OrderedDict()
    )
    self._bytes = 0
    self.encoded = 0

  def __call__(
    self, params: Any, prompts: Sequence[str], allow_empty: bool = False
  ) -> np.ndarray:
    """Embeddings as float32."""
    return np.stack([self._one(params, one, allow_empty) for one in prompts])

  def fill(self, params: Any, prompts: Sequence[str]) -> None:
    """Encodes prompts in batches, as many as are kept."""
    new = [one for one in dict.fromkeys(prompts) if one not in self._texts]
    for first in range(0, len(new), _AT_A_TIME):
      group = new[first : first + _AT_A_TIME]
      found = self._source(params, group)
      if self._bytes + 4 * found.size > _KEPT_BYTES:
        return
      for prompt, text in zip(group, found, strict=True):
        self._keep(prompt, text)

  def _one(self, params, prompt: str, allow_empty: bool) -> np.ndarray:
    if prompt in self._texts:
      self._texts.move_to_end(prompt)
      return self._texts[prompt]
    text = self._source(params, [prompt], allow_empty=allow_empty)[0]
    return self._keep(prompt, text)

  def _keep(self, prompt: str, text: np.ndarray) -> np.ndarray:
    text = np.asarray(text, np.float32)
    self.encoded += 1
    self._texts[prompt] = text
    self._bytes += text.nbytes
    while self._bytes > _KEPT_BYTES and len(self._texts) > 1:
      self._bytes -= self._texts.popitem(last=False)[1].nbytes
    return text


def read_ahead(source: TextSource, params: Any, prompts: Sequence[str]) -> None:
  """Encodes prompts that will be asked for, if their encoder is not held.

  So it is read once for many of them, and has left before clips are made.
  """
  if 'text' not in params and isinstance(source, Memo):
    source.fill(None, prompts)


class Stored:
  """Precomputed embeddings, from "unitemp encode PROMPTS"."""

  def __init__(self, folder: str | Path, card: ModelCard, tokenizer: Tokenizer):
    self.found = PromptEmbeddings(folder)
    if self.found.width != card.dit.text_dim:
      raise UserError(
        f'{folder} has embeddings of width {self.found.width} and the model '
        f'takes {card.dit.text_dim}; encode them with its text encoder.'
      )
    self._tokenizer, self._length = tokenizer, card.text.length

  def __call__(
    self, params: Any, prompts: Sequence[str], allow_empty: bool = False
  ) -> np.ndarray:
    """Embeddings; UserError for a prompt that was not encoded."""
    ids, mask = self._tokenizer.encode(
      prompts, self._length, allow_empty=allow_empty
    )
    return self.found.lookup(ids, mask, prompts)

  def check(self, prompts: Sequence[str]) -> None:
    """Raises UserError for a prompt that was not encoded."""
    ids, mask = self._tokenizer.encode(prompts, self._length, allow_empty=True)
    self.found.check(ids, mask, prompts)

  def hash_with(self, *contents: Path) -> str:
    """What names a model whose text encoder these embeddings replace."""
    digest = hashlib.sha256(self.found.text.encode())
    for path in contents:
      digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
