"""The folder of a training: its config, its lock, its final weights."""

import contextlib
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import safetensors

from unitemp_jax import files
from unitemp_jax.diffusion import guidance
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.parallel import processes
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


# Settings that came later, with what trainings did before there were any.
_LATER = {
  'context_sigma': 0.0,
  'critic_clamp': False,
  'mask_given': False,
  'score_anchors': True,
  'pin_last': 0.0,
}


def fingerprint(config: dict) -> str:
  """Returns a hash of what a step depends on in a plain config dict."""
  fixed = {key: v for key, v in config.items() if key not in _FREE_KEYS}
  if isinstance(fixed.get('loss'), dict):
    later = {k for k, v in _LATER.items() if fixed['loss'].get(k) == v}
    fixed['loss'] = {k: v for k, v in fixed['loss'].items() if k not in later}
  if 'mesh' in config:
    # Runs from before a mesh was free to change had this one in their hash.
    fixed['mesh'] = {'data': -1, 'fsdp': 1}
  # And those from before the sizes had the field's names.
  fixed = sizes.rename(fixed, sizes.FORMER_NAMES)
  fixed = former_config(fixed)
  text = json.dumps(fixed, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def former_config(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a plain config with the former names of guidance scales."""
  former = dict(config)
  for section, added in guidance.FORMER_CONFIG.items():
    if 'guidance_scale' in (values := dict(config.get(section) or {})):
      values['guidance'] = values.pop('guidance_scale') - added
      former[section] = values
  return former


def _leaves(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _leaves(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def check_config(workdir: Path, config: dict) -> None:
  """Refuses a folder that holds a run with another config.

  Raises:
    UserError: names what differs.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  mend = 'restore it or choose another --workdir'
  old = files.read_json(path, 'the config of a run', mend)
  if fingerprint(old) == fingerprint(config):
    return
  old, new = (
    _leaves(former_config(sizes.rename(run))) for run in (old, config)
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
  """Keeps other trainings out of a folder, and writes the config there.

  Raises:
    UserError: another process trains there, or it holds another run.
  """
  with contextlib.ExitStack() as stack:
    with processes.sync(f'Opening {workdir}'):
      if jax.process_index() == 0:
        stack.enter_context(files.lock(workdir))
        check_config(workdir, config)
        files.write_json(workdir / 'config.json', config, indent=2)
    processes.check_shared(workdir)
    yield


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
  means = {name: processes.to_host(tree) for name, tree in state.ema.items()}
  if jax.process_index() != 0:
    return []
  about = {'config': config, 'steps': int(state.step)}
  return [
    weights.save(workdir / 'weights' / f'{name}.safetensors', tree, about)
    for name, tree in means.items()
  ]


def provenance(path: str | Path) -> dict[str, Any]:
  """Steps, config and last metrics of the run that wrote `path`.

  Args:
    path: `WORKDIR/weights/NAME.safetensors`; metrics are read from
      `WORKDIR/metrics.jsonl` where that is still there. `seconds` in them is
      the wall time of the steps, restarts and compilation excluded.
  """
  path = Path(path)
  with safetensors.safe_open(str(path), framework='numpy') as file:
    about = json.loads((file.metadata() or {}).get('unitemp', '{}'))
  log = path.parent.parent / 'metrics.jsonl'
  if log.is_file():
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
