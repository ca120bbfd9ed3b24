"""Batches of the stages after the VAE: their shapes, and how they are made."""

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.training.programs import builders

_DTYPES = {
  'latents': np.float32,
  'last_image': np.float32,
  'anchors': np.float32,
  'trajectory': np.float32,
  'ids': np.int32,
  'mask': bool,
  'text': np.float32,
}


def latent_spec(
  config: ConfigDict, trajectories: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a global batch of what `latent_batch` returns."""
  frames, *grid = builders.latent_shape(config)
  latent = (*grid, builders.vae_config(config.model).z_dim)
  orders = config.orders
  blocks = len(range(orders.block, frames, orders.block))
  text = builders.text_config(config.model)
  shapes: dict[str, tuple[int, ...]] = {
    'latents': (frames, *latent),
    'last_image': (1, *latent),
    'anchors': (blocks, orders.anchors, *latent),
  }
  if trajectories:
    levels = len(config.student.timesteps)
    shapes['trajectory'] = (levels, frames, *latent)
  if config.latents.get('embeddings'):
    width = builders.dit_config(config.model).text_dim
    shapes['text'] = (text.length, width)
  else:
    shapes |= {'ids': (text.length,), 'mask': (text.length,)}
  return builders.rows(
    config, {name: (shape, _DTYPES[name]) for name, shape in shapes.items()}
  )


def latent_batch(
  examples: dict[str, np.ndarray],
  orders: ConfigDict,
  trajectories: bool = False,
) -> dict[str, np.ndarray]:
  """Returns of a loader's batch what stages learn from.

  Returns:
    latents `[B, N, h, w, C]`; last_image `[B, 1, h, w, C]`; anchors `[B, blocks
    - 1, P, h, w, C]` of the kind that `orders` wants; ids and mask `[B, E]`, or
    text `[B, E, Dt]`; with `trajectories` trajectory `[B, levels, N, h, w,
    C]`.

  Raises:
    UserError: the latents were encoded for anchors of the other kind, or are
      not those of trajectories.
  """
  if trajectories and 'trajectory' not in examples:
    raise UserError(
      'config.latents.dir holds no trajectories of a teacher; make them with '
      '"unitemp ode_pairs".'
    )
  batch = {
    name: np.asarray(examples[name], dtype)
    for name, dtype in _DTYPES.items()
    if name in examples and (trajectories or name != 'trajectory')
  }
  if not builders.windowed(orders):
    latents = batch['latents']
    firsts = range(orders.block, latents.shape[1], orders.block)
    rows = [latents[:, first - orders.anchors : first] for first in firsts]
    batch['anchors'] = np.stack(rows, axis=1)
  elif 'anchors' not in batch:
    raise UserError(
      'config.orders.anchor_kind is "windowed", but the latents in '
      'config.latents.dir hold no windows; encode them again elsewhere.'
    )
  return batch
