"""The pipeline for many clips of few prompts, on this process's devices."""

import collections
from collections.abc import Sequence

import jax
import numpy as np

from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.sampling import network
from unitemp_jax.sampling.model_folder import ModelCard

# Of encoded prompts that are kept in host memory; some thousand of Wan's.
_KEPT_BYTES = 8e9


class BulkPipeline(Pipeline):
  """Samples the student; the text encoder runs once per prompt.

  Where processes work together, each runs its own batches on its own devices.
  """

  def __init__(
    self,
    card: ModelCard,
    params: dict,
    tokenizer: Tokenizer,
    model_hash: str,
    devices: Sequence[jax.Device] | None = None,
  ):
    """As `Pipeline`, on some devices; by default on all of this process."""
    if devices is None:
      devices = jax.local_devices()
    super().__init__(card, params, tokenizer, model_hash, devices)
    self._embed = jax.jit(self._text_fn)
    self._texts: collections.OrderedDict[str, np.ndarray] = (
      collections.OrderedDict()
    )
    self._bytes = 0
    self.encoded = 0

  def tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[B, E, Dt]` instead of token ids, and their mask `[B, E]`."""
    texts = [self._text_of(prompt) for prompt in prompts]
    length, width = self.card.text.length, texts[0].shape[-1]
    embedded = np.zeros((len(texts), length, width), np.float32)
    for row, text in zip(embedded, texts, strict=True):
      row[: len(text)] = text
    ends = np.array([[len(text)] for text in texts])
    return embedded, np.arange(length) < ends

  def _text_of(self, prompt: str) -> np.ndarray:
    """The prompt's embeddings up to its end, `[n, Dt]`."""
    if prompt in self._texts:
      self._texts.move_to_end(prompt)
      return self._texts[prompt]
    ids, mask = super().tokens([prompt])
    text = np.asarray(self._embed(self._params, ids, mask), np.float32)
    # Zero after the end.
    text = text[0, : int(mask.sum())]
    self.encoded += 1
    self._texts[prompt] = text
    self._bytes += text.nbytes
    while self._bytes > _KEPT_BYTES and len(self._texts) > 1:
      self._bytes -= self._texts.popitem(last=False)[1].nbytes
    return text

  def _net_fn(self, params, texts, mask):
    """The student with the embedded prompts `[B, R, E, Dt]` of rows."""
    context = texts.swapaxes(0, 1)
    return network.make_net(self._dit, params['student'], context)
