"""The program and the data of a config: what `unitemp train` runs."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from unitemp_jax.data import (
  digits_builder,
  latents,
  loader,
  prompt_embeddings,
  video_folder_builder,
)
from unitemp_jax.errors import check_known
from unitemp_jax.training.program import Program, StepFn
from unitemp_jax.training.programs import builders, networks
from unitemp_jax.training.programs.distill import DistillProgram
from unitemp_jax.training.programs.student import (
  ODEInitProgram,
  StudentInitProgram,
)
from unitemp_jax.training.programs.teacher import TeacherProgram
from unitemp_jax.training.programs.vae import VAEProgram

PROGRAMS: dict[str, Callable[[ConfigDict], Program]] = {
  'vae': VAEProgram,
  'teacher': TeacherProgram,
  'student_init': StudentInitProgram,
  'ode_init': ODEInitProgram,
  'distill': DistillProgram,
}
_AHEAD_BYTES = 4e9  # of decoded clips that wait


class BucketProgram:
  """One training over clips of several shapes, one of them in each batch.

  Attributes:
    frozen: see `Program`, as all others; of the shape that the config names.
  """

  def __init__(
    self, main: Program, of_shape: Mapping[tuple[int, ...], Program]
  ):
    """Takes the program of the config, and one for `[F, h, w]` of latents."""
    self._main, self._of_shape = main, of_shape
    self.frozen, self.initial = main.frozen, main.initial
    self.batch_spec, self.sample = main.batch_spec, main.sample
    self.steps: dict[str, tuple[StepFn, int]] = {
      name: (self._step(name), share) for name, (_, share) in main.steps.items()
    }
    self.init: Callable[[jax.Array, Any], Any] = main.init
    self.step_name, self.flops = main.step_name, main.flops

  def _step(self, name: str) -> StepFn:
    def step(state, batch, frozen):
      program = self._of_shape[batch['latents'].shape[1:4]]
      return program.steps[name][0](state, batch, frozen)

    return step


def build_program(config: ConfigDict) -> Program:
  """Returns the program of `config.objective`; reads no weights."""
  check_known('config.objective is', config.objective, PROGRAMS)
  main = PROGRAMS[config.objective](config)
  folders = builders.latents_dirs(config) if 'latents' in config else []
  for folder in folders:  # A dry run reads no more of them.
    if (Path(folder) / latents.INDEX).exists():
      latents.read_index(folder)
  if len(folders) < 2 or not builders.needs_clips(config):
    return main
  shapes = {latents.LatentSource(folder).shape for folder in folders}
  return BucketProgram(
    main,
    {
      shape: PROGRAMS[config.objective](builders.of_shape(config, shape))
      for shape in shapes
    },
  )


def build_loader(
  config: ConfigDict, rows: Sequence[int]
) -> loader.Loader | loader.Buckets:
  """Returns this host's rows of every batch, as an endless loader."""
  data = config.data
  embeddings = config.latents.get('embeddings') if 'latents' in config else ''
  sources: list[Any]
  if embeddings and not builders.needs_clips(config):
    negative = networks.negative_key(config)
    sources = [prompt_embeddings.PromptSource(embeddings, negative)]
    transform = builders.text_batch
  elif 'latents' in config and not builders.needs_clips(config):
    sources = [latents.LatentSource(builders.latents_dir(config))]
    transform = builders.text_batch
  elif 'latents' in config:
    sources = _latent_sources(config, embeddings)
    transform = functools.partial(
      builders.latent_batch,
      orders=config.orders,
      trajectories=config.objective == 'ode_init',
    )
  elif data.get('name') == 'video_folder':
    spec = builders.video_spec(data)
    prepared = video_folder_builder.prepare(data.dir, spec, report=print)
    sources, transform = [prepared.source], _video_batch
  else:
    spec = builders.clip_spec(data)
    _, source = digits_builder.prepare(data.dir, spec, data.num_clips)
    sources = [source]
    transform = _video_batch
  ahead = {}
  if data.get('name') == 'video_folder' and 'latents' not in config:
    clip = 3 * data.num_frames * math.prod(builders.frame_size(data))
    ahead = {'ahead': max(1, min(8, int(_AHEAD_BYTES / clip / len(rows))))}
  loaders = [
    loader.make_loader(
      source,
      **ahead,
      batch_size=config.batch_size,
      seed=config.seed,
      rows=rows,
      transform=transform,
    )
    for source in sources
  ]
  if len(loaders) == 1:
    return loaders[0]
  sizes = [len(source) for source in sources]
  return loader.Buckets(loaders, sizes, config.seed)


def _latent_sources(
  config: ConfigDict, embeddings: str
) -> list[latents.LatentSource]:
  """The clips of every folder, normalised alike, each with its embeddings."""
  sources: list[latents.LatentSource] = []
  for folder in builders.latents_dirs(config):
    like = sources[0] if sources else None
    sources.append(latents.LatentSource(folder, embeddings, like))
    captions = Path(folder) / latents.CAPTIONS
    if embeddings and captions.exists():
      networks.check_captions(config, captions)
  return sources


def _video_batch(examples):
  return {'video': examples['video']}
