"""A program with one loss and one optimizer: VAE, teacher, student init."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unitemp_jax.training.accumulate import accumulate_gradients
from unitemp_jax.training.optim import ema_update
from unitemp_jax.training.programs.program import StepFn
from unitemp_jax.training.state import TrainState

# (params, frozen, batch, key) -> (loss, metrics)
LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, dict]]


def warm_decay(decay: float, step: jax.Array) -> jax.Array:
  """EMA decay that starts low, so that the first weights are forgotten."""
  step = step.astype(jnp.float32)
  return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


class SingleLossProgram:
  """Trains the network `name` on one loss, with a running mean of it."""

  def __init__(
    self,
    name: str,
    *,
    init_params: Callable[[jax.Array, Any], Any],
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    frozen: Any = None,
    initial: Any = None,
    accumulate: int = 1,
    sample_fn: Callable[[TrainState, Any], None] | None = None,
  ):
    """Joins the pieces.

    `init_params` maps a key and what `initial` holds to the network's tree.
    """
    self.sample_fn = sample_fn
    self.name = name
    self.frozen = {} if frozen is None else frozen
    self.initial = {} if initial is None else initial
    self.steps: dict[str, tuple[StepFn, int]] = {'step': (self._step, 1)}
    self._init_params = init_params
    self._loss = loss
    self._optimizer = optimizer
    self._ema_decay = ema_decay
    self._accumulate = accumulate

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """The state before the first step."""
    key_params = jax.random.fold_in(key, 0)
    params = {self.name: self._init_params(key_params, initial)}
    return TrainState.create(
      key, params, {self.name: self._optimizer}, ema=(self.name,)
    )

  def step_fn(self, step: int):
    """Every step is the same function."""
    del step
    return self._step

  def _step(self, state: TrainState, batch, frozen):
    name = self.name
    grads, metrics = accumulate_gradients(
      lambda params, micro, key: self._loss(params, frozen, micro, key),
      state.params[name],
      batch,
      state.step_key(),
      self._accumulate,
    )
    updates, opt_state = self._optimizer.update(
      grads, state.opt_state[name], state.params[name]
    )
    params = optax.apply_updates(state.params[name], updates)
    decay = warm_decay(self._ema_decay, state.step)
    metrics['grad_norm'] = optax.global_norm(grads)
    return state.replace(
      params={name: params},
      opt_state={name: opt_state},
      ema={name: ema_update(state.ema[name], params, decay)},
    ), metrics
