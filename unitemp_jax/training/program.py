"""What an objective gives to the training loop, and its compiled steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax.training.mesh import Rules, shardings_for
from unitemp_jax.training.sharding_rules import MODEL_RULES
from unitemp_jax.training.state import TrainState

StepFn = Callable[[TrainState, Any, Any], tuple[TrainState, dict]]
SampleFn = Callable[[TrainState, Path], None]


class Program(Protocol):
  """What an objective gives to the loop.

  Attributes:
    frozen: tree of weights that are not trained; passed to every step and not
      written to checkpoints.
  """

  frozen: Any

  def init(self, key: jax.Array) -> TrainState:
    """Returns the first state; runs under jit."""

  def step_fn(self, step: int) -> StepFn:
    """Returns the function that takes step number `step` (from 0).

    It maps (state, batch, frozen) to (state, metrics), draws from
    `state.step_key()` and leaves `state.step` alone. Equal kinds of steps must
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
  shapes = jax.eval_shape(program.init, jax.random.key(seed))
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings_for(shapes, mesh, rules),
  )


class CompiledSteps:
  """Compiles each step function of a program once, and reports the time."""

  def __init__(self, program: Program, state: TrainState, mesh: Mesh):
    self._program = program
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    self._out = (shardings, NamedSharding(mesh, PartitionSpec()))
    self._compiled: dict[StepFn, Callable] = {}

  def get(self, step: int, *arguments) -> Callable:
    """Returns the executable of step number `step` for such arguments."""
    function = self._program.step_fn(step)
    if function not in self._compiled:
      start = time.monotonic()
      self._compiled[function] = self._compile(function, *arguments)
      name = getattr(function, '__name__', 'step')
      print(f'compiled {name} in {time.monotonic() - start:.1f} s', flush=True)
    return self._compiled[function]

  def _compile(self, function: StepFn, *arguments) -> Callable:
    def counted(state, batch, frozen):
      new_state, metrics = function(state, batch, frozen)
      return new_state.replace(step=state.step + 1, key=state.key), metrics

    jitted = jax.jit(counted, out_shardings=self._out, donate_argnums=0)
    return jitted.lower(*arguments).compile()
