"""How weights were made: read from the files that the stages left."""

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import safetensors

_CPU_INFO = Path('/proc/cpuinfo')


def stage(path: str | Path) -> dict[str, Any]:
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
  """The commit of the working tree, 'unknown' outside of one."""
  try:
    done = subprocess.run(
      ['git', 'rev-parse', 'HEAD'],
      cwd=Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return done.stdout.strip()


def hardware() -> str:
  """What the command runs on, such as '2 x Intel(R) Xeon(R) ..., cpu'."""
  name = platform.processor() or platform.machine()
  if _CPU_INFO.is_file():
    for line in _CPU_INFO.read_text().splitlines():
      if line.startswith('model name'):
        name = line.split(':', 1)[1].strip()
        count = _CPU_INFO.read_text().count('model name')
        name = f'{count} x {name}'
        break
  devices = jax.devices()
  return f'{name}; {len(devices)} x {devices[0].device_kind}'
