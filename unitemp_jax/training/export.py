"""The weights that a finished run hands to the next stage."""

from pathlib import Path

import jax

from unitemp_jax.models import weights
from unitemp_jax.parallel.processes import to_host
from unitemp_jax.training.state import TrainState


def export_weights(
  state: TrainState, workdir: Path, config: dict
) -> list[Path]:
  """Writes the running mean of every averaged network.

  Args:
    state: of a run, on every process.
    workdir: of the run; receives `weights/NAME.safetensors`.
    config: plain dict, kept in the files with the number of steps.

  Returns:
    The paths, written by process 0 only.
  """
  means = {name: to_host(tree) for name, tree in state.ema.items()}
  if jax.process_index() != 0:
    return []
  about = {'config': config, 'steps': int(state.step)}
  return [
    weights.save(workdir / 'weights' / f'{name}.safetensors', tree, about)
    for name, tree in means.items()
  ]
