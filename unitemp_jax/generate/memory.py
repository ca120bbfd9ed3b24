"""How a model lies on devices, and how many clips one makes at a time."""

import math
from collections.abc import Mapping, Sequence

import jax

from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.parallel import mesh
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.model_folder import ModelCard, inference_shapes

# A clip takes 7.8 GiB with a cache of 7.0, as compiled for a v5e at normal
# effort (configs/aot/tables.md).
_BESIDE_CACHE = 1.13
_SHARE = 0.8  # of a device's memory that is meant to be used
BATCH = 8  # clips at a time where memory is no matter


def clip_bytes(
  card: ModelCard, plan: Plan, size: tuple[int, int] | None = None
) -> int:
  """Bytes of the cache of one clip of a height and width, the model's own."""
  grid = card.latent_grid(*(size or (card.height, card.width)))
  padded = sampler.bucketed(plan)
  cache = jax.eval_shape(lambda: sampler.cache_for(card.dit, padded, 1, *grid))
  return sizes.num_bytes(cache)


def batch_that_fits(
  card: ModelCard, plan: Plan, limit: float | None, most: int = BATCH
) -> int:
  """Clips that a device of `limit` bytes makes at a time, beside the weights.

  At least 1, and `most` without a limit.
  """
  if limit is None:
    return most
  shapes = inference_shapes(card)
  weights = sizes.num_bytes([shapes['student'], shapes['vae']])
  room = _SHARE * limit - weights
  own = _BESIDE_CACHE * clip_bytes(card, plan)
  return max(1, min(most, int(room / own)))


def teacher_mesh(card: ModelCard) -> dict[str, int]:
  """All devices along `fsdp`, or along `data` where sizes do not divide."""
  sizes_ = (card.dit.dim, card.text.dim, card.text.head_dim)
  even = all(size % jax.device_count() == 0 for size in sizes_)
  return {'data': 1, 'fsdp': -1} if even else {'data': -1}


def mesh_of(
  card: ModelCard,
  shape: Mapping[str, int],
  devices: Sequence[jax.Device] | None = None,
) -> jax.sharding.Mesh:
  """The mesh that a model lies on, see `mesh.make_mesh`.

  UserError if the weights cannot be split over it.
  """
  made = mesh.make_mesh(shape, devices)
  parts = math.prod(made.shape[axis] for axis in mesh.WIDTH)
  most = math.gcd(card.dit.dim, card.text.dim)
  if most % parts:
    raise UserError(
      f'the weights of the model cannot be split over {parts} devices (fsdp '
      f'times context); use a number that divides {most}.'
    )
  return made
