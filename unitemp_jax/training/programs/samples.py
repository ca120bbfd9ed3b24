"""Sample clips during training: a contact sheet and videos per visit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import orders
from unitemp_jax.data import latents
from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.objectives.vae import to_unit
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.card import model_card
from unitemp_jax.training.programs.lazy_weights import LazyWeights
from unitemp_jax.training.state import TrainState
from unitemp_jax.video import files

_CLIPS = 6
_FPS = 12

SampleFn = Callable[[TrainState, Path | None], None]


def held_out(config: ConfigDict) -> dict:
  """The clips whose captions and pictures the samples are of."""
  spec = dataclasses.replace(builders.clip_spec(config.data), split='test')
  return sample_clips(spec, range(_CLIPS))


def write_samples(
  folder: Path | None, name: str, videos: np.ndarray, labels: list[str]
) -> None:
  """Writes a sheet and an mp4 per clip; processes without a folder do not."""
  if folder is None or jax.process_index() != 0:
    return
  files.write_sheet(folder / f'{name}.png', list(videos), labels)
  for i, video in enumerate(videos):
    files.write_video(
      folder / f'{name}-{i}.mp4', video, _FPS, {'prompt': labels[i]}
    )


def vae_samples(config: ConfigDict) -> SampleFn:
  """Held-out clips through the VAE."""
  vae = VAE(builders.vae_config(config.model))

  @jax.jit
  def reconstruct(params, video):
    pixels = vae.apply({'params': params}, to_unit(video))[0]
    return jax.numpy.clip((pixels + 1.0) * 127.5, 0, 255).astype('uint8')

  def sample(state, folder):
    clips = held_out(config)
    videos = np.asarray(reconstruct(state.ema['vae'], clips['video']))
    write_samples(folder, 'reconstruction', videos, clips['caption'])

  return sample


class _Model:
  """The model of a config, with the weights of the moment.

  Programs are compiled at the first visit and kept for the later ones.
  """

  def __init__(self, config: ConfigDict):
    self._config = config
    self._pipeline: Pipeline | None = None

  def with_weights(self, **params) -> Pipeline:
    """The pipeline with these trees in place of the last ones."""
    if self._pipeline is not None:
      return self._pipeline.replaced(**params)
    config = self._config
    card = model_card(config, latents.read_index(config.latents.dir), {})
    shapes = model_folder.param_shapes(card)
    vae = weights.load(config.latents.vae, shapes['vae'])
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    trees = {'vae': vae, **params}
    self._pipeline = Pipeline(card, trees, tokenizer, 'in training')
    return self._pipeline


def teacher_samples(config: ConfigDict, num_steps: int = 25) -> SampleFn:
  """Held-out captions through the teacher."""
  model = _Model(config)

  def sample(state, folder):
    clips = held_out(config)
    tree = state.ema['teacher']
    pipeline = model.with_weights(teacher=tree['dit'], text=tree['text'])
    made = pipeline.sample_teacher(clips['caption'], range(_CLIPS), num_steps)
    write_samples(folder, 'teacher', pipeline.decode(made), clips['caption'])

  return sample


def student_samples(
  config: ConfigDict, text: LazyWeights | dict
) -> SampleFn | None:
  """Held-out captions through the student, forward and backward.

  None without a text encoder: its captions are not among the embeddings.
  """
  if not isinstance(text, LazyWeights):
    return None
  model = _Model(config)

  def sample(state, folder):
    clips = held_out(config)
    encoder = text.load()
    pipeline = model.with_weights(student=state.ema['student'], text=encoder)
    for name in ('forward', 'backward'):
      plan = orders.ORDERS[name](
        pipeline.num_latents,
        anchors=config.orders.anchors,
        start=config.orders.start,
      )
      made = pipeline.generate(clips['caption'], range(_CLIPS), plan)
      videos = pipeline.pixels(made)
      write_samples(folder, name, videos, clips['caption'])

  return sample
