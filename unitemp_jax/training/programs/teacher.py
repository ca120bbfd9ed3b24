"""Training the teacher: bidirectional flow matching, text encoder included."""

import functools
from pathlib import Path

import jax
from ml_collections import ConfigDict

from unitemp_jax.models import flops, sizes, umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.objectives import flow_match
from unitemp_jax.training.flops import Clip
from unitemp_jax.training.program import SingleLossProgram, TrainState
from unitemp_jax.training.programs import builders, samples

_SAMPLE_STEPS = 25


class TeacherProgram(SingleLossProgram):
  """Flow matching on latents; the trained tree is {'dit', 'text'}.

  With `config.latents.embeddings` it is the transformer alone. With
  `config.pretrained` the training goes on from these weights.
  """

  name = 'teacher'

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    self._dit = DiT(builders.dit_config(config.model))
    self._encoder = TextEncoder(builders.text_config(config.model))
    self._embedded = bool(config.latents.get('embeddings'))
    self.batch_spec = builders.latent_spec(config)
    if not self._embedded:  # Its captions are not among the embeddings.
      self.sample = self._sample
    if config.get('pretrained'):
      shapes = sizes.param_shapes(self._dit.config)
      if not self._embedded:
        text = sizes.param_shapes(self._encoder.config)
        shapes = {'dit': shapes, 'text': text}
      self.initial = {'teacher': LazyWeights(config.pretrained, shapes)}

  def init_params(self, key, initial):
    """Returns `pretrained`, or fresh networks."""
    if initial:
      return initial['teacher']
    shape = builders.latent_shape(self._config)
    tree = umt5.init_teacher(self._dit, self._encoder, key, *shape)
    return tree['dit'] if self._embedded else tree

  def loss(self, params, frozen, batch, key):
    """Returns the error of the velocity; some rows go without their text."""
    config, dit = self._config.loss, self._dit
    key_drop, key_flow = jax.random.split(key)
    if self._embedded:
      params = {'dit': params, 'text': {}}
    text = umt5.batch_text(self._encoder, params['text'], batch)
    # Without its text a clip trains the unconditional side of guidance.
    shape = (text.shape[0], 1, 1)
    keep = jax.random.uniform(key_drop, shape) >= config.text_drop
    text = text * keep.astype(text.dtype)
    context = umt5.text_context(dit, params['dit'], text)
    return flow_match.loss(
      params['dit'],
      batch['latents'],
      key_flow,
      denoise=lambda p, x, sigma: umt5.bidirectional(dit, p, x, sigma, context),
      shift=config.shift,
    )

  def flops(self) -> dict[str, flops.Flops]:
    """Returns the operations of a step per row."""
    clip, dit = Clip.of(self._config), self._dit.config
    text = flops.text_encoder(self._encoder.config, 1)
    score = flops.trained(clip.bidirectional(dit), dit.remat != 'none')
    return {'step': score + flops.trained(clip.context(dit) + text)}

  @functools.cached_property
  def _model(self) -> samples.Model:
    return samples.Model(self._config)

  def _sample(self, state: TrainState, folder: Path) -> None:
    """Writes held-out captions through the teacher."""
    clips = samples.held_out(self._config)
    tree = state.ema['teacher']
    pipeline = self._model.with_weights(teacher=tree['dit'], text=tree['text'])
    seeds = range(len(clips['caption']))
    made = pipeline.sample_teacher(clips['caption'], seeds, _SAMPLE_STEPS)
    videos = pipeline.decode(made)
    samples.write(folder, 'teacher', videos, clips['caption'])
