"""A training as shapes alone: to compile it, or to see that it fits.

No file is read and nothing is allocated, so the devices may be those of a
topology that is not there.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.training.programs import builders, lazy_weights
from unitemp_jax.training.programs.by_name import build_program
from unitemp_jax.training.programs.program import (
  CompiledSteps,
  Program,
  StepFn,
  abstract_state,
)
from unitemp_jax.training.programs.teacher import latent_shape
from unitemp_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class AbstractProgram:
  """What the steps of a config take, as shapes with shardings.

  Attributes:
    steps: name -> function; each is one program.
    share: name -> how often it is taken in a round of steps.
    state: of the training.
    batch: of all devices together.
    frozen: weights that are not trained.
    mesh: where all of it lies.
    compiler: lowers a function for these.
  """

  steps: dict[str, StepFn]
  share: dict[str, int]
  state: TrainState
  batch: dict[str, jax.ShapeDtypeStruct]
  frozen: Any
  mesh: Mesh
  compiler: CompiledSteps

  def lower(self, name: str) -> jax.stages.Lowered:
    """Returns the program that training would run as this step."""
    return self.compiler.lower(
      self.steps[name], self.state, self.batch, self.frozen
    )


def abstract_program(config: ConfigDict, mesh: Mesh) -> AbstractProgram:
  """Describes the training of a config on a mesh.

  Raises:
    UserError: an unknown objective, or sizes that do not divide.
  """
  program: Program = build_program(config, mesh, abstract=True)
  state = abstract_state(program, config.seed, mesh)
  return AbstractProgram(
    steps={name: function for name, (function, _) in program.steps.items()},
    share={name: share for name, (_, share) in program.steps.items()},
    state=state,
    batch=abstract_batch(config, mesh),
    frozen=lazy_weights.shapes_of(program.frozen, mesh, MODEL_RULES),
    mesh=mesh,
    compiler=CompiledSteps(program, state, mesh, config.max_loss_ratio),
  )


def abstract_batch(
  config: ConfigDict, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns what the loader of a config yields, over all devices.

  Raises:
    UserError: the rows do not divide over the devices.
  """
  device_mesh.check_rows(config.batch_size, mesh, config.accumulate)
  sharding = device_mesh.batch_sharding(mesh)

  def rows(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(
      (config.batch_size, *shape), dtype, sharding=sharding
    )

  if 'latents' not in config:
    height, width = builders.frame_size(config.data)
    frames = config.data.num_frames
    return {'video': rows(frames, height, width, 3, dtype=jnp.uint8)}
  frames, *grid = latent_shape(config)
  latent = (*grid, builders.vae_config(config.model).z_dim)
  anchors, block = config.orders.anchors, config.orders.block
  # Raw anchors are cut out of the latents (`program_teacher.latent_batch`).
  blocks = len(range(block, frames, block))
  text = builders.text_config(config.model)
  batch = {
    'latents': rows(frames, *latent),
    'last_image': rows(1, *latent),
    'anchors': rows(blocks, anchors, *latent),
  }
  if config.objective == 'ode_init':
    levels = len(config.student.timesteps)
    batch['trajectory'] = rows(levels, frames, *latent)
  if config.latents.get('embeddings'):
    width = builders.dit_config(config.model).text_dim
    return {**batch, 'text': rows(text.length, width)}
  return {
    **batch,
    'ids': rows(text.length, dtype=jnp.int32),
    'mask': rows(text.length, dtype=jnp.bool_),
  }
