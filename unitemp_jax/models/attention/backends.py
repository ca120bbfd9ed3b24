"""Which backend computes attention.

splash  TPU: Pallas kernel that skips key blocks beyond the visible prefix
cudnn   NVIDIA: flash attention with key lengths
xla     anywhere; the reference that the others are tested against
"""

import contextlib
import contextvars
from collections.abc import Iterator

from unitemp_jax.errors import UserError

BACKENDS = ('xla', 'splash', 'cudnn')

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'attention_backend', default=None
)


@contextlib.contextmanager
def attention_backend(name: str) -> Iterator[None]:
  """Within it, what is traced computes attention with this backend.

  A jitted function keeps what it was traced with. Splash runs in interpret
  mode, slowly, on what is no TPU.

  Raises:
    UserError: there is no such backend.
  """
  if name not in BACKENDS:
    raise UserError(
      f'there is no attention backend {name!r}; use one of '
      f'{", ".join(BACKENDS)}.'
    )
  token = _chosen.set(name)
  try:
    yield
  finally:
    _chosen.reset(token)


def chosen() -> str | None:
  """Returns the backend of the innermost `attention_backend`, or None."""
  return _chosen.get()
