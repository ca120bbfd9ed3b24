"""Objectives by name: what `unitemp train` runs for a config."""

import functools
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from unitemp_jax.data import digits_builder, latents, loader
from unitemp_jax.errors import UserError
from unitemp_jax.training import (
  builders,
  program_distill,
  program_student,
  program_teacher,
  program_vae,
  stored,
)
from unitemp_jax.training.program import Program

_PROGRAMS: dict[str, Callable[..., Program]] = {
  'vae': program_vae.vae_program,
  'teacher': program_teacher.teacher_program,
  'student_init': program_student.student_init_program,
  'ode_init': program_student.ode_init_program,
  'distill': program_distill.distill_program,
}


def build_program(
  config: ConfigDict, mesh: jax.sharding.Mesh, abstract: bool = False
) -> Program:
  """Returns the program of `config.objective`.

  Args:
    config: of a stage.
    mesh: that it will run on.
    abstract: read no file; such a program is good for shapes only.

  Raises:
    UserError: an objective that does not exist, or weights that are missing.
  """
  if config.objective not in _PROGRAMS:
    raise UserError(
      f'config.objective is {config.objective!r}; use one of '
      f'{", ".join(_PROGRAMS)}.'
    )
  program = _PROGRAMS[config.objective](config, mesh, abstract)
  if not abstract:
    stored.check((program.frozen, program.initial))
  return program


def build_loader(config: ConfigDict, rows: Sequence[int]):
  """Returns this host's rows of every batch, as an endless loader."""
  data = config.data
  if 'latents' in config:
    source = latents.LatentSource(
      config.latents.dir, config.latents.get('embeddings')
    )
    transform = functools.partial(
      program_teacher.latent_batch,
      orders=config.orders,
      trajectories=config.objective == 'ode_init',
    )
  else:
    source = digits_builder.prepare(
      data.dir, builders.clip_spec(data), data.num_clips
    )
    transform = program_vae.video_batch
  return loader.make_loader(
    source,
    batch_size=config.batch_size,
    seed=config.seed,
    rows=rows,
    transform=transform,
  )
