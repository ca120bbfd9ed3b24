"""Shuffled, endless batches of any random-access source, on grain.

Each epoch is shuffled anew, the shuffled stream is cut into global batches and
each host takes every `shard_count`-th clip of it. So what the hosts read
together does not depend on how many they are, and the state is one number.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from unitemp_jax.errors import UserError

Batch = dict[str, np.ndarray]
_NUM_THREADS = 4
_PREFETCH = 8  # batches


def _as_text(value: Any) -> Any:
  return value.decode('utf-8') if isinstance(value, bytes) else value


def _stack(examples: list[Mapping[str, Any]]) -> Batch:
  """Stacks examples; texts become an array of Python strings."""
  batch = {}
  for name, first in examples[0].items():
    values = [example[name] for example in examples]
    if isinstance(first, str | bytes):
      batch[name] = np.array([_as_text(v) for v in values], dtype=object)
    else:
      batch[name] = np.stack([np.asarray(value) for value in values])
  return batch


class Loader:
  """Endless iterator over batches whose place can be saved and restored."""

  def __init__(self, dataset: grain.MapDataset, identity: dict[str, int]):
    options = grain.ReadOptions(
      num_threads=_NUM_THREADS, prefetch_buffer_size=_PREFETCH
    )
    self._iterator = iter(dataset.to_iter_dataset(options))
    self._identity = identity

  def __iter__(self) -> 'Loader':
    return self

  def __next__(self) -> Batch:
    return next(self._iterator)

  def get_state(self) -> dict[str, int]:
    """Returns the place in the stream, JSON-able and the same on all hosts."""
    return {**self._identity, **self._iterator.get_state()}

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continues with the batch that followed when the state was taken.

    Args:
      state: from `get_state`, of a loader over the same clips; the number of
        hosts may differ as long as the global batch is the same.

    Raises:
      UserError: the state belongs to other data, seed or batch size.
    """
    state = dict(state)
    for name, value in self._identity.items():
      if state.pop(name, None) != value:
        raise UserError(
          f'The saved place in the data belongs to another {name}: this run '
          f'has {value}. Resume with the settings the run was started with.'
        )
    self._iterator.set_state(state)


def make_loader(
  source: Any,
  *,
  batch_size: int,
  seed: int,
  shard_index: int = 0,
  shard_count: int = 1,
  transform: Callable[[Batch], Batch] | None = None,
) -> Loader:
  """Makes the loader of one host.

  Args:
    source: anything with len() and [i] -> dict of arrays, numbers and texts: a
      TFDS data source, an array_record source, a list.
    batch_size: clips per batch on this host.
    seed: another seed gives another order, 0 .. 2**32 - 1.
    shard_index: which host this is.
    shard_count: how many hosts read.
    transform: applied to each batch in the reading threads.

  Returns:
    Iterator of dicts: arrays [batch_size, ...], texts as object arrays of str.

  Raises:
    UserError: the source is empty, or a number is out of range.
  """
  size = len(source)
  if size == 0:
    raise UserError('The data set is empty: prepare it with clips first.')
  if batch_size < 1 or not 0 <= shard_index < shard_count:
    raise UserError(
      'The loader needs batch_size >= 1 and 0 <= shard_index < shard_count, '
      f'got {batch_size}, {shard_index} and {shard_count}.'
    )
  if not 0 <= operator.index(seed) < 2**32:
    raise UserError(f'The seed must lie in 0 .. 2**32 - 1, got {seed}.')
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
  dataset = dataset[shard_index::shard_count]
  dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=_stack)
  if transform is not None:
    dataset = dataset.map(transform)
  identity = {
    'data_size': size,
    'seed': seed,
    'global_batch_size': batch_size * shard_count,
  }
  return Loader(dataset, identity)
