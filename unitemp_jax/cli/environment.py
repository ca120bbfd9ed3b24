"""What the user's environment says to JAX, and its faults in one sentence."""

import contextlib
import glob
import importlib.util
import os
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator

from unitemp_jax.errors import Remark, UserError

# With these nothing here runs, or every seed makes another video.
_ASIDE = re.compile(
  'JAX_ENABLE_X64=(?!0?$|f|n|off).*|JAX_TRANSFER_GUARD.*=disallow.*'
  '|JAX_DEFAULT_PRNG_IMPL=(?!threefry2x32$).*|JAX_RANDOM_SEED_OFFSET=(?!0$).*'
  '|JAX_THREEFRY_PARTITIONABLE=(0|f|n|off).*',
  re.I,
)
# Flags that need no look: those of tests.
_KNOWN = re.compile(
  r'(\s*--xla_force_host_platform_device_count=[1-9]\d{0,2})*'
)
# Set by JAX itself where libtpu is installed.
_OF_JAX = '--xla_tpu_use_enhanced_launch_barrier=true'
_LOAD = """import contextlib
from unitemp_jax.aot import topology
with contextlib.suppress(Exception):  # Libtpu itself would end the process.
  topology.devices(topology.parse('v5e:2x2'))"""
# What decides which devices there are.
_DEVICES = ('JAX_PLATFORM', 'JAX_NUM_CPU_DEVICES', 'CUDA_VISIBLE')
# Hints of JAX that name a variable which need not be set.
_HINT = re.compile(r"\s*\(set JAX_PLATFORMS='' .*")


@contextlib.contextmanager
def heeded() -> Iterator[None]:
  """Refuses what JAX cannot start with, naming the variables."""
  for name, value in list(os.environ.items()):
    if _ASIDE.fullmatch(f'{name}={value}'):
      del os.environ[name]
      text = f'{name}={value:.60} is set aside: nothing runs with it, or alike'
      warnings.warn(Remark(text), stacklevel=2)
  _check_flags()
  try:
    yield
  except (AssertionError, RuntimeError, ValueError) as error:
    reason = _why_not(error) if _is_of_jax(error) else None
    if reason is None:
      raise
    raise _refusal(reason) from error


def _check_flags() -> None:
  """A flag that XLA does not know would end the process without a word.

  Those of libtpu are left to it where there may be a TPU, which has one user.
  """
  tpus = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/*')
  if not _KNOWN.fullmatch(os.environ.get('XLA_FLAGS', '').rstrip()):
    _try('XLA_FLAGS', 'import jax; jax.devices()')
  given = os.environ.get('LIBTPU_INIT_ARGS', '').replace(_OF_JAX, '')
  first = 'jax' not in sys.modules  # Else commands before it said more.
  if (
    first and given.strip() and not tpus and importlib.util.find_spec('libtpu')
  ):
    _try('LIBTPU_INIT_ARGS', _LOAD)


def _try(name: str, code: str) -> None:
  """Runs code in a process that may die of what a variable says."""
  kept = {n: v for n, v in os.environ.items() if not n.startswith('JAX_')}
  tried = subprocess.run(
    [sys.executable, '-c', code],
    env={**kept, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
  )
  if tried.returncode:
    lines = tried.stderr.decode(errors='replace').splitlines()
    said = [s.partition('] ')[2] for s in lines if re.match(r'[EF]\d+ ', s)]
    raise _refusal(f'{name}: {(said or lines[-1:] or ["?"])[0]}')


def _is_of_jax(error: Exception) -> bool:
  """Whether JAX raised it; it drops its own frames and leaves a note."""
  frames = traceback.walk_tb(error.__traceback__)
  names = [frame.f_globals.get('__name__', '') for frame, _ in frames]
  return any('JAX' in note for note in getattr(error, '__notes__', ())) or any(
    name.startswith('jax.') for name in names
  )


def _why_not(error: Exception) -> str | None:
  """Why JAX cannot start, None if it can and the error is another."""
  if 'jax' not in sys.modules:  # Its import failed, and cannot be repeated.
    return str(error) or repr(error)
  try:
    sys.modules['jax'].devices()
  except (AssertionError, RuntimeError, ValueError) as found:
    return _HINT.sub('', str(found)) or 'there is no such device here'
  return None


def _refusal(reason: str) -> UserError:
  known = [n for n in os.environ if n.startswith(('JAX_', 'XLA_', 'LIBTPU_'))]
  named = [n for n in known if n.lower() in reason.lower()]
  named = named or [n for n in os.environ if n.startswith(_DEVICES)]
  given = ', '.join(f'{n}={os.environ[n]:.60}' for n in sorted(named))
  return UserError(
    f'JAX does not start{f" with {given}" if given else ""} '
    f'({reason.splitlines()[0]:.160}); correct '
    f'{"that or unset it" if given else "that, or set JAX_PLATFORMS=cpu"}.'
  )
