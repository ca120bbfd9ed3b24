"""What distillation holds given frames to, and which options configs choose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import noise

from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.training.build import build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders, distill

TINY = 'configs/tiny_distill.py:test'


def random_vae(config):
  vae = VAE(builders.vae_config(config.model))
  rng = np.random.default_rng(0)
  return vae, jax.tree.map(
    lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32),
    sizes.param_shapes(vae.config),
  )


def test_a_given_last_frame_is_held_in_pixels():
  """The other frames of its latent may be anything."""
  config = load_config(TINY)
  program, (vae, params) = build_program(config), random_vae(config)
  z = config.model.vae.z_dim
  latents, image = noise(0, 1, 3, 2, 2, z), noise(1, 1, 1, 2, 2, z)

  @jax.jit
  def pixels(latents):
    return vae.apply({'params': params}, latents, method='decode')[0]

  found = jax.jit(program.last_frame_error)(latents, {'vae': params}, image)
  wanted = ((pixels(latents)[:, -1] - pixels(image)[:, 0]) ** 2).mean()
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  closing = jax.jit(program.last_frame_error)(latents, {'vae': params})
  made = pixels(latents)
  np.testing.assert_allclose(
    closing, ((made[:, -1] - made[:, 0]) ** 2).mean(), rtol=1e-5
  )
  assert jnp.abs(closing - found) > 1e-4  # Control.


@pytest.mark.parametrize(
  ('name', 'sigma'), [('tiny_distill', 0.0), ('wan_1p3b_distill', 0.00498)]
)
def test_configs_say_what_they_take_of_the_released_code(name, sigma):
  settings = distill.settings_of(load_config(f'configs/{name}.py'))
  assert not settings.through_cache and not settings.score_anchors
  assert settings.critic_clamp and settings.mask_given
  assert settings.context_sigma == sigma


def test_a_replayed_rollout_cannot_let_gradient_through():
  config = load_config(TINY, ['loss.through_cache=True']).unlock()
  config.orders.weights = {'forward': 1.0}
  config.loss.checkpoint_rollout = True
  with pytest.raises(UserError, match='through_cache = False'):
    build_program(config)
  config.loss.through_cache = False
  build_program(config)  # Control.


def test_a_held_draft_is_trained_as_it_is_sampled():
  config = load_config('configs/tiny_student_init.py:test')
  z = config.model.vae.z_dim
  index = {'shards': 1, 'latent_mean': [0.0] * z, 'latent_std': [1.0] * z}
  card = builders.model_card(config, index, {})
  held = config.orders.draft_sigma
  assert card.step_options.draft_sigma == held > 0
  assert build_program(config).settings() == {'draft_sigma': held}
  config.orders.draft_sigma = 0.0  # Control: at the plan's start.
  start = builders.student_sigmas(config)[config.orders.start]
  assert build_program(config).settings() == {'draft_sigma': start}
  config.objective, config.orders.draft_sigma = 'ode_init', held
  with pytest.raises(UserError, match='trajectories hold'):
    build_program(config)
