"""Skips steps that would spoil the weights, and stops when there are many.

Whether a step is taken is decided on the device, inside the step: the loss and
the norm of the gradient are known before the weights move, so keeping the old
ones costs no second copy of them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.processes import log

SKIPPED = 'skipped'  # The metric that says so: 0 or 1.

_MEMORY = 50  # steps that the running mean of a loss looks back
_CALM = 20  # steps of a kind before a loss can count as exploding


class TrainingStopped(UserError):
  """The training went wrong and was stopped; its checkpoints are good."""


def guarded(
  old: Any,
  new: Any,
  metrics: dict[str, jax.Array],
  mean: jax.Array,
  max_loss_ratio: float,
) -> tuple[Any, dict[str, jax.Array], jax.Array]:
  """Returns `new`, or `old` where a step went wrong; part of the jitted step.

  Args:
    old: the `TrainState` before the step.
    new: the state after it.
    metrics: scalars of the step, `loss` among them; all must be finite.
    mean: float32 [2], the running mean of this kind of step's loss and the
      number of steps in it.
    max_loss_ratio: largest loss in units of its mean; 0 for any that is finite.

  Returns:
    The state, the metrics with `SKIPPED`, and the new mean.
  """
  finite = [jnp.isfinite(value).all() for value in metrics.values()]
  good = jnp.stack(finite).all()
  loss, count = jnp.abs(metrics['loss']).astype(jnp.float32), mean[1]
  if max_loss_ratio:
    good &= (count < _CALM) | (loss <= max_loss_ratio * mean[0])
  weight = 1.0 / jnp.minimum(count + 1.0, _MEMORY)
  # Where the loss is not a number the sum would not be one either.
  following = jnp.stack([mean[0] + weight * (loss - mean[0]), count + 1.0])
  keep = lambda a, b: jnp.where(good, a, b)  # noqa: E731
  state = new.replace(
    params=jax.tree.map(keep, new.params, old.params),
    opt_state=jax.tree.map(keep, new.opt_state, old.opt_state),
    ema=jax.tree.map(keep, new.ema, old.ema),
  )
  metrics = {**metrics, SKIPPED: 1.0 - good.astype(jnp.float32)}
  return state, metrics, keep(following, mean)


class Guard:
  """Counts skipped steps, and keeps the running means between them.

  Attributes:
    total: skipped steps so far.
    means: name of a step -> its running mean, see `guarded`.
  """

  def __init__(self, max_skipped: int, stored: dict[str, Any]):
    """Continues from what `get_state` returned; from nothing with {}.

    Args:
      max_skipped: number of skipped steps in a row that stops the training.
      stored: the state.
    """
    self._max_skipped = max_skipped
    self.total = stored.get('total', 0)
    self._in_row = stored.get('in_row', 0)
    self.means: dict[str, Any] = {
      name: np.asarray(mean, np.float32)
      for name, mean in stored.get('means', {}).items()
    }

  def get_state(self) -> dict[str, Any]:
    """Returns the counts and means as JSON-able values, exactly."""
    means = {name: np.asarray(mean) for name, mean in self.means.items()}
    return {
      'total': self.total,
      'in_row': self._in_row,
      'means': {name: mean.tolist() for name, mean in means.items()},
    }

  def count(self, step: int, values: dict[str, float]) -> bool:
    """Notes the metrics of a step; returns whether it was skipped.

    Raises:
      TrainingStopped: too many steps in a row were skipped.
    """
    if not values.get(SKIPPED):
      self._in_row = 0
      return False
    self.total += 1
    self._in_row += 1
    shown = ', '.join(f'{k} {v:.4g}' for k, v in values.items() if k != SKIPPED)
    broken = [k for k, v in values.items() if not math.isfinite(v)]
    why = f'{broken[0]} is not finite' if broken else 'the loss exploded'
    log(
      f'step {step} skipped, because {why}: {shown} ({self._in_row} in a row, '
      f'{self._max_skipped} stop the training)'
    )
    if self._in_row >= self._max_skipped:
      raise TrainingStopped(
        f'{self._in_row} steps in a row were skipped up to step {step} '
        f'({why}); training stopped at its last good checkpoint: lower the '
        'learning rate, look at the data, or raise config.max_skipped.'
      )
    return True
