"""One training over clips of several shapes, one of them in each batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from unitemp_jax.training.program import Program, StepFn

Shape = tuple[int, ...]


class BucketProgram:
  """The programs of several shapes, which train the same networks.

  Attributes:
    frozen: see `Program`, as all others; of the shape that the config names.
  """

  def __init__(self, main: Program, of_shape: Mapping[Shape, Program]):
    """Takes the program of the config, and one for `[F, h, w]` of latents."""
    self._main, self._of_shape = main, of_shape
    self.frozen, self.initial = main.frozen, main.initial
    self.batch_spec, self.sample = main.batch_spec, main.sample
    self.steps: dict[str, tuple[StepFn, int]] = {
      name: (self._step(name), share) for name, (_, share) in main.steps.items()
    }
    self.init: Callable[[jax.Array, Any], Any] = main.init
    self.step_name, self.flops = main.step_name, main.flops

  def _step(self, name: str) -> StepFn:
    def step(state, batch, frozen):
      program = self._of_shape[batch['latents'].shape[1:4]]
      return program.steps[name][0](state, batch, frozen)

    return step
