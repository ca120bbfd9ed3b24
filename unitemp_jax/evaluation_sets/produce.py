"""Makes the clips of a set: generation, decoding and writing overlap.

One thread generates, a second decodes what is generated, some more encode and
write. Few batches are under way at a time, so that memory stays bounded.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from unitemp_jax.evaluation_sets.clips import Clip
from unitemp_jax.evaluation_sets.progress import Journal, duration, mean_rate

# Batches that wait for their decoding and writing while others are generated.
_UNDER_WAY = 2


@dataclasses.dataclass(frozen=True)
class Maker:
  """How clips become pixels; all that this module knows of models.

  Attributes:
    bucket: clips with equal values can be made in one batch.
    generate: a batch of at most `size` clips -> anything.
    decode: (the batch, what was generated) -> uint8 videos, one per clip.
    size: clips per batch.
  """

  bucket: Callable[[Clip], Hashable]
  generate: Callable[[Sequence[Clip]], Any]
  decode: Callable[[Sequence[Clip], Any], Sequence[np.ndarray]]
  size: int


def batches(clips: Sequence[Clip], maker: Maker) -> Iterator[list[Clip]]:
  """Groups clips by bucket, in order; only each bucket's last is smaller."""
  buckets: dict[Hashable, list[Clip]] = {}
  for clip in clips:
    buckets.setdefault(maker.bucket(clip), []).append(clip)
  for bucket in buckets.values():
    for first in range(0, len(bucket), maker.size):
      yield bucket[first : first + maker.size]


def produce(
  clips: Sequence[Clip],
  maker: Maker,
  write: Callable[[Clip, np.ndarray], None],
  journal: Journal,
  *,
  writers: int = 4,
  report: Callable[[str], None] = print,
) -> None:
  """Makes and writes clips.

  Args:
    clips: those that are not there yet.
    maker: what makes them.
    write: writes one clip; called from several threads.
    journal: is told of every batch.
    writers: threads that write.
    report: is given a line per batch.

  Raises:
    UserError: from writing; what is finished stays.
  """
  last, times = time.monotonic(), []

  def settle(group, decoding):
    nonlocal last
    for writing in decoding.result():
      writing.result()
    took = time.monotonic() - last
    last += took
    times.append((len(group), took))
    journal.batch(len(group), took)
    done, rate = sum(count for count, _ in times), mean_rate(times)
    report(
      f'{group[0].order}: {done}/{len(clips)} clips, {60 * rate:.1f} per '
      f'minute, {duration((len(clips) - done) / rate)} left'
    )

  journal.start(len(clips))
  with (
    futures.ThreadPoolExecutor(writers, 'write') as pool,
    futures.ThreadPoolExecutor(1, 'decode') as decoder,
  ):

    def finish(group, made):
      videos = maker.decode(group, made)
      return [
        pool.submit(write, clip, video)
        for clip, video in zip(group, videos, strict=True)
      ]

    waiting: collections.deque = collections.deque()
    for group in batches(clips, maker):
      made = maker.generate(group)
      waiting.append((group, decoder.submit(finish, group, made)))
      if len(waiting) > _UNDER_WAY:
        settle(*waiting.popleft())
    while waiting:
      settle(*waiting.popleft())
  journal.end()
