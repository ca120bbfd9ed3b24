"""The pipeline on prompts that were encoded before, without a text encoder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder, network


class EmbeddedPipeline(Pipeline):
  """Samples the student; prompts must be among the embeddings."""

  embeddings: PromptEmbeddings

  @classmethod
  def load_with(
    cls, folder: str | Path, embeddings: str | Path
  ) -> 'EmbeddedPipeline':
    """Loads a model folder, but for its text encoder, which may be missing.

    Args:
      folder: of the model.
      embeddings: what "unitemp encode PROMPTS" wrote.

    Raises:
      UserError: a file is missing or does not fit.
    """
    folder = Path(folder)
    card, found = model_folder.read_card(folder), PromptEmbeddings(embeddings)
    if found.width != card.dit.text_dim:
      raise UserError(
        f'{embeddings} has embeddings of width {found.width} and the model '
        f'takes {card.dit.text_dim}; encode them with its text encoder.'
      )
    shapes = model_folder.inference_shapes(card)
    digest = hashlib.sha256(found.text.encode())
    params = {}
    for name in ('vae', 'student'):
      path = folder / f'{name}.safetensors'
      params[name] = weights.load(path, shapes[name])
      digest.update(path.read_bytes())
    digest.update((folder / model_folder.INDEX).read_bytes())
    tokenizer = Tokenizer.from_file(folder / 'tokenizer.json')
    pipeline = cls(card, params, tokenizer, digest.hexdigest()[:16])
    pipeline.embeddings = found
    return pipeline

  def tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[B, E, Dt]` instead of token ids, and their mask `[B, E]`.

    Raises:
      UserError: an empty prompt, or one that was not encoded.
    """
    ids, mask = super().tokens(prompts)
    return self.embeddings.lookup(ids, mask), mask

  def _net_fn(self, params, texts, mask):
    """The student with the embedded prompts `[B, R, E, Dt]` of rows."""
    context = texts.swapaxes(0, 1)
    return network.make_net(self._dit, params['student'], context)
