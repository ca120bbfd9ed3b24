"""From a config to the programs that `unitemp aot` compiles."""

import functools
import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from unitemp_jax.aot.schedule import Cache
from unitemp_jax.aot.serving import SERVING, Serving, kinds_of, seen_slots
from unitemp_jax.aot.step import Step
from unitemp_jax.errors import UserError, check_known
from unitemp_jax.models import weights
from unitemp_jax.parallel.mesh import (
  MODEL_RULES,
  batch_sharding,
  check_rows,
  make_mesh,
)
from unitemp_jax.training.build import build_program
from unitemp_jax.training.program import CompiledSteps, abstract_state
from unitemp_jax.training.programs import builders

TRAIN = 'train'
NAMES = (TRAIN, *SERVING)


def with_depth(config: ConfigDict, layers: int) -> None:
  """Cuts all transformers of a config to a number of layers, in place.

  Raises:
    UserError: fewer than one layer, or more than there are.
  """
  parts = [config.model]
  if config.get('teacher_model'):
    parts.append(config.teacher_model)
  for part in parts:
    if not 1 <= layers <= part.dit.num_layers:
      raise UserError(
        f'--depth={layers} must be 1 to {part.dit.num_layers}, the '
        'layers of the config.'
      )
    part.dit.num_layers = layers


def steps_of(
  config: ConfigDict,
  names: list[str],
  devices,
  mesh: Mapping[str, int] | None = None,
) -> list[Step]:
  """Returns the programs of a config for the devices of a topology.

  Args:
    config: of any stage.
    names: of NAMES, or of single training steps.
    devices: to compile for.
    mesh: that the student is served on; by default all along `data`.

  Raises:
    UserError: a name that the config has no step for, or a mesh or batch that
      does not divide.
  """
  found: list[Step] = []
  wanted = [name for name in names if name not in SERVING]
  if wanted:
    made = training_steps(config, _full_mesh(config.mesh, devices))
    for name in wanted:
      check_known('--steps names', name, (*NAMES, *made), 'some')
    found += [
      step for name, step in made.items() if name in wanted or TRAIN in wanted
    ]
  if len(wanted) < len(names):
    serving = serving_of(config, make_mesh(mesh or {'data': -1}, devices))
    found += [getattr(serving, name)() for name in SERVING if name in names]
  return found


def _full_mesh(sizes: ConfigDict, devices) -> Mesh:
  """The mesh of a training, which leaves no device of a topology idle."""
  used = math.prod(size for size in sizes.values() if size > 0)
  if -1 not in sizes.values() and used != len(devices):
    raise UserError(
      f'config.mesh {sizes.to_dict()} uses {used} of {len(devices)} devices; '
      'make one of its axes -1.'
    )
  return make_mesh(sizes, devices)


def training_steps(config: ConfigDict, mesh: Mesh) -> dict[str, Step]:
  """Returns the steps of a training by name; no file is read.

  Nothing is allocated either, so the devices need not exist.

  Raises:
    UserError: an unknown objective, or sizes that do not divide.
  """
  check_rows(config.batch_size, mesh, config.accumulate)
  program = build_program(config)
  state = abstract_state(program, config.seed, mesh)
  frozen = weights.shapes_of(program.frozen, mesh, MODEL_RULES)
  rows = batch_sharding(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)
    for name, leaf in program.batch_spec.items()
  }
  compiler = CompiledSteps(program, state, mesh, config.max_loss_ratio)
  trees = {
    'parameters': state.params,
    'optimizer': state.opt_state,
    'EMA': state.ema,
    'frozen': frozen,
  }
  arguments = {
    f'{role} {network}': tree
    for role, networks in trees.items()
    for network, tree in networks.items()
    if jax.tree.leaves(tree)
  }
  levels = len(config.student.timesteps) if 'student' in config else 1
  cache, kinds = None, ()
  if 'student' in config:
    cache, kinds = _rollouts(config, levels)
  flops = program.flops()
  return {
    name: Step(
      name,
      functools.partial(compiler.lower, name, state, batch, frozen),
      {**arguments, 'batch': batch},
      resident={},
      flops=config.batch_size * flops[name],
      loops=levels - 1,
      mesh=dict(mesh.shape),
      rows=config.batch_size,
      share=share,
      cache=cache,
      kinds=kinds,
    )
    for name, (_, share) in program.steps.items()
  }


def _rollouts(
  config: ConfigDict, levels: int
) -> tuple[Cache, tuple[float, ...]]:
  """Their cache and kinds of rows, averaged over plans and exit levels."""
  frames, *grid = builders.latent_shape(config)
  found = builders.training_plans(config.orders, frames)[0]
  tokens = builders.dit_config(config.model).tokens_per_frame(*grid)
  # On average half of the levels come before the one with the gradient.
  passes = (levels + 1) // 2
  seen = [slots for plan in found for slots in seen_slots(plan, passes, 1)]
  slots = max(plan.num_slots for plan in found)
  return Cache(slots * tokens, sum(seen) / len(seen) / slots), kinds_of(found)


def serving_of(config: ConfigDict, mesh: Mesh) -> Serving:
  """The student of a config as it is served, on a mesh.

  Raises:
    UserError: the config has none.
  """
  if 'student' not in config:
    raise UserError(
      'this config has no student to sample, so it has training steps only; '
      'give --steps=train.'
    )
  vae = builders.vae_config(config.model)
  statistics = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  card = builders.model_card(config, statistics, {})
  frames = builders.latent_shape(config)[0]
  plan = builders.training_plans(config.orders, frames)[0][0]
  return Serving(card, plan, mesh)
