"""Parameters of modules, read without tracing how they would be made."""

import flax.linen as nn
import jax
import numpy as np


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
  return module.param(name, init, shape)
