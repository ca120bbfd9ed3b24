"""Student initialisation as a program: clips, or the teacher's trajectories."""

import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.diffusion import solvers
from unitemp_jax.models import text_to_video
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.objectives import ode_init, student_init, teacher_forcing
from unitemp_jax.training.programs import builders, samples
from unitemp_jax.training.programs.networks import lazy_teacher
from unitemp_jax.training.programs.plan_sets import training_plans, windowed
from unitemp_jax.training.programs.single import SingleLossProgram
from unitemp_jax.training.programs.teacher import latent_shape


def student_levels(config: ConfigDict) -> np.ndarray:
  """Noise levels of the few-step student, the last one 0."""
  return solvers.student_levels(
    tuple(config.student.timesteps), config.student.shift
  )


def student_init_program(
  config: ConfigDict, mesh, abstract: bool = False
) -> SingleLossProgram:
  """Any-order teacher forcing on clips; the trained tree is a transformer."""
  del mesh, abstract
  draft_sigma = float(student_levels(config)[config.orders.start])
  return _program(config, student_init.loss, draft_sigma=draft_sigma)


def ode_init_program(
  config: ConfigDict, mesh, abstract: bool = False
) -> SingleLossProgram:
  """The same on the teacher's trajectories (`unitemp ode_pairs`)."""
  del mesh, abstract
  return _program(
    config,
    ode_init.loss,
    levels=student_levels(config),
    start=config.orders.start,
  )


def _program(config: ConfigDict, loss_fn, **settings) -> SingleLossProgram:
  """Starts from the teacher."""
  dit = DiT(builders.dit_config(config.model))
  encoder = TextEncoder(builders.text_config(config.model))
  teacher = lazy_teacher(config)
  frames = latent_shape(config)[0]
  plans, plan_weights = training_plans(config.orders, frames)
  layout = teacher_forcing.Layout(frames, plans[0].block, config.orders.anchors)
  masks = [teacher_forcing.plan_mask(plan, layout) for plan in plans]
  table = student_init.plan_table(masks, plan_weights)

  def loss(params, frozen, batch, key):
    text = text_to_video.batch_text(encoder, frozen['text'], batch)
    context = text_to_video.text_context(dit, params, text)

    def denoise(params, x, sigma, positions, mask):
      return dit.apply(
        {'params': params}, x, sigma, positions, context, mask_BFF=mask
      )[0]

    return loss_fn(
      params,
      batch,
      key,
      denoise=denoise,
      layout=layout,
      table=table,
      draft_from=int(windowed(config.orders)),
      **settings,
      **config.loss.to_dict(),
    )

  return SingleLossProgram(
    'student',
    init_params=lambda key, initial: initial['dit'],
    loss=loss,
    optimizer=builders.optimizer(config.optimizer),
    ema_decay=config.ema_decay,
    frozen={'text': teacher['text']},
    initial={'dit': teacher['dit']},
    accumulate=config.accumulate,
    sample_fn=samples.student_samples(config, teacher['text']),
  )
