"""Training programs: state, compiled steps, and the guard against divergence.

A step that would spoil the weights is skipped, and many of them stop the
training. Whether a step is taken is decided on the device, inside the step: the
loss and the norm of the gradient are known before the weights move, so keeping
the old ones costs no second copy of them.
"""

import abc
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.models.flops import Flops
from unitemp_jax.parallel.mesh import MODEL_RULES, Rules
from unitemp_jax.parallel.processes import log, sync
from unitemp_jax.sampling.sampler import sample_keys
from unitemp_jax.training.optim import (
  accumulate_gradients,
  ema_update,
  make_optimizer,
  warm_decay,
)

SKIPPED = 'skipped'  # The metric that says so: 0 or 1.

# Weights are gathered at once, beside other work, and not in a ring of pieces
# that each wait for a small product.
_ON_TPU = {'xla_jf_spmd_threshold_for_windowed_einsum_mib': 1_000_000}
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


class TrainState(struct.PyTreeNode):
  """What a step takes and returns; networks are told apart by name."""

  # int32 scalar, the number of finished steps. The loop counts it.
  step: jax.Array
  # Name -> tree of trained parameters: `student`, `critic`, ...
  params: dict[str, Any]
  opt_state: dict[str, Any]  # name -> optax state, same names as `params`
  # Name -> running mean of `params[name]`; only the names that asked.
  ema: dict[str, Any]
  # Typed jax PRNG key of the run. It never changes: a step draws from
  # `step_key()`, so a resumed run draws what an uninterrupted one does.
  key: jax.Array

  @classmethod
  def create(
    cls,
    key: jax.Array,
    params: Mapping[str, Any],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: Iterable[str] = (),
  ) -> 'TrainState':
    """Returns the state before the first step; `ema` lists averaged names."""
    return cls(
      step=jnp.zeros((), jnp.int32),
      params=dict(params),
      opt_state={name: optimizers[name].init(params[name]) for name in params},
      ema={name: jax.tree.map(jnp.copy, params[name]) for name in ema},
      key=key,
    )

  def step_key(self) -> jax.Array:
    """Returns the PRNG key of the current step, `fold_in(key, step)`."""
    return jax.random.fold_in(self.key, self.step)


StepFn = Callable[[TrainState, Any, Any], tuple[TrainState, dict]]
SampleFn = Callable[[TrainState, Path], None]


class Program(Protocol):
  """What an objective gives to the loop, and to `aot`."""

  # Tree of weights that are not trained; passed to every step and not written
  # to checkpoints. Arrays, or `Lazy` for what is read later.
  frozen: Any
  initial: Any  # what `init` starts from; not read by a resumed run
  # Name -> (function, how many of a round of steps it takes). A function maps
  # (state, batch, frozen) to (state, metrics), draws from `state.step_key()`
  # and leaves `state.step` alone. Metrics are scalars, one of them is `loss`;
  # one that is not finite makes the loop skip the step.
  steps: dict[str, tuple[StepFn, int]]
  # Name -> shape and dtype of a global batch.
  batch_spec: dict[str, jax.ShapeDtypeStruct]
  # Writes samples of a state into a folder, or None. Of several processes only
  # the first one calls it, with the running means alone.
  sample: SampleFn | None

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Returns the first state; runs under jit."""

  def step_name(self, step: int) -> str:
    """Returns which of `steps` takes step number `step` (from 0)."""

  def flops(self) -> dict[str, Flops]:
    """Returns the operations of each of `steps` per row, from sizes alone."""


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
    self._optimizer = make_optimizer(**config.optimizer.to_dict())

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


def abstract_state(
  program: Program, seed: int, mesh: Mesh, rules: Rules = MODEL_RULES
) -> TrainState:
  """Returns the shapes, dtypes and shardings of the program's state."""
  initial = weights.shapes_of(program.initial, None, rules)
  shapes = jax.eval_shape(program.init, sample_keys([seed])[0], initial)
  return weights.shapes_of(shapes, mesh, rules)


def first_state(
  program: Program, seed: int, mesh: Mesh, rules: Rules = MODEL_RULES
) -> TrainState:
  """Returns the state before the first step, on the devices."""
  shapes = abstract_state(program, seed, mesh, rules)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  arguments = (
    sample_keys([seed])[0],
    weights.load_lazy(program.initial, mesh, rules),
  )
  with sync('Compiling the first state'), jax.set_mesh(mesh):
    init = jax.jit(program.init, out_shardings=shardings)
    compiled = init.lower(*arguments).compile()
  return compiled(*arguments)


def _key(name: str, batch: Any) -> Hashable:
  return name, *(leaf.shape for leaf in jax.tree.leaves(batch))


class CompiledSteps:
  """The steps of a program, each compiled once, with the time reported.

  Batches of other shapes have programs of their own.
  """

  def __init__(
    self,
    program: Program,
    state: TrainState,
    mesh: Mesh,
    max_loss_ratio: float = 0.0,
  ):
    """Prepares to compile for arguments like `state`; see `guarded`."""
    self._program = program
    self._mesh = mesh
    self._max_loss_ratio = max_loss_ratio
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._out = (shardings, everywhere, everywhere)
    self._mean = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=everywhere)
    self._compiled: dict[Hashable, jax.stages.Compiled] = {}

  def compile(self, name: str, state, batch, frozen) -> None:
    """Compiles one of `Program.steps` for these arguments, if not yet done."""
    key = _key(name, batch)
    if key in self._compiled:
      return
    start = time.monotonic()
    # Hosts that are much faster would give up the others in the first step.
    with sync(f'Compiling {name}'):
      self._compiled[key] = self.lower(name, state, batch, frozen).compile()
    log(f'compiled {name} in {time.monotonic() - start:.1f} s')

  def __call__(
    self, name: str, state: TrainState, batch, frozen, mean: Any
  ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
    """Takes a step that was compiled; `state` is donated."""
    if not isinstance(mean, jax.Array):
      mean = jax.device_put(np.asarray(mean, np.float32), self._mean.sharding)
    return self._compiled[_key(name, batch)](state, batch, frozen, mean)

  def lower(self, name: str, *arguments) -> jax.stages.Lowered:
    """Returns one step's program before it is compiled."""
    function, _ = self._program.steps[name]

    def counted(state, batch, frozen, mean):
      new_state, metrics = function(state, batch, frozen)
      new_state, metrics, mean = guarded(
        state, new_state, metrics, mean, self._max_loss_ratio
      )
      new_state = new_state.replace(step=state.step + 1, key=state.key)
      return new_state, metrics, mean

    tpu = self._mesh.devices.flat[0].platform == 'tpu'
    # Models ask the mesh around them how activations are split.
    with jax.set_mesh(self._mesh):
      jitted = jax.jit(
        counted,
        out_shardings=self._out,
        donate_argnums=0,
        compiler_options=_ON_TPU if tpu else None,
      )
      return jitted.lower(*arguments, self._mean)
