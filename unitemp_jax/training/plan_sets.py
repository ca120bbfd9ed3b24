"""The plans that a student is trained on, from `config.orders`."""

from ml_collections import ConfigDict

from unitemp_jax import orders, plans
from unitemp_jax.errors import UserError


def training_plans(
  settings: ConfigDict, num_latents: int
) -> tuple[list[plans.Plan], list[float]]:
  """Plans of equal shape and their sampling weights.

  Args:
    settings: `weights` maps names of `orders.ORDERS` to weights, a name may end
      in `+first` or `+last` for a given first or last frame; `anchors` and
      `start` are the arguments of the order functions.
    num_latents: N.

  Raises:
    UserError: an unknown order.
  """
  made, weights = [], []
  for name, weight in settings.weights.items():
    order, *given = name.split('+')
    if order not in orders.ORDERS:
      raise UserError(
        f'config.orders.weights names {order!r}; use one of '
        f'{", ".join(orders.ORDERS)}.'
      )
    keywords = {f'given_{side}': 1 for side in given}
    made.append(
      orders.ORDERS[order](
        num_latents, anchors=settings.anchors, start=settings.start, **keywords
      )
    )
    weights.append(float(weight))
  return plans.align(*made), weights
