"""Skips steps that would spoil the weights, and stops when there are many.

Whether a step is taken is decided on the device, inside the step: the loss and
the norm of the gradient are known before the weights move, so keeping the old
ones costs no second copy of them.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.parallel.processes import say
from unitemp_jax.training.state import TrainState

SKIPPED = 'skipped'  # The metric that says so: 0 or 1.

_MEMORY = 50  # steps that the running mean of a loss looks back
_CALM = 20  # steps of a kind before a loss can count as exploding


class TrainingStopped(UserError):
  """The training went wrong and was stopped; its checkpoints are good."""


@dataclasses.dataclass(frozen=True)
class GuardSettings:
  """When a step is skipped.

  Attributes:
    max_loss_ratio: a step whose losses are more than so many times their
      running mean is skipped; 0 skips only what is not finite.
    max_skipped: so many skipped steps in a row stop the training.
  """

  max_loss_ratio: float = 0.0
  max_skipped: int = 5


def _total_loss(metrics: dict[str, jax.Array]) -> jax.Array:
  losses = [abs(v) for name, v in metrics.items() if 'loss' in name]
  return jnp.asarray(sum(losses), jnp.float32)


def guarded(
  old: TrainState,
  new: TrainState,
  metrics: dict[str, jax.Array],
  mean: jax.Array,
  max_loss_ratio: float,
) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
  """Returns `new`, or `old` where a step went wrong; part of the jitted step.

  Args:
    old: the state before the step.
    new: the state after it.
    metrics: scalars of the step; none of them may be other than finite.
    mean: float32 [2], the running mean of this kind of step's losses and the
      number of steps in it.
    max_loss_ratio: see `GuardSettings`.

  Returns:
    The state, the metrics with `SKIPPED`, and the new mean.
  """
  finite = [jnp.isfinite(value).all() for value in metrics.values()]
  good = jnp.stack(finite).all()
  loss, count = _total_loss(metrics), mean[1]
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
  """Counts skipped steps, and keeps the running means between them."""

  def __init__(self, settings: GuardSettings, stored: dict[str, Any]):
    """Continues from what `get_state` returned; from nothing with {}."""
    self.settings = settings
    self.total = stored.get('total', 0)
    self._in_row = stored.get('in_row', 0)
    self.means: dict[str, Any] = {
      kind: np.asarray(mean, np.float32)
      for kind, mean in stored.get('means', {}).items()
    }

  def get_state(self) -> dict[str, Any]:
    """Returns the counts and means as JSON-able values, exactly."""
    means = {kind: np.asarray(mean) for kind, mean in self.means.items()}
    return {
      'total': self.total,
      'in_row': self._in_row,
      'means': {kind: mean.tolist() for kind, mean in means.items()},
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
    most = self.settings.max_skipped
    shown = ', '.join(f'{k} {v:.4g}' for k, v in values.items() if k != SKIPPED)
    broken = [k for k, v in values.items() if not math.isfinite(v)]
    why = f'{broken[0]} is not finite' if broken else 'the loss exploded'
    say(
      f'step {step} skipped, because {why}: {shown} ({self._in_row} in a row, '
      f'{most} stop the training)'
    )
    if self._in_row >= most:
      raise TrainingStopped(
        f'{self._in_row} steps in a row were skipped up to step {step} '
        f'({why}); training stopped at its last good checkpoint: lower the '
        'learning rate, look at the data, or raise config.max_skipped.'
      )
    return True
