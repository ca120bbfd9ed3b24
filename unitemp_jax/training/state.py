"""Everything that a training step changes, as one pytree."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


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
