"""The plans and anchors that a student is trained on, from `config.orders`.

Anchors are raw or windowed (`unitemp_jax/README.md`, Anchors). Raw ones are the
latents that the video's own encoding has before a block. Windowed ones are the
encoding of those frames by themselves: the first is an image latent, with which
the causal decoder can begin.
"""

from ml_collections import ConfigDict

from unitemp_jax import orders, plans
from unitemp_jax.errors import UserError

KINDS = ('raw', 'windowed')


def training_plans(
  settings: ConfigDict, num_latents: int
) -> tuple[list[plans.Plan], list[float]]:
  """Plans of equal shape and their sampling weights.

  Args:
    settings: `weights` maps names of `orders.ORDERS` to weights, a name may end
      in `+first` or `+last` for a given first or last frame. A `loop` begins
      with an image latent here, as all that a teacher knows; its end sees that
      one alone, or with `+overlap` its whole first block. `anchors` and `start`
      are the arguments of the order functions.
    num_latents: N.

  Raises:
    UserError: an unknown order, or what it does not take.
  """
  known = {
    'first': {'given_first': 1},
    'last': {'given_last': 1},
    'overlap': {'overlap': settings.block},
  }
  # How loops are trained.
  special = {'loop': {'side': 'past', 'closed': True, 'overlap': 1}}
  made, weights = [], []
  for name, weight in settings.weights.items():
    order, *extras = name.split('+')
    if order not in orders.ORDERS:
      raise UserError(
        f'config.orders.weights names {order!r}; use one of '
        f'{", ".join(orders.ORDERS)}.'
      )
    keywords = dict(special.get(order, {}))
    for extra in extras:
      if extra not in known:
        raise UserError(
          f'config.orders.weights names {name!r}; after the order use '
          f'{", ".join(f"+{one}" for one in known)}.'
        )
      keywords.update(known[extra])
    made.append(
      orders.ORDERS[order](
        num_latents,
        block=settings.block,
        anchors=settings.anchors,
        start=settings.start,
        **keywords,
      )
    )
    weights.append(float(weight))
  return plans.align(*made), weights


def windowed(orders: ConfigDict) -> bool:
  """Whether a `config.orders` asks for windowed anchors.

  Raises:
    UserError: an unknown kind.
  """
  if orders.anchor_kind not in KINDS:
    raise UserError(
      f'config.orders.anchor_kind is {orders.anchor_kind!r}; use one of '
      f'{", ".join(KINDS)}.'
    )
  return orders.anchors > 0 and orders.anchor_kind == 'windowed'


def anchor_windows(orders: ConfigDict, num_frames: int) -> list[slice]:
  """Frames of the anchors of every block but the first; none if they are raw.

  Anchors at positions a .. a + P - 1 stand for the frames 4a .. 4 (a + P - 1).
  """
  if not windowed(orders):
    return []
  num_latents = 1 + (num_frames - 1) // 4
  firsts = range(orders.block, num_latents, orders.block)
  return [
    slice(4 * (first - orders.anchors), 4 * (first - 1) + 1) for first in firsts
  ]
