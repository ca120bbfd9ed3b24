"""Shuffled, endless batches of any random-access source, on grain.

Each epoch is shuffled anew, the shuffled stream is cut into global batches and
each host takes its rows of every batch. So the batch, row for row, does not
depend on how many hosts there are, and the state is one number.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
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


class _Rows(grain.MapDataset):
  """The same rows of every batch of an endless stream."""

  def __init__(
    self, parent: grain.MapDataset, batch_size: int, rows: Sequence[int]
  ):
    super().__init__(parent)
    self._batch_size = batch_size
    self._rows = tuple(rows)

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size * len(self._rows)

  def __getitem__(self, index):
    batch, place = divmod(index, len(self._rows))
    return self._parent[batch * self._batch_size + self._rows[place]]


class Loader:
  """Endless iterator over batches whose place can be saved and restored."""

  def __init__(
    self,
    dataset: grain.MapDataset,
    identity: dict[str, int],
    ahead: int = _PREFETCH,
  ):
    options = grain.ReadOptions(
      num_threads=min(_NUM_THREADS, ahead), prefetch_buffer_size=ahead
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


class Buckets:
  """Batches of one of several loaders at a time, each by how much it has.

  Which one follows depends on the seed and on the number of the batch alone.
  """

  def __init__(
    self, loaders: Sequence[Loader], sizes: Sequence[int], seed: int
  ):
    self._loaders, self._seed = loaders, seed
    self._shares = np.asarray(sizes) / np.sum(sizes)
    self._count = 0

  def __iter__(self) -> 'Buckets':
    return self

  def __next__(self) -> Batch:
    rng = np.random.default_rng([self._seed, self._count])
    self._count += 1
    return next(self._loaders[rng.choice(len(self._loaders), p=self._shares)])

  def get_state(self) -> dict[str, Any]:
    """Returns the place in every stream; see `Loader.get_state`."""
    states = [loader.get_state() for loader in self._loaders]
    return {'batches': self._count, 'buckets': states}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Continues there.

    Raises:
      UserError: the state belongs to other data, seed or batch size.
    """
    for loader, own in zip(self._loaders, state['buckets'], strict=True):
      loader.set_state(own)
    self._count = state['batches']


def make_loader(
  source: Any,
  *,
  batch_size: int,
  seed: int,
  rows: Sequence[int] | None = None,
  transform: Callable[[Batch], Batch] | None = None,
  ahead: int = _PREFETCH,
) -> Loader:
  """Makes the loader of one host.

  Args:
    source: anything with len() and [i] -> dict of arrays, numbers and texts: a
      TFDS data source, an array_record source, a list.
    batch_size: clips per batch on all hosts together.
    seed: another seed gives another order, 0 .. 2**32 - 1.
    rows: which of them this host reads, ascending; None for all.
    transform: applied to each batch in the reading threads.
    ahead: batches that are read before they are wanted.

  Returns:
    Iterator of dicts: arrays [rows, ...], texts as object arrays of str.

  Raises:
    UserError: the source is empty, or a number is out of range.
  """
  size = len(source)
  if size == 0:
    raise UserError('The data set is empty: prepare it with clips first.')
  if batch_size < 1:
    raise UserError(f'The loader needs batch_size >= 1, got {batch_size}.')
  rows = range(batch_size) if rows is None else rows
  if not len(rows) or min(rows) < 0 or max(rows) >= batch_size:
    raise UserError(
      f'A host must read one or more of the rows 0 .. {batch_size - 1} of a '
      f'batch, not {list(rows)}; change batch_size or the number of hosts.'
    )
  if not 0 <= operator.index(seed) < 2**32:
    raise UserError(f'The seed must lie in 0 .. 2**32 - 1, got {seed}.')
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
  if len(rows) < batch_size:
    dataset = _Rows(dataset, batch_size, rows)
  dataset = dataset.batch(len(rows), drop_remainder=True, batch_fn=_stack)
  if transform is not None:
    dataset = dataset.map(transform)
  identity = {'data_size': size, 'seed': seed, 'global_batch_size': batch_size}
  return Loader(dataset, identity, ahead)
