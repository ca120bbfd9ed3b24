"""Programs of a module are compiled as users compile them."""

import jax
import pytest

FLAG = 'jax_disable_most_optimizations'


@pytest.fixture(scope='module', autouse=True)
def optimized():
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv(FLAG.upper())
    jax.config.update(FLAG, False)
    yield
  jax.config.update(FLAG, True)
