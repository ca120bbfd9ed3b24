"""Strict JAX for every test, and no more of it than a test asks for.

A module that needs several devices says so: `pytestmark =
pytest.mark.devices(8)`; the others have one. All processes of a run share one
folder of compiled programs, which goes with the run: an entry is not written
atomically, and one that a killed process left behind would stay.

Compiling is most of the time of these tests, and takes a quarter of it without
optimization; what is said of optimized programs asks for them, see
`optimized.py`.

Property tests draw the same cases in every run, so that a change is judged by
itself. New cases: `pytest --hypothesis-profile=search`.
"""

import atexit
import gc
import os
import shutil
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
if 'PYTEST_XDIST_WORKER' not in os.environ:
  folder = tempfile.mkdtemp(prefix='unitemp_programs_')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import hypothesis
import jax
import pytest
from jax.extend import backend
from jaxtyping import install_import_hook

# Annotations of what computes are checked at every call, shapes included.
CHECKED = ('diffusion', 'models', 'objectives', 'sampling')
install_import_hook(
  [f'unitemp_jax.{name}' for name in CHECKED], 'checked_types.check'
)

hypothesis.settings.register_profile('same', derandomize=True)
hypothesis.settings.register_profile('search', derandomize=False)
hypothesis.settings.load_profile('same')
jax.config.update('jax_numpy_rank_promotion', 'raise')

MEMORY = 2.5  # GB of a process from which on compiled programs are dropped


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  """Gives the test as many devices as its module asks for."""
  mark = item.get_closest_marker('devices')
  count = mark.args[0] if mark else 1
  if jax.config.jax_num_cpu_devices != count:
    jax.clear_caches()
    backend.clear_backends()
    jax.config.update('jax_num_cpu_devices', count)


@pytest.fixture(scope='module', autouse=True)
def memory():
  """Compiled programs, of one module after the other, would fill it."""
  yield
  if _resident() > MEMORY:
    jax.clear_caches()
    gc.collect()


def _resident():
  """Memory of this process in GB; 0 where the system does not say."""
  try:
    with open('/proc/self/statm') as file:
      pages = int(file.read().split()[1])
  except OSError:
    return 0
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e9
