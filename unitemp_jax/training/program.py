"""What an objective gives to the training loop, and its compiled steps."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unitemp_jax.models.flops import Flops
from unitemp_jax.parallel.mesh import Rules
from unitemp_jax.parallel.processes import log, sync
from unitemp_jax.parallel.sharding_rules import MODEL_RULES
from unitemp_jax.training import lazy_weights
from unitemp_jax.training.guard import guarded


class TrainState(struct.PyTreeNode):
  """What a step takes and returns; networks are told apart by name.

  Attributes:
    step: int32 scalar, the number of finished steps. The loop counts it.
    params: name -> tree of trained parameters: `student`, `critic`, ...
    opt_state: name -> optax state, same names as `params`.
    ema: name -> running mean of `params[name]`; only the names that asked.
    key: typed jax PRNG key of the run. It never changes: a step draws from
      `step_key()`, so a resumed run draws what an uninterrupted one does.
  """

  step: jax.Array
  params: dict[str, Any]
  opt_state: dict[str, Any]
  ema: dict[str, Any]
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
  """What an objective gives to the loop, and to `aot`.

  Attributes:
    frozen: tree of weights that are not trained; passed to every step and not
      written to checkpoints. Arrays, or `Lazy` for what is read later.
    initial: likewise, what `init` starts from; not read by a resumed run.
    steps: name -> (function, how many of a round of steps it takes). A function
      maps (state, batch, frozen) to (state, metrics), draws from
      `state.step_key()` and leaves `state.step` alone. Metrics are scalars, one
      of them is `loss`; one that is not finite makes the loop skip the step.
    batch_spec: name -> shape and dtype of a global batch.
    sample: writes samples of a state into a folder, or None. Of several
      processes only the first one calls it, with the running means alone.
  """

  frozen: Any
  initial: Any
  steps: dict[str, tuple[StepFn, int]]
  batch_spec: dict[str, jax.ShapeDtypeStruct]
  sample: SampleFn | None

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Returns the first state; runs under jit."""

  def step_name(self, step: int) -> str:
    """Returns which of `steps` takes step number `step` (from 0)."""

  def flops(self) -> dict[str, Flops]:
    """Returns the operations of each of `steps` per row, from sizes alone."""


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
  arguments = (
    jax.random.key(seed),
    lazy_weights.load(program.initial, mesh, rules),
  )
  with sync('Compiling the first state'), jax.set_mesh(mesh):
    init = jax.jit(program.init, out_shardings=shardings)
    compiled = init.lower(*arguments).compile()
  return compiled(*arguments)


class CompiledSteps:
  """The steps of a program, each compiled once, with the time reported."""

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
    self._compiled: dict[str, jax.stages.Compiled] = {}

  def compile(self, name: str, state, batch, frozen) -> None:
    """Compiles one of `Program.steps` for these arguments, if not yet done."""
    if name in self._compiled:
      return
    start = time.monotonic()
    # Hosts that are much faster would give up the others in the first step.
    with sync(f'Compiling {name}'):
      self._compiled[name] = self.lower(name, state, batch, frozen).compile()
    log(f'compiled {name} in {time.monotonic() - start:.1f} s')

  def __call__(
    self, name: str, state: TrainState, batch, frozen, mean: Any
  ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
    """Takes a step that was compiled; `state` is donated.

    Args:
      name: of the step.
      state: before it.
      batch: on the devices.
      frozen: likewise.
      mean: running mean of the step's loss, see `guard.guarded`.

    Returns:
      State, metrics and mean after the step.
    """
    if not isinstance(mean, jax.Array):
      mean = jax.device_put(np.asarray(mean, np.float32), self._mean.sharding)
    return self._compiled[name](state, batch, frozen, mean)

  def lower(self, name: str, *arguments) -> jax.stages.Lowered:
    """Returns one step's program before it is compiled.

    Args:
      name: of the step.
      *arguments: state, batch and frozen weights, or their shapes with
        shardings.
    """
    function, _ = self._program.steps[name]

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
