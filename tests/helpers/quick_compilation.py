"""Programs that run for milliseconds are compiled without optimization.

Compiling is most of the time of these tests, and takes a third of it this way.
"""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
