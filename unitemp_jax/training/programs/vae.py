"""Training the causal VAE: reconstruction of pixels."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.models import flops, sizes
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.objectives import vae as objective
from unitemp_jax.training.program import SingleLossProgram, TrainState
from unitemp_jax.training.programs import builders, samples

# What makes latents of pixels.
_ENCODER = ('encoder', 'to_moments')


class VAEProgram(SingleLossProgram):
  """Trains the VAE, or with `config.pretrained` its decoder alone.

  The latents stay what they are then. With `config.cut_frames` half of the
  clips are cut at random to this length, the others at their start.
  """

  name = 'vae'

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    self._vae = VAE(builders.vae_config(config.model))
    clip = (config.data.num_frames, *builders.frame_size(config.data), 3)
    builders.latent_shape(config)  # Refuses sizes that do not divide.
    self.sample = self._sample
    self.batch_spec = builders.rows(config, {'video': (clip, np.uint8)})
    if config.pretrained:
      shapes = sizes.param_shapes(self._vae.config)
      self.initial = {'vae': LazyWeights(config.pretrained, shapes)}

  def init_params(self, key, initial):
    """Returns `pretrained`, or an encoder that adds hardly any noise."""
    if initial:
      return initial['vae']
    video = self.batch_spec['video'].shape[1:]
    params = self._vae.init(key, jnp.zeros((1, *video)))['params']
    bias = params['to_moments']['bias']
    variance = bias.at[self._vae.config.z_dim :].add(
      self._config.initial_logvar
    )
    params['to_moments']['bias'] = variance
    return params

  def loss(self, params, frozen, batch, key):
    """Returns weighted reconstruction and KL, see `objectives.vae.loss`."""
    config = self._config
    if config.cut_frames:
      key, key_cut = jax.random.split(key)
      video = objective.cut(batch['video'], key_cut, config.cut_frames)
      batch = {**batch, 'video': video}
    return objective.loss(
      params, batch, key, reconstruct=self._apply, **config.loss.to_dict()
    )

  def _apply(self, params, video, key=None):
    if self.initial:
      fixed = {name: params[name] for name in _ENCODER}
      params = {**params, **jax.lax.stop_gradient(fixed)}
    return self._vae.apply(
      {'params': params}, video, key, self._config.get('latent_noise', 0.0)
    )

  def flops(self) -> dict[str, flops.Flops]:
    """Returns the operations of a step per row."""
    vae, data = self._vae.config, self._config.data
    frames = self._config.cut_frames or data.num_frames
    latents = builders.latent_shape(self._config, frames)
    whole = flops.vae_decode(vae, *latents)
    whole += flops.vae_encode(vae, frames, *builders.frame_size(data))
    return {'step': flops.trained(whole, backward_attention=2.0)}

  @functools.cached_property
  def _reconstruct(self):
    @jax.jit
    def run(params, video):
      pixels = self._vae.apply({'params': params}, objective.to_unit(video))[0]
      return jnp.clip((pixels + 1.0) * 127.5, 0, 255).astype('uint8')

    return run

  def _sample(self, state: TrainState, folder: Path) -> None:
    """Writes held-out clips through the VAE."""
    clips = samples.held_out(self._config)
    videos = np.asarray(self._reconstruct(state.ema['vae'], clips['video']))
    samples.write(folder, 'reconstruction', videos, clips['caption'])
