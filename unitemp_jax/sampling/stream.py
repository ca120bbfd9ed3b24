"""Streaming sampler: runs a plan row by row and yields every block.

The scan of `sampler` and this loop run the same two halves of a step. Here they
are programs of their own: one makes a block, one stores its keys and values.
The carry is donated from program to program; latents go to the host at once, so
that the device holds weights, cache and one block, however long the video.

A block that exists already is only stored, by the same program on the same
latents. So a run that continues after an interruption has, bit for bit, the
cache that it would have had.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.models.dit import DiT
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import sampler
from unitemp_jax.sampling.step import (
  Carry,
  Row,
  StepOptions,
  denoise_block,
  write_clean,
)


@dataclasses.dataclass(frozen=True)
class MadeRow:
  """Latents and anchors of one row of a plan."""

  row: int  # its number
  latents: np.ndarray  # of its valid entries, `[1, count, h, w, C]`
  anchors: np.ndarray  # of the latest anchored row, `[1, P, h, w, C]`
  seconds: float  # since the run began
  fresh: bool  # False if it was given, or made before an interruption


class RowPrograms:
  """The two compiled halves of a step, for one clip at a time."""

  def __init__(
    self,
    dit: DiT,
    sigmas: np.ndarray,
    options: StepOptions,
    mesh: jax.sharding.Mesh | None = None,
  ):
    """Compiles nothing yet; `mesh` is what tokens and heads are split over."""
    self.dit = dit
    self._denoise = sampler.cached_denoise(dit)
    self._sigmas = np.asarray(sigmas, np.float32)
    self._options = options
    make = jax.jit(
      self._make_fn, static_argnames='anchored', donate_argnames='cache'
    )
    self.make = device_mesh.on(mesh, make)
    store = jax.jit(self._store_fn, donate_argnames='cache')
    self.store = device_mesh.on(mesh, store)
    new_cache = jax.jit(dit.config.new_cache, static_argnums=range(6))
    self.new_cache = device_mesh.on(mesh, new_cache)

  def _make_fn(
    self, net, cache, anchors, keys, row: Row, noise=None, *, anchored: bool
  ):
    """Returns the cache, the clean anchors and the clean block."""
    count = anchors.shape[1] if anchored else 0
    cache = self._placed(cache, row, anchors.shape[2:4])
    carry = Carry(cache, anchors[:, :0], anchors, keys)
    trace, cache = denoise_block(
      self._denoise,
      net,
      carry,
      row,
      jnp.asarray(self._sigmas),
      len(self._sigmas) - 2,
      count,
      self._options,
      noise,
    )
    clean = trace.clean
    anchors = clean[:, :count] if anchored else anchors
    return cache, anchors, clean[:, count:]

  def _store_fn(self, net, cache, clean, row: Row):
    """Returns the cache with the block's keys and values."""
    cache = self._placed(cache, row, clean.shape[2:4])
    tokens = self.dit.config.tokens_per_frame(*clean.shape[2:4])
    commit = sampler.committer(tokens)
    return write_clean(self._denoise, net, cache, commit, clean, row)

  def _placed(self, cache, row: Row, grid):
    """The cache with sinks where this row sees them; twice does no harm."""
    if row.sinks is None:
      return cache
    return sampler.placer(self.dit.config, *grid)(cache, row.sinks)


class Rows:
  """One pass over a plan's rows; `finished` ones are stored, not made."""

  def __init__(
    self,
    programs: RowPrograms,
    nets: Mapping[int, Any],
    plan: Plan,
    latents: Mapping[int, np.ndarray],
    grid: tuple[int, int],
    seed: int,
    put: Callable[[Any], Any],
    noise: np.ndarray | None = None,
  ):
    """Allocates the cache.

    Args:
      programs: of the student.
      nets: weights and text keys and values, one prompt each, by `plan.prompt`.
      plan: checked rows.
      latents: given ones by buffer entry, `[h, w, C]`.
      grid: rows and columns of a latent.
      seed: of the noise.
      put: places arrays on the devices, always in the same way: fresh and
        finished rows must run the same executables.
      noise: of the whole video instead of the seed's, `[n, N, h, w, C]`.
    """
    self._noise = noise
    self._programs, self._nets, self._plan = programs, nets, plan
    self._put = put
    self._buffer = dict(latents)
    config = programs.dit.config
    anchors = jnp.zeros((1, plan.num_anchors, *grid, config.channels))
    # Padded, so that lengths share programs.
    sizes = sampler.bucketed(plan).num_slots, *grid, plan.num_sinks, plan.block
    self._cache = programs.new_cache(1, *sizes)
    self._anchors = put(anchors)
    self._keys = put(sampler.sample_keys([seed]))
    self._rows = jax.tree.map(np.asarray, sampler.plan_rows(plan))
    # Entry -> the last row that reads it.
    self._read = {
      entry: int(row)
      for row in np.flatnonzero(plan.conditioning)
      for _, entry in plan.entries(row)
    }
    stored = (plan.write >= 0).any(axis=1)
    # Nobody would read what the last row stores.
    stored[np.flatnonzero(plan.count > 0)[-1]] = False
    self._stored = stored

  def _row(self, row: int) -> Row:
    own = jax.tree.map(lambda leaf: leaf[row], self._rows)
    # Its net has one prompt only.
    return self._put(own.replace(prompt=np.zeros((), np.int32)))

  def _block(self, latents: np.ndarray) -> jax.Array:
    """Fills a short row up to the size of a block."""
    short = self._plan.block - latents.shape[1]
    last = np.repeat(latents[:, -1:], short, axis=1)
    return self._put(np.concatenate([latents, last], axis=1))

  def _noise_of(self, row: int) -> jax.Array | None:
    """Given noise of a row, `[n, 1, block, h, w, C]`."""
    if self._noise is None:
      return None
    places = self._plan.target[row] - self._plan.begin
    places = np.minimum(places, self._noise.shape[1] - 1)
    return self._put(self._noise[:, None, places])

  def _make(self, row: int, own: Row, net: Any) -> jax.Array:
    """Denoises a row and returns its block."""
    self._cache, self._anchors, clean = self._programs.make(
      net,
      self._cache,
      self._anchors,
      self._keys,
      own,
      self._noise_of(row),
      anchored=bool(self._plan.anchor[row]),
    )
    count = int(self._plan.count[row])
    if count < self._plan.block:
      # What a later run would read from disk has no padding either.
      return self._block(np.asarray(clean)[:, :count])
    return clean

  def run(self, finished: Mapping[int, MadeRow]) -> Iterator[MadeRow]:
    """Yields every row that is not inert, in order."""
    plan, began = self._plan, time.monotonic()
    for row in range(plan.num_rows):
      entries = [entry for _, entry in plan.entries(row)]
      if not entries:
        continue
      own, net = self._row(row), self._nets[int(plan.prompt[row])]
      fresh = False
      if plan.conditioning[row]:
        given = np.stack([self._buffer[entry] for entry in entries])
        clean = self._block(given[None])
      elif row in finished:
        clean = self._block(finished[row].latents)
        self._anchors = self._put(finished[row].anchors)
      else:
        fresh, clean = True, self._make(row, own, net)
      if self._stored[row]:
        self._cache = self._programs.store(net, self._cache, clean, own)
      latents = np.asarray(clean)[:, : len(entries)]
      for k, entry in enumerate(entries):
        if self._read.get(entry, -1) > row:
          self._buffer[entry] = latents[0, k]
        else:  # kept no longer than it is needed
          self._buffer.pop(entry, None)
      anchors = np.asarray(self._anchors)
      yield MadeRow(row, latents, anchors, time.monotonic() - began, fresh)
