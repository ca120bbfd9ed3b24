"""The VAE stage as a program for the training loop."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.models import sizes
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.objectives import vae as vae_objective
from unitemp_jax.training.programs import builders, samples
from unitemp_jax.training.programs.lazy_weights import LazyWeights
from unitemp_jax.training.programs.single import SingleLossProgram

# What makes latents of pixels.
_ENCODER = ('encoder', 'to_moments')


def vae_program(
  config: ConfigDict, mesh, abstract: bool = False
) -> SingleLossProgram:
  """Reconstruction of pixels; the trained tree is named `vae`.

  With `config.pretrained` the decoder alone is trained, from these weights, so
  that the latents stay what they are. With `config.cut_frames` half of the
  clips are cut at random to this length, the others at their start.

  Raises:
    UserError: the weights are missing or of another size.
  """
  del mesh, abstract
  vae = VAE(builders.vae_config(config.model))
  shape = (1, config.data.num_frames, config.data.size, config.data.size, 3)
  pretrained = bool(config.pretrained)
  initial = {}
  if pretrained:
    initial['vae'] = LazyWeights(
      config.pretrained, sizes.param_shapes(vae.config)
    )

  def init_params(key, initial):
    if pretrained:
      return initial['vae']
    params = vae.init(key, jnp.zeros(shape))['params']
    z = vae.config.z_dim
    bias = params['to_moments']['bias']
    params['to_moments']['bias'] = bias.at[z:].add(config.initial_logvar)
    return params

  def reconstruct(params, video, key):
    if pretrained:
      fixed = {name: params[name] for name in _ENCODER}
      params = {**params, **jax.lax.stop_gradient(fixed)}
    return vae.apply({'params': params}, video, key)

  def loss(params, frozen, batch, key):
    del frozen
    if config.cut_frames:
      key, key_cut = jax.random.split(key)
      video = vae_objective.cut(batch['video'], key_cut, config.cut_frames)
      batch = {**batch, 'video': video}
    return vae_objective.loss(
      params, batch, key, reconstruct=reconstruct, **config.loss.to_dict()
    )

  return SingleLossProgram(
    'vae',
    init_params=init_params,
    loss=loss,
    initial=initial,
    optimizer=builders.optimizer(config.optimizer),
    ema_decay=config.ema_decay,
    accumulate=config.accumulate,
    sample_fn=samples.vae_samples(config),
  )


def video_batch(examples: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Keeps the pixels of a loader's batch."""
  return {'video': examples['video']}
