"""The program and the data of a config: what `unitemp train` runs."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from unitemp_jax.data import (
  digits_builder,
  latents,
  loader,
  prompt_embeddings,
  video_folder_builder,
)
from unitemp_jax.errors import UserError
from unitemp_jax.training.program import Program
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


def build_program(config: ConfigDict) -> Program:
  """Returns the program of `config.objective`; reads no weights."""
  if config.objective not in PROGRAMS:
    raise UserError(
      f'config.objective is {config.objective!r}; use one of '
      f'{", ".join(PROGRAMS)}.'
    )
  return PROGRAMS[config.objective](config)


def build_loader(config: ConfigDict, rows: Sequence[int]) -> loader.Loader:
  """Returns this host's rows of every batch, as an endless loader."""
  data = config.data
  embeddings = config.latents.get('embeddings') if 'latents' in config else ''
  if embeddings and not builders.needs_clips(config):
    negative = networks.negative_key(config)
    source = prompt_embeddings.PromptSource(embeddings, negative)
    transform = builders.text_batch
  elif 'latents' in config and not builders.needs_clips(config):
    source = latents.LatentSource(builders.latents_dir(config))
    transform = builders.text_batch
  elif 'latents' in config:
    folder = builders.latents_dir(config)
    source = latents.LatentSource(folder, embeddings)
    captions = Path(folder) / latents.CAPTIONS
    if embeddings and captions.exists():
      networks.check_captions(config, captions)
    transform = functools.partial(
      builders.latent_batch,
      orders=config.orders,
      trajectories=config.objective == 'ode_init',
    )
  elif data.get('name') == 'video_folder':
    source = video_folder_builder.prepare(
      data.dir, builders.video_spec(data), report=print
    ).source
    transform = _video_batch
  else:
    _, source = digits_builder.prepare(
      data.dir, builders.clip_spec(data), data.num_clips
    )
    transform = _video_batch
  ahead = {}
  if data.get('name') == 'video_folder' and 'latents' not in config:
    clip = 3 * data.num_frames * math.prod(builders.frame_size(data))
    ahead = {'ahead': max(1, min(8, int(_AHEAD_BYTES / clip / len(rows))))}
  return loader.make_loader(
    source,
    **ahead,
    batch_size=config.batch_size,
    seed=config.seed,
    rows=rows,
    transform=transform,
  )


def _video_batch(examples):
  return {'video': examples['video']}
