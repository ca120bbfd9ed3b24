"""Prompts to latents with the bidirectional teacher."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.sampling import sampler, teacher
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.sampling.teacher import TeacherSettings


class TeacherSampler:
  """Samples the teacher of a model; compiled once per shape and settings."""

  def __init__(self, card: ModelCard, tokenizer: Tokenizer):
    """For networks of the card's sizes and prompts of this tokenizer."""
    self._card, self._tokenizer = card, tokenizer
    self._dit, text = DiT(card.dit), TextEncoder(card.text)
    self._encode = jax.jit(
      lambda params, *tokens: umt5.encode_text(text, params, *tokens)
    )
    self._run = jax.jit(self._run_fn, static_argnames='settings')

  def _run_fn(self, params, prompt, negative, noise, settings):
    def velocity(text):
      context = umt5.text_context(self._dit, params, text)
      return lambda x, sigma: umt5.bidirectional(
        self._dit, params, x, sigma, context
      )

    return teacher.sample_teacher(
      velocity(prompt), velocity(negative), noise, settings
    )

  def _embed(self, params, prompts, spread, embeddings):
    """Embeddings `[B, E, D]`; None among the prompts is no text at all."""
    given = ['' if prompt is None else prompt for prompt in prompts]
    empty = None in prompts or '' in given
    length = self._card.text.length
    ids, mask = self._tokenizer.encode(given, length, allow_empty=empty)
    if None in prompts:
      return jnp.zeros((*ids.shape, self._card.dit.text_dim))
    if embeddings is not None:
      return spread(embeddings.lookup(ids, mask))
    return self._encode(params['text'], spread(ids), spread(mask))

  def sample(
    self,
    params: Any,
    prompts: Sequence[str],
    seeds: Sequence[int] | np.ndarray,
    shape: tuple[int, ...],
    spread: Callable[[np.ndarray], jax.Array],
    num_steps: int = 50,
    *,
    solver: str = 'euler',
    shift: float | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    embeddings: PromptEmbeddings | None = None,
  ) -> np.ndarray:
    """Latents `[B, N, h, w, C]`.

    Args:
      params: trees `teacher` and, without embeddings, `text`.
      prompts: one per sample.
      seeds: one per sample, 0 .. 2**32 - 1; the noise is the seed's alone.
      shape: of one sample's latents, `(N, h, w, C)`.
      spread: puts rows on the devices.
      num_steps: of the solver.
      solver: 'euler' or 'unipc'.
      shift: of the noise levels; default is the model card's.
      guidance_scale: w in u + w (c - u); default is the model card's.
      negative_prompt: what guidance leads away from; None is no text at all,
        an empty one the end token alone.
      embeddings: of the prompts, in place of the text encoder.

    Raises:
      UserError: the model came without its teacher, an empty prompt, or a
        setting that no sampler has.
    """
    if 'teacher' not in params:
      raise UserError('this model folder has no teacher.safetensors to sample.')
    if not all(prompt.strip() for prompt in prompts):
      raise UserError('a prompt is empty; say what the video should show.')
    card = self._card
    settings = TeacherSettings(
      steps=num_steps,
      shift=card.teacher_shift if shift is None else shift,
      guidance_scale=(
        card.guidance_scale if guidance_scale is None else guidance_scale
      ),
      solver=solver,
    )
    negative = [negative_prompt] * len(prompts)
    keys = sampler.sample_keys(seeds)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    latents = self._run(
      params['teacher'],
      self._embed(params, list(prompts), spread, embeddings),
      self._embed(params, negative, spread, embeddings),
      spread(np.asarray(noise)),
      settings=settings,
    )
    return np.asarray(latents)
