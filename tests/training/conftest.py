import jax
import pytest

from unitemp_jax.training.program import CompiledSteps


@pytest.fixture(autouse=True)
def transfer_guard(monkeypatch):
  """A step moves nothing between host and devices; only the loop does."""
  take = CompiledSteps.__call__

  def guarded(self, *arguments, **options):
    with jax.transfer_guard('disallow'):
      return take(self, *arguments, **options)

  monkeypatch.setattr(CompiledSteps, '__call__', guarded)
