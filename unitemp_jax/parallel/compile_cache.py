"""Keeps compiled programs on disk, so that a restart does not compile again."""

import os
from pathlib import Path


def enable_compile_cache() -> Path:
  """Turns on jax's persistent cache and returns its folder.

  The folder is `$JAX_COMPILATION_CACHE_DIR`, or else `~/.cache/unitemp_jax`.
  """
  import jax  # Here, so that the command line's help does not wait for it.

  folder = Path(
    os.environ.get('JAX_COMPILATION_CACHE_DIR')
    or Path.home() / '.cache' / 'unitemp_jax'
  )
  jax.config.update('jax_compilation_cache_dir', str(folder))
  return folder
