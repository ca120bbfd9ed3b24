"""Which backend computes attention.

splash  TPU: Pallas kernel that skips key blocks beyond the visible prefix
cudnn   NVIDIA: flash attention with key lengths, in half precision
xla     anywhere; the reference that the others are tested against

Kernels take over from a size on, below which XLA is as fast. From that size on
XLA computes in pieces. Where a kernel cannot, XLA does it:

* cuDNN takes no masks and no float32;
* splash takes masks of frames of 128 tokens or more, not masks of tokens.
"""

import contextlib
import contextvars
from collections.abc import Iterator

from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import cudnn
from unitemp_jax.parallel import mesh_context
from unitemp_jax.shapes import KeyMask, Keys, Queries

# Name of what the backward pass needs of the forward one, for remat policies:
# `jax.checkpoint_policies.save_only_these_names(RESIDUALS)`.
RESIDUALS = 'attention'
BACKENDS = ('xla', 'splash', 'cudnn')
# Tokens from which on a kernel is used; width of the heads that fill lanes.
_TOKENS, _LANES = 256, 128
# Logits per head and clip from which on XLA computes them in pieces.
LARGE = 2**22

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


def backend_for(q_BQNK: Queries, k_BSNK: Keys, mask_BQS: KeyMask | None) -> str:
  """Returns the backend of a call: the chosen one, else by hardware and size.

  Either way XLA, if a kernel cannot.
  """
  queries, keys = q_BQNK.shape[1], k_BSNK.shape[1]
  name = _chosen.get()
  if name is None:
    name = {'tpu': 'splash', 'gpu': 'cudnn'}.get(mesh_context.platform(), 'xla')
    full = name == 'cudnn' or q_BQNK.shape[-1] % _LANES == 0
    if min(queries, keys) < _TOKENS or not full:
      return 'xla'
  if name == 'cudnn' and (mask_BQS is not None or not cudnn.takes(q_BQNK)):
    return 'xla'
  if name == 'splash' and mask_BQS is not None:
    _, rows, columns = mask_BQS.shape
    if min(queries // rows, keys // columns) < _LANES:
      return 'xla'
  return name
