"""The card of the model that a student config ends in."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.training.programs import builders


def model_card(
  config: ConfigDict, index: dict[str, Any], provenance: dict[str, Any]
) -> ModelCard:
  """What a model folder says about itself.

  Args:
    config: of a student stage.
    index: of the latents it was trained on (`data.latents.read_index`).
    provenance: how the weights were made.
  """
  vae = dataclasses.replace(
    builders.vae_config(config.model),
    latent_mean=tuple(index['latent_mean']),
    latent_std=tuple(index['latent_std']),
  )
  height, width = builders.frame_size(config.data)
  return ModelCard(
    vae=vae,
    dit=builders.dit_config(config.model),
    text=builders.text_config(config.model),
    timesteps=tuple(config.student.timesteps),
    shift=config.student.shift,
    teacher_shift=config.sampling.teacher_shift,
    guidance=config.sampling.guidance,
    frames=config.data.num_frames,
    height=height,
    width=width,
    fps=config.sampling.fps,
    block=config.orders.block,
    anchors=config.orders.anchors,
    anchor_kind=config.orders.anchor_kind,
    start=config.orders.start,
    provenance=provenance,
  )
