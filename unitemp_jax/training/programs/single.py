"""A program with one loss and one optimizer: VAE, teacher, student init."""

import abc
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from unitemp_jax.models.flops import Flops
from unitemp_jax.training.optim import (
  accumulate_gradients,
  ema_update,
  warm_decay,
)
from unitemp_jax.training.program import SampleFn, StepFn, TrainState
from unitemp_jax.training.programs import builders


class SingleLossProgram(abc.ABC):
  """Trains one network on one loss, with a running mean of it.

  Attributes:
    name: of the network.
    frozen: see `Program`, as all below.
    initial: what `init_params` is given.
    batch_spec: set by the subclass.
    sample: set by the subclass if it can.
  """

  name: str
  batch_spec: dict[str, jax.ShapeDtypeStruct]
  sample: SampleFn | None = None

  def __init__(self, config: ConfigDict):
    self.frozen: dict[str, Any] = {}
    self.initial: dict[str, Any] = {}
    self.steps: dict[str, tuple[StepFn, int]] = {'step': (self._step, 1)}
    self._config = config
    self._optimizer = builders.optimizer(config.optimizer)

  @abc.abstractmethod
  def init_params(self, key: jax.Array, initial: Any) -> Any:
    """Returns the network's tree."""

  @abc.abstractmethod
  def loss(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
    """Returns the loss and metrics."""

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Returns the state before the first step."""
    params = {self.name: self.init_params(jax.random.fold_in(key, 0), initial)}
    optimizers = {self.name: self._optimizer}
    return TrainState.create(key, params, optimizers, ema=(self.name,))

  def step_name(self, step: int) -> str:
    """Every step is the same."""
    return next(iter(self.steps))

  @abc.abstractmethod
  def flops(self) -> dict[str, Flops]:
    """Returns the operations of a step per row."""

  def _step(self, state: TrainState, batch, frozen):
    name = self.name
    grads, metrics = accumulate_gradients(
      lambda params, micro, key: self.loss(params, frozen, micro, key),
      state.params[name],
      batch,
      state.step_key(),
      self._config.accumulate,
    )
    metrics['grad_norm'] = optax.global_norm(grads)
    state = update(state, name, self._optimizer, grads)
    decay = warm_decay(self._config.ema_decay, state.step)
    ema = ema_update(state.ema[name], state.params[name], decay)
    return state.replace(ema={name: ema}), metrics


def update(
  state: TrainState,
  name: str,
  optimizer: optax.GradientTransformation,
  grads: Any,
) -> TrainState:
  """Returns the state after one optimizer step of the network `name`."""
  updates, opt_state = optimizer.update(
    grads, state.opt_state[name], state.params[name]
  )
  params = optax.apply_updates(state.params[name], updates)
  return state.replace(
    params={**state.params, name: params},
    opt_state={**state.opt_state, name: opt_state},
  )
