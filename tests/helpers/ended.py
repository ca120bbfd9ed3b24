"""Trainings that end at a step, by an exception that no code catches."""

import itertools

import numpy as np
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.data import latents
from unitemp_jax.training.program import CompiledSteps


class Ended(BaseException):
  """What no code catches."""


def run(words, ends=None):
  """Runs `unitemp WORDS` in this process, until it ends at so many steps."""
  train(lambda: cli.main(words), ends)


def train(command, ends=None):
  """Calls what trains and returns 0, until it ends at so many steps."""
  steps, take = itertools.count(1), CompiledSteps.__call__

  def step(self, *arguments):
    if next(steps) == ends:
      raise Ended
    return take(self, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(CompiledSteps, '__call__', step)
    if ends is None:
      assert command() == 0
    else:
      with pytest.raises(Ended):
        command()


def write_latents(folder, shape, count, *, length=20, shards=1, bad=()):
  """Writes random latents `[F, h, w, 16]` with windowed anchors of 3.

  Args:
    folder: of the set.
    shape: F, h, w.
    count: clips in each shard.
    length: of their texts.
    shards: how many.
    bad: clips of the first shard that are not numbers.
  """
  folder.mkdir(parents=True)
  frames, *grid = shape
  for shard in range(shards):
    rng, examples = np.random.default_rng([shard, *shape]), []
    for number in range(count):

      def normal(*leading, rng=rng):
        drawn = rng.standard_normal((*leading, *grid, 16))
        return drawn.astype(np.float16)

      example = {
        'latents': normal(frames),
        'last_image': normal(1),
        'anchors': normal((frames - 1) // 3, 3),
        'ids': rng.integers(2, 40, length).astype(np.int32),
        'mask': np.ones(length, bool),
      }
      if not shard and number in bad:
        example['latents'][:] = np.nan
      examples.append(example)
    latents.write_shard(latents.shard_path(folder, shard), examples)
  statistics = ([0.0] * 16, [1.0] * 16)
  latents.write_index(folder, shards, {}, statistics)
