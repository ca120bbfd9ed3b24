"""Published sizes of Wan 2.1's networks, and which one a checkpoint has."""

from typing import Any

from unitemp_jax.convert import fit, keymap, wan
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

# Statistics of the latents: Wan-Video/Wan2.1, `wan/modules/vae.py`.
LATENT_MEAN = (
  *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
  *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
  *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
  *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

# Kind -> name -> config.
PRESETS: dict[str, dict[str, Any]] = {
  'dit': {
    'Wan 2.1 T2V 1.3B': DiTConfig(),
    'Wan 2.1 T2V 14B': DiTConfig(
      dim=5120, ffn_dim=13824, num_heads=40, num_layers=40
    ),
  },
  'vae': {
    'Wan 2.1 VAE': VAEConfig(latent_mean=LATENT_MEAN, latent_std=LATENT_STD)
  },
  'umt5': {'UMT5-XXL': TextConfig()},
}

# What only checkpoints have that condition on images by extra inputs.
_IMAGE_NAMES = ('img_emb.', 'condition_embedder.image_embedder.')


def name_of(kind: str, config: Any) -> str:
  """Returns the published name of a size, or 'a size of its own'."""
  for name, preset in PRESETS[kind].items():
    if sizes.param_shapes(preset) == sizes.param_shapes(config):
      return name
  return 'a size of its own'


def recognise(found: fit.Found, where: str) -> Any:
  """Returns the published config that most of a checkpoint's shapes have.

  Raises:
    UserError: it is an image-to-video transformer, or of no published size.
  """
  if any(name.startswith(_IMAGE_NAMES) for name in found.tensors):
    raise UserError(
      f'{where} is an image-to-video transformer, with inputs that ours has '
      'not (it takes images as given latents); use a text-to-video one.'
    )
  best, most = None, 0
  for config in PRESETS[found.kind].values():
    entries = keymap.entries(
      wan.TABLES[found.kind], found.layout, sizes.param_shapes(config)
    )
    same = sum(
      entry.name in found.tensors
      and found.tensors[entry.name].shape == entry.shape
      for entry in entries
      if len(entry.shape) > 1
    )
    if same > most:
      best, most = config, same
  if best is None or 4 * most < len(found.tensors):
    known = ', '.join(PRESETS[found.kind])
    raise UserError(
      f'{where} is a {found.kind} of a size that was not published ({known}); '
      'name its size with --config.'
    )
  return best
