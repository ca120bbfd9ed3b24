"""Sample clips during training: a contact sheet and videos per visit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import orders
from unitemp_jax.data.falling_digits import sample_clips
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import weights
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.program import TrainState
from unitemp_jax.training.programs import builders, networks
from unitemp_jax.video.write import write_sheet, write_video

_CLIPS = 6
_FPS = 12


def held_out(config: ConfigDict) -> dict:
  """Returns the clips whose captions and pictures the samples are of."""
  spec = dataclasses.replace(builders.clip_spec(config.data), split='test')
  return sample_clips(spec, range(_CLIPS))


def write(
  folder: Path, name: str, videos: np.ndarray, labels: list[str]
) -> None:
  """Writes a sheet and an mp4 per clip."""
  write_sheet(folder / f'{name}.png', list(videos), labels)
  for i, video in enumerate(videos):
    write_video(folder / f'{name}-{i}.mp4', video, _FPS, {'prompt': labels[i]})


class Model:
  """The model of a config, with the weights of the moment.

  Programs are compiled at the first visit and kept for the later ones.
  """

  def __init__(self, config: ConfigDict):
    self._config = config
    self._pipeline: Pipeline | None = None

  def with_weights(self, **params) -> Pipeline:
    """Returns the pipeline with these trees in place of the last ones."""
    if self._pipeline is not None:
      return self._pipeline.replaced(**params)
    config = self._config
    card = networks.model_card(config, {})
    shapes = model_folder.param_shapes(card)
    vae = weights.load(config.latents.vae, shapes['vae'])
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    trees = {'vae': vae, **params}
    self._pipeline = Pipeline(card, trees, tokenizer, 'in training')
    return self._pipeline


def student_sampler(
  config: ConfigDict, text: LazyWeights | dict
) -> Callable[[TrainState, Path], None] | None:
  """Returns what samples a student, forward and backward, in training.

  None without a text encoder: its captions are not among the embeddings.
  """
  if not isinstance(text, LazyWeights):
    return None
  model = Model(config)

  def sample(state: TrainState, folder: Path) -> None:
    captions = held_out(config)['caption']
    pipeline = model.with_weights(
      student=state.ema['student'], text=text.load()
    )
    for name in ('forward', 'backward'):
      plan = orders.ORDERS[name](
        pipeline.num_latents,
        anchors=config.orders.anchors,
        start=config.orders.start,
      )
      made = pipeline.generate(captions, range(_CLIPS), plan)
      write(folder, name, pipeline.pixels(made), captions)

  return sample
