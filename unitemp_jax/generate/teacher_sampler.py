"""Prompts to latents with the bidirectional teacher."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate import sampler, teacher
from unitemp_jax.generate.model_folder import ModelCard
from unitemp_jax.generate.teacher import TeacherSettings
from unitemp_jax.models import text_to_video
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder


class TeacherSampler:
  """Samples the teacher of a model; compiled once per shape and settings."""

  def __init__(self, card: ModelCard, tokenizer: Tokenizer):
    """For networks of the card's sizes and prompts of this tokenizer."""
    self._card, self._tokenizer = card, tokenizer
    self._dit, self._text = DiT(card.dit), TextEncoder(card.text)
    self._run = jax.jit(self._run_fn, static_argnames='settings')

  def _run_fn(self, params, prompt, negative, noise, settings):
    def velocity(tokens):
      text = text_to_video.encode_text(self._text, params['text'], *tokens)
      context = text_to_video.text_context(self._dit, params['teacher'], text)
      return lambda x, sigma: text_to_video.bidirectional(
        self._dit, params['teacher'], x, sigma, context
      )

    return teacher.sample_teacher(
      velocity(prompt), velocity(negative), noise, settings
    )

  def _negative(self, prompt: str | None, ids, mask):
    if prompt is None:  # Nothing but padding is encoded to zeros.
      return np.zeros_like(ids), np.zeros_like(mask)
    row = self._tokenizer.encode(
      prompt, self._card.text.length, allow_empty=True
    )
    return tuple(np.repeat(part, len(ids), axis=0) for part in row)

  def sample(
    self,
    params: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    shape: tuple[int, ...],
    spread: Callable[[np.ndarray], jax.Array],
    num_steps: int = 50,
    *,
    solver: str = 'euler',
    shift: float | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
  ) -> np.ndarray:
    """Latents `[B, N, h, w, C]`.

    Args:
      params: trees `teacher` and `text`.
      prompts: one per sample.
      seeds: one per sample, 0 .. 2**32 - 1; the noise is the seed's alone.
      shape: of one sample's latents, `(N, h, w, C)`.
      spread: puts rows on the devices.
      num_steps: of the solver.
      solver: 'euler' or 'unipc'.
      shift: of the noise levels; default is the model card's.
      guidance: standard scale; default is the model card's.
      negative_prompt: what guidance leads away from; None is no text at all,
        an empty one the end token alone.

    Raises:
      UserError: the model came without its teacher, an empty prompt, or a
        setting that no sampler has.
    """
    if 'teacher' not in params:
      raise UserError('this model folder has no teacher.safetensors to sample.')
    card = self._card
    settings = TeacherSettings(
      steps=num_steps,
      shift=card.teacher_shift if shift is None else shift,
      guidance=card.guidance if guidance is None else guidance,
      solver=solver,
    )
    prompt = self._tokenizer.encode(list(prompts), card.text.length)
    negative = self._negative(negative_prompt, *prompt)
    keys = sampler.sample_keys(seeds)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    latents = self._run(
      {name: params[name] for name in ('teacher', 'text')},
      tuple(map(spread, prompt)),
      tuple(map(spread, negative)),
      spread(np.asarray(noise)),
      settings=settings,
    )
    return np.asarray(latents)
