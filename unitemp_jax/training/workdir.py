"""The folder of a training: its config, lock, checkpoints and final weights.

Checkpoints are whole or absent, and a run resumes from them bit for bit. One is
a folder `<step>` with the train state (Orbax arrays) and a JSON part: the
fingerprint of the config and the host's state, which holds the position in the
data and is the same in every process.
"""

import contextlib
import functools
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization, traverse_util
from jax.experimental import multihost_utils

from unitemp_jax import files
from unitemp_jax.diffusion import guidance
from unitemp_jax.errors import UserError, foreign, system_error
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel import locks, processes
from unitemp_jax.training.program import TrainState

# A run may be continued with these changed: no step depends on them, but for
# the order of sums over a mesh and for which steps are skipped.
_FREE_KEYS = (
  'mesh',
  'num_steps',
  'log_every',
  'checkpoint_every',
  'checkpoint_minutes',
  'keep_checkpoints',
  'keep_every',
  'sample_every',
  'num_devices',
  'max_loss_ratio',
  'max_skipped',
  'profile_step',
  'profile_steps',
)


LOGS = ('metrics.jsonl', 'goodput.jsonl')

# Settings that came later, with what trainings did before there were any.
_LATER = {
  'context_sigma': 0.0,
  'critic_clamp': False,
  'mask_given': False,
  'score_anchors': True,
  'pin_last': 0.0,
  'first': 1.0,
  'latent_noise': 0.0,
}


def fingerprint(config: dict) -> str:
  """Returns a hash of what a step depends on in a plain config dict."""

  def known_before(values):
    return {k: v for k, v in values.items() if (k, v) not in _LATER.items()}

  fixed = known_before(config)
  fixed = {key: v for key, v in fixed.items() if key not in _FREE_KEYS}
  if isinstance(fixed.get('loss'), dict):
    fixed['loss'] = known_before(fixed['loss'])
  if 'mesh' in config:
    # Runs from before a mesh was free to change had this one in their hash.
    fixed['mesh'] = {'data': -1, 'fsdp': 1}
  # And those from before the sizes had the field's names.
  fixed = sizes.rename(fixed, sizes.FORMER_NAMES)
  fixed = former_config(fixed)
  return files.sha256(json.dumps(fixed, sort_keys=True))[:16]


def former_config(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a plain config with the former names of guidance scales."""
  former = dict(config)
  for section, added in guidance.FORMER_CONFIG.items():
    if 'guidance_scale' in (values := dict(config.get(section) or {})):
      values['guidance'] = values.pop('guidance_scale') - added
      former[section] = values
  return former


def check_config(workdir: Path, config: dict) -> None:
  """Refuses a folder that holds a run with another config."""
  path = workdir / 'config.json'
  if not path.exists():
    for name in LOGS:
      if os.path.lexists(workdir / name):
        why = f'of no run ({path.name} is missing)'
        raise foreign(workdir / name, why, '--workdir')
    return
  mend = 'restore it or choose another --workdir'
  old = files.read_json(path, 'the config of a run', mend)
  try:
    same = fingerprint(old) == fingerprint(config)
  except (AttributeError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read as the config of a run ({error}); {mend}.'
    ) from error
  if same:
    return
  old, new = (
    traverse_util.flatten_dict(former_config(sizes.rename(run)), sep='.')
    for run in (old, config)
  )
  names = [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in _FREE_KEYS
  ]
  raise UserError(
    f'{workdir} holds a run with another config (differs in '
    f'{", ".join(names[:5])}); choose another --workdir or use that config.'
  )


@contextlib.contextmanager
def claimed(workdir: Path, config: dict) -> Iterator[None]:
  """Keeps other trainings out of a folder, and writes the config there."""
  with contextlib.ExitStack() as stack:
    with processes.sync(f'Opening {workdir}'):
      if jax.process_index() == 0:
        stack.enter_context(locks.lock(workdir))
        check_config(workdir, config)
        files.write_json(workdir / 'config.json', config, indent=2)
    processes.check_shared(workdir)
    yield


def weights_path(workdir: Path, name: str) -> Path:
  """File of an averaged network."""
  return workdir / 'weights' / f'{name}.safetensors'


def check_weights(workdir: Path, names: Iterable[str], config: dict) -> None:
  """Refuses, by UserError, to replace weights that another run wrote."""
  for path in (weights_path(workdir, name) for name in names):
    if not os.path.lexists(path):
      continue
    about: dict[str, Any] = {}
    with contextlib.suppress(UserError), weights.Files(path) as opened:
      about = opened.metadata
    known = about.get('config')
    if not isinstance(known, dict) or fingerprint(known) != fingerprint(config):
      raise foreign(path, 'not of this run', '--workdir')


def export_weights(
  state: TrainState, workdir: Path, config: dict
) -> list[Path]:
  """Writes the running mean of every averaged network, by process 0 alone."""
  means = {name: processes.to_host(tree) for name, tree in state.ema.items()}
  if jax.process_index() != 0:
    return []
  about = {'config': config, 'steps': int(state.step)}
  return [
    weights.save(weights_path(workdir, name), tree, about)
    for name, tree in means.items()
  ]


def provenance(path: str | Path) -> dict[str, Any]:
  """Steps, config and last metrics of the run that wrote `path`.

  Metrics are those of `WORKDIR/metrics.jsonl` where that is still there,
  `seconds` in them without restarts and compilation.
  """
  path = Path(path)
  with weights.Files(path) as opened:
    about = opened.metadata
  log = path.parent.parent / 'metrics.jsonl'
  if log.is_file():
    with contextlib.suppress(ValueError, LookupError, RecursionError):
      about['last_metrics'] = json.loads(log.read_text().splitlines()[-1])
  return about


def commit() -> str:
  """Returns the commit of the working tree, 'unknown' outside of one."""
  command = ['git', 'rev-parse', 'HEAD']
  try:
    return subprocess.run(
      command,
      cwd=Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'


def hardware() -> str:
  """Returns processors and devices, such as '2 x Intel Xeon; 1 x cpu'."""
  names = []
  with contextlib.suppress(OSError):
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = [l.split(':', 1)[1].strip() for l in lines if 'model name' in l]
  name = platform.processor() or platform.machine()
  if names:
    name = f'{len(names)} x {names[0]}'
  devices = jax.devices()
  return f'{name}; {len(devices)} x {devices[0].device_kind}'


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


@functools.cache
def _quiet_writers() -> None:
  """Keeps Orbax's threads from printing what is raised to us anyway.

  On a full disk each array that found no room would have a traceback.
  """
  in_thread, unraisable = threading.excepthook, sys.unraisablehook

  def of_thread(args):
    if not isinstance(args.exc_value, Exception) or (
      system_error(args.exc_value) is None
    ):
      in_thread(args)

  def of_nobody(args):
    if str(args.exc_value) != 'Event loop is closed':
      unraisable(args)

  def is_news(record):
    return 'orbax' not in record.pathname or record.levelno != logging.ERROR

  threading.excepthook, sys.unraisablehook = of_thread, of_nobody
  logging.getLogger('absl').addFilter(is_news)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
  """Raises what the system said to Orbax's writer as the error that it is."""
  try:
    yield
  except Exception as error:
    cause = system_error(error)
    if cause is None or cause.filename:
      raise
    raise OSError(cause.errno, cause.strerror, str(path)) from error


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
    _quiet_writers()
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

    `data_state` is what the host needs besides it, as JSON-able values; those
    of process 0 are kept. OSError: this one or the one before could not be
    written, and older ones are as they were.
    """
    if jax.default_backend() == 'cpu':
      # Orbax reads host buffers in place, and a donated one is overwritten by
      # the next step while the writer still reads it.
      state = jax.tree.map(jnp.copy, state)
    host = {'fingerprint': self._fingerprint, 'data_state': data_state}
    with _disk_errors(self._directory):
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
    """Returns when the checkpoint that is being written is complete.

    OSError: it could not be written.
    """
    with _disk_errors(self._directory):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and releases the directory."""
    with _disk_errors(self._directory):
      self._manager.close()
