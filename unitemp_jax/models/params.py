"""Parameters of modules, read without tracing how they would be made."""

import contextvars
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

_only_shapes = contextvars.ContextVar('_only_shapes', default=False)


def shapes(init: Callable[..., Any], *arguments: Any) -> Any:
  """`jax.eval_shape` of what makes parameters, not tracing how it draws."""
  token = _only_shapes.set(True)
  try:
    return jax.eval_shape(init, *arguments)
  finally:
    _only_shapes.reset(token)


def draws(module: nn.Module) -> bool:
  """Whether a module draws parameters, and not only tells their shapes."""
  return module.is_initializing() and not _only_shapes.get()


def param(
  module: nn.Module,
  name: str,
  init: nn.initializers.Initializer,
  shape: tuple[int, ...],
) -> jax.Array | np.ndarray:
  """`module.param(name, init, shape)`, made only where it is not there yet.

  Flax traces `init` again wherever a parameter is used, to compare shapes; that
  is a third of the time that tracing a network takes. Those of files are
  compared by `models.weights`.
  """
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  if _only_shapes.get():
    init = nn.initializers.zeros
  return module.param(name, init, shape)
