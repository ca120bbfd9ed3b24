"""What an objective gives to the training loop, and its compiled steps."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax.parallel.mesh import Rules
from unitemp_jax.parallel.processes import say, together
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.training.guard import guarded
from unitemp_jax.training.programs import lazy_weights
from unitemp_jax.training.state import TrainState

StepFn = Callable[[TrainState, Any, Any], tuple[TrainState, dict]]
SampleFn = Callable[[TrainState, Path], None]


class Program(Protocol):
  """What an objective gives to the loop.

  Attributes:
    frozen: tree of weights that are not trained; passed to every step and not
      written to checkpoints. Arrays, or `LazyWeights` for what is read later.
    initial: likewise, what `init` starts from; not read by a resumed run.
    steps: the distinct functions that `step_fn` returns, by name, with how many
      of a round of steps each one takes.
  """

  frozen: Any
  initial: Any
  steps: dict[str, tuple['StepFn', int]]

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Returns the first state; runs under jit."""

  def step_fn(self, step: int) -> StepFn:
    """Returns the function that takes step number `step` (from 0).

    It maps (state, batch, frozen) to (state, metrics), draws from
    `state.step_key()` and leaves `state.step` alone. Metrics are scalars; one
    that is not finite makes the loop skip the step. Equal kinds of steps must
    return the same function object: each object is compiled once.
    """


class Loader(Protocol):
  """An endless iterator of dicts of numpy arrays with a position."""

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch of this process."""

  def get_state(self) -> dict:
    """Returns the position after the batches taken so far.

    JSON-able, and the same in every process.
    """

  def set_state(self, state: dict) -> None:
    """Continues after a position that `get_state` returned."""


def abstract_state(
  program: Program, seed: int, mesh: Mesh, rules: Rules = MODEL_RULES
) -> TrainState:
  """Returns the shapes, dtypes and shardings of the program's state."""
  initial = lazy_weights.shapes_of(program.initial, None, rules)
  shapes = jax.eval_shape(program.init, jax.random.key(seed), initial)
  return lazy_weights.shapes_of(shapes, mesh, rules)


def first_state(
  program: Program, seed: int, mesh: Mesh, rules: Rules = MODEL_RULES
) -> TrainState:
  """Returns the state before the first step, on the devices.

  Raises:
    UserError: weights that it starts from are missing or do not fit.
  """
  shapes = abstract_state(program, seed, mesh, rules)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  initial = lazy_weights.load(program.initial, mesh, rules)
  arguments = jax.random.key(seed), initial
  with together('Compiling the first state'), jax.set_mesh(mesh):
    init = jax.jit(program.init, out_shardings=shardings)
    compiled = init.lower(*arguments).compile()
  return compiled(*arguments)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """One kind of step.

  Attributes:
    run: `(state, batch, frozen, mean) -> (state, metrics, mean)`; the mean is
      that of `guard.guarded`, and the state is donated.
    kind: names the metrics that it reports, the same in every process and run.
  """

  run: Callable
  kind: str


class CompiledSteps:
  """Compiles each step function of a program once, and reports the time."""

  def __init__(
    self,
    program: Program,
    state: TrainState,
    mesh: Mesh,
    max_loss_ratio: float = 0.0,
  ):
    """Prepares to compile for arguments like `state`; see `guard.guarded`."""
    self._program = program
    self._mesh = mesh
    self._max_loss_ratio = max_loss_ratio
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._out = (shardings, everywhere, everywhere)
    self._mean = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=everywhere)
    self._compiled: dict[StepFn, CompiledStep] = {}

  def get(self, step: int, *arguments) -> CompiledStep:
    """Returns the executable of step number `step`.

    Args:
      step: from 0.
      *arguments: state, batch and frozen weights to compile it for.
    """
    function = self._program.step_fn(step)
    if function not in self._compiled:
      start = time.monotonic()
      name = getattr(function, '__name__', 'step')
      # Hosts that are much faster would give up the others in the first step.
      with together(f'Compiling {name}'):
        lowered = self.lower(function, *arguments)
        kind = ' '.join(sorted(lowered.out_info[1]))
        self._compiled[function] = CompiledStep(lowered.compile(), kind)
      say(f'compiled {name} in {time.monotonic() - start:.1f} s')
    return self._compiled[function]

  def put_mean(self, mean: Any) -> jax.Array:
    """Returns a running mean on the devices, where the step wants it."""
    if isinstance(mean, jax.Array):
      return mean
    return jax.device_put(np.asarray(mean, np.float32), self._mean.sharding)

  def lower(self, function: StepFn, *arguments) -> jax.stages.Lowered:
    """Returns one step's program before it is compiled.

    Args:
      function: one that the program's `step_fn` returns.
      *arguments: state, batch and frozen weights, or their shapes with
        shardings. The state is donated.
    """

    def counted(state, batch, frozen, mean):
      new_state, metrics = function(state, batch, frozen)
      new_state, metrics, mean = guarded(
        state, new_state, metrics, mean, self._max_loss_ratio
      )
      new_state = new_state.replace(step=state.step + 1, key=state.key)
      return new_state, metrics, mean

    # Models ask the mesh around them how activations are split.
    with jax.set_mesh(self._mesh):
      jitted = jax.jit(counted, out_shardings=self._out, donate_argnums=0)
      return jitted.lower(*arguments, self._mean)
