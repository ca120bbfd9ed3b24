"""Objectives by name: what `unitemp train` runs for a config."""

import functools
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from unitemp_jax.data import digits_builder, latents, loader
from unitemp_jax.errors import UserError
from unitemp_jax.training.programs import (
  builders,
  distill,
  lazy_weights,
  student,
  teacher,
  vae,
)
from unitemp_jax.training.programs.program import Program

_PROGRAMS: dict[str, Callable[..., Program]] = {
  'vae': vae.vae_program,
  'teacher': teacher.teacher_program,
  'student_init': student.student_init_program,
  'ode_init': student.ode_init_program,
  'distill': distill.distill_program,
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
    lazy_weights.check((program.frozen, program.initial))
  return program


def build_loader(config: ConfigDict, rows: Sequence[int]):
  """Returns this host's rows of every batch, as an endless loader."""
  data = config.data
  if 'latents' in config:
    source = latents.LatentSource(
      config.latents.dir, config.latents.get('embeddings')
    )
    transform = functools.partial(
      teacher.latent_batch,
      orders=config.orders,
      trajectories=config.objective == 'ode_init',
    )
  else:
    source = digits_builder.prepare(
      data.dir, builders.clip_spec(data), data.num_clips
    )
    transform = vae.video_batch
  return loader.make_loader(
    source,
    batch_size=config.batch_size,
    seed=config.seed,
    rows=rows,
    transform=transform,
  )
