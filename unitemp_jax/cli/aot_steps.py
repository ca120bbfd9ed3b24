"""From a config to the programs that `unitemp aot` compiles."""

import functools
import math
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from unitemp_jax.aot import flops, training_flops
from unitemp_jax.aot.flops import Flops, trained
from unitemp_jax.aot.serving import Serving
from unitemp_jax.aot.step import Step
from unitemp_jax.aot.training_flops import Clip
from unitemp_jax.errors import UserError
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.abstract import (
  AbstractProgram,
  abstract_program,
)
from unitemp_jax.training.programs.card import model_card
from unitemp_jax.training.programs.networks import teacher_config
from unitemp_jax.training.programs.plan_sets import training_plans, windowed
from unitemp_jax.training.programs.teacher import latent_shape

TRAIN = 'train'
SERVING = ('sampler', 'block', 'store', 'decode', 'encode')
NAMES = (TRAIN, *SERVING)


def with_depth(config: ConfigDict, layers: int) -> None:
  """Cuts all transformers of a config to so many layers, in place.

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


def steps_of(config: ConfigDict, names: list[str], devices) -> list[Step]:
  """Returns the programs of a config for the devices of a topology.

  Args:
    config: of any stage.
    names: of NAMES, or of single training steps.
    devices: to compile for.

  Raises:
    UserError: a name that the config has no step for, or a mesh or batch that
      does not divide.
  """
  found: list[Step] = []
  trained_names = [name for name in names if name not in SERVING]
  if trained_names:
    mesh = _full_mesh(config.mesh, devices)
    program = abstract_program(config, mesh)
    known = list(program.steps)
    for name in trained_names:
      if name not in (TRAIN, *known):
        raise UserError(
          f'--steps names {name!r}; use some of {", ".join((*NAMES, *known))}.'
        )
    for name in known:
      if TRAIN in trained_names or name in trained_names:
        found.append(_train_step(config, program, name))
  if len(trained_names) < len(names):
    serving = _serving(config, devices)
    for name in SERVING:
      if name in names:
        found.append(getattr(serving, name)())
  return found


def _full_mesh(sizes: ConfigDict, devices):
  """The mesh of a training, which leaves no device of a topology idle."""
  used = math.prod(size for size in sizes.values() if size > 0)
  if -1 not in sizes.values() and used != len(devices):
    raise UserError(
      f'config.mesh {sizes.to_dict()} uses {used} of {len(devices)} devices; '
      'make one of its axes -1.'
    )
  return make_mesh(sizes, devices)


def shares_of(config: ConfigDict, steps: list[Step]) -> dict[str, int]:
  """How often each step is taken in a round; 0 for those that do not train."""
  updates = (config.get('loss') or {}).get('critic_updates', 1)
  share = {'student_and_critic': 1, 'critic_only': updates - 1, 'step': 1}
  return {step.name: share.get(step.name, 0) for step in steps}


def _serving(config: ConfigDict, devices) -> Serving:
  if 'student' not in config:
    raise UserError(
      'this config has no student to sample, so it has training steps only; '
      'give --steps=train.'
    )
  vae = builders.vae_config(config.model)
  statistics = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  card = model_card(config, statistics, {})
  plan = training_plans(config.orders, latent_shape(config)[0])[0][0]
  return Serving(card, plan, make_mesh({'data': -1}, devices))


def _train_step(
  config: ConfigDict, program: AbstractProgram, name: str
) -> Step:
  state = program.state
  trees = {
    'parameters': state.params,
    'optimizer': state.opt_state,
    'EMA': state.ema,
    'frozen': program.frozen,
  }
  arguments = {
    f'{role} {network}': tree
    for role, networks in trees.items()
    for network, tree in networks.items()
    if jax.tree.leaves(tree)
  }
  levels = len(config.student.timesteps) if 'student' in config else 1
  return Step(
    name,
    functools.partial(program.lower, name),
    {**arguments, 'batch': program.batch},
    resident={},
    flops=config.batch_size * _row(config)[name](),
    loops=levels - 1,
    mesh=dict(program.mesh.shape),
    rows=config.batch_size,
  )


def _row(config: ConfigDict) -> dict[str, Callable[[], Flops]]:
  """Operations of every step per row of the batch."""
  if config.objective == 'distill':
    return _distillation(config)
  kinds = {
    'vae': _vae,
    'teacher': _teacher,
    'student_init': _student_init,
    'ode_init': _student_init,
  }
  return {'step': functools.partial(kinds[config.objective], config)}


def _clip(config: ConfigDict) -> Clip:
  frames, *grid = latent_shape(config)
  dit = builders.dit_config(config.model)
  text = builders.text_config(config.model).length
  return Clip(frames, dit.tokens_per_frame(*grid), text)


def _recomputed(dit) -> float:
  """More forward passes in a backward one; attention is kept by its policy."""
  return float(dit.remat not in (False, 'none'))


def _distillation(config: ConfigDict) -> dict[str, Callable[[], Flops]]:
  dit, clip = builders.dit_config(config.model), _clip(config)
  plans, weights = training_plans(config.orders, clip.frames)
  remat = _recomputed(dit)

  @functools.cache
  def own():
    return training_flops.rollout(
      dit,
      list(zip(plans, weights, strict=True)),
      clip,
      levels=len(config.student.timesteps),
      anchor_drop=config.loss.anchor_drop,
      draft_from=int(windowed(config.orders)),
    )

  def critic():
    return training_flops.critic_update(dit, clip, own(), remat)

  def both():
    student = training_flops.student_update(
      dit,
      teacher_config(config),
      clip,
      own(),
      remat,
      _matching(config),
      again=bool(config.loss.get('checkpoint_rollout')),
    )
    return student + critic()

  return {'student_and_critic': both, 'critic_only': critic}


def _matching(config: ConfigDict) -> Flops:
  """Decoding a rollout and encoding what windowed anchors stand for."""
  if not windowed(config.orders):
    return Flops()
  vae, anchors = builders.vae_config(config.model), config.orders.anchors
  frames, rows, columns = latent_shape(config)
  size = builders.frame_size(config.data)
  window = 1 + vae.temporal_stride * (anchors - 1)
  decoded = flops.vae_decode(vae, frames, rows, columns)
  return decoded + flops.vae_encode(vae, window, *size)


def _vae(config: ConfigDict) -> Flops:
  vae = builders.vae_config(config.model)
  frames, rows, columns = latent_shape(config)
  size = builders.frame_size(config.data)
  decoded = flops.vae_decode(vae, frames, rows, columns)
  encoded = flops.vae_encode(vae, config.data.num_frames, *size)
  return trained(decoded + encoded, backward_attention=2.0)


def _teacher(config: ConfigDict) -> Flops:
  dit, clip = builders.dit_config(config.model), _clip(config)
  text = flops.text_encoder(builders.text_config(config.model), 1)
  score = trained(clip.bidirectional(dit), _recomputed(dit))
  return score + trained(clip.context(dit)) + trained(text)


def _student_init(config: ConfigDict) -> Flops:
  """All frames of the training sequence seeing each other: an upper bound."""
  dit, clip = builders.dit_config(config.model), _clip(config)
  blocks = len(range(config.orders.block, clip.frames, config.orders.block))
  frames = 2 * clip.frames + 2 + blocks * config.orders.anchors
  whole = Clip(frames, clip.frame, clip.text)
  score = trained(whole.bidirectional(dit), _recomputed(dit))
  return score + trained(clip.context(dit))
