"""Checkpoints that are whole or absent, and that resume bit for bit.

One checkpoint is one folder `<step>` with the train state (Orbax arrays) and a
JSON part: the fingerprint of the config and the host's state, which holds the
position in the data and is the same in every process.
"""

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization
from jax.experimental import multihost_utils

from unitemp_jax.errors import UserError
from unitemp_jax.parallel import processes


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_stored(state: Any) -> Any:
  """Returns nested dicts of plain arrays (or shapes), keys as raw data."""

  def plain(leaf):
    if not _is_key(leaf):
      return leaf
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.random.key_data(leaf)
    raw = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=leaf.sharding)

  return serialization.to_state_dict(jax.tree.map(plain, state))


def _from_stored(stored: Any, abstract_state: Any) -> Any:
  """Inverts `_to_stored`, given the shapes of the state."""

  def rich(shape, leaf):
    if not _is_key(shape):
      return leaf
    return jax.random.wrap_key_data(leaf)

  state = serialization.from_state_dict(abstract_state, stored)
  return jax.tree.map(rich, abstract_state, state)


def _preservation(keep: int, keep_every: int):
  newest = ocp.checkpoint_managers.LatestN(keep)
  if not keep_every:
    return newest
  regular = ocp.checkpoint_managers.EveryNSteps(keep_every)
  return ocp.checkpoint_managers.AnyPreservationPolicy([newest, regular])


class Checkpoints:
  """Saves and restores train states in one directory."""

  def __init__(
    self,
    directory: str | Path,
    *,
    fingerprint: str = '',
    keep: int = 2,
    keep_every: int = 0,
  ):
    """Opens or creates `directory`.

    Args:
      directory: seen by every process.
      fingerprint: of the config; a checkpoint with another one is refused.
      keep: how many of the newest checkpoints are kept.
      keep_every: steps between those that are kept for good; 0 for none.
    """
    self._directory = Path(directory).absolute()
    self._fingerprint = fingerprint
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_names=('state', 'host'),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=_preservation(keep, keep_every),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
      ),
    )

  def path(self, step: int) -> Path:
    """Returns the folder of the checkpoint after `step` steps."""
    return self._directory / str(step)

  def steps(self) -> list[int]:
    """Returns the steps with a finished checkpoint, oldest first."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: Any, data_state: dict) -> None:
    """Starts writing a checkpoint; returns once `state` may be donated.

    Args:
      step: number of finished steps.
      state: the train state.
      data_state: what the host needs besides it, as JSON-able values; those of
        process 0 are kept.
    """
    if jax.default_backend() == 'cpu':
      # Orbax reads host buffers in place, and a donated one is overwritten by
      # the next step while the writer still reads it.
      state = jax.tree.map(jnp.copy, state)
    host = {'fingerprint': self._fingerprint, 'data_state': data_state}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_to_stored(state)),
        host=ocp.args.JsonSave(host),
      ),
      force=True,
    )

  def restore_latest(self, abstract_state: Any) -> tuple[Any, dict] | None:
    """Returns the newest readable (state, data_state), None without any.

    A checkpoint that some process cannot read is reported, passed over by all
    and, once an older one has been restored, moved to `<directory>_damaged`.

    Args:
      abstract_state: shapes with shardings to restore into.

    Raises:
      UserError: the checkpoint is of another config, or there are checkpoints
        and none can be read.
    """
    steps = self._agreed_steps()[::-1]
    stored_shapes = _to_stored(abstract_state)
    damaged = []
    for step in steps:
      restored = self._try_restore(step, stored_shapes)
      if restored is None:
        damaged.append(step)
      else:
        self._move_aside(damaged)
        stored, data_state = restored
        return _from_stored(stored, abstract_state), data_state
    if steps:
      raise UserError(
        f'None of the {len(steps)} checkpoints in {self._directory} can be '
        'read; restore the folder from a copy or choose another --workdir.'
      )
    return None

  def _agreed_steps(self) -> list[int]:
    """Returns the steps that process 0 sees: a listing may lag elsewhere."""
    steps = self.steps()
    if jax.process_count() == 1:
      return steps
    count = int(multihost_utils.broadcast_one_to_all(np.asarray(len(steps))))
    seen = np.zeros(count, np.int32)
    seen[: len(steps)] = steps[:count]
    return np.asarray(multihost_utils.broadcast_one_to_all(seen)).tolist()

  def _try_restore(self, step: int, stored_shapes: Any):
    """Returns (stored, data_state), None where a process cannot read it."""
    restored = None
    with processes.sync(f'Reading the checkpoint {self.path(step)}'):
      try:
        restored = self._restore(step, stored_shapes)
      except UserError:
        raise
      except Exception as error:  # Damage shows as any kind of exception.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f'Skipping checkpoint {self.path(step)}: {reason[:300]}')
    return restored if processes.all_agree(restored is not None) else None

  def _restore(self, step: int, stored_shapes: Any) -> tuple[Any, dict]:
    """Reads what this process needs, without waiting for another one."""
    host = ocp.JsonCheckpointHandler().restore(
      epath.Path(self.path(step) / 'host'), args=ocp.args.JsonRestore()
    )
    if host['fingerprint'] != self._fingerprint:
      raise UserError(
        f'The checkpoint {self.path(step)} was written with another config; '
        'use that config or choose another --workdir.'
      )
    stored = ocp.StandardCheckpointHandler().restore(
      epath.Path(self.path(step) / 'state'),
      args=ocp.args.StandardRestore(stored_shapes),
    )
    return stored, host['data_state']

  def _move_aside(self, steps: list[int]) -> None:
    """Makes room for the steps that will be reached again; deletes nothing."""
    if not steps:
      return
    if jax.process_index() == 0:
      aside = self._directory.with_name(self._directory.name + '_damaged')
      aside.mkdir(exist_ok=True)
      for step in steps:
        copies = len(list(aside.glob(f'{step}.*')))
        self.path(step).rename(aside / f'{step}.{copies}')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('damaged checkpoints moved')
    self._manager.reload()

  def wait(self) -> None:
    """Returns when the checkpoint that is being written is complete."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and releases the directory."""
    self._manager.close()
