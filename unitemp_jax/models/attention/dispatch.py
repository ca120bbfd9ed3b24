"""Attention on whatever there is, split over the mesh around it.

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

from jax.ad_checkpoint import checkpoint_name

from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import tiles, xla
from unitemp_jax.parallel import mesh_context
from unitemp_jax.shapes import Index, KeyMask, Keys, Queries

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
  if name == 'cudnn' and (mask_BQS is not None or not xla.cudnn_takes(q_BQNK)):
    return 'xla'
  if name == 'splash' and mask_BQS is not None:
    _, rows, columns = mask_BQS.shape
    if min(queries // rows, keys // columns) < _LANES:
      return 'xla'
  return name


def attention(
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None = None,
  mask_BQS: KeyMask | None = None,
) -> Queries:
  """Softmax attention, scale 1 / sqrt(K), logits in float32.

  Args:
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar; keys at and beyond it are not attended to. At least 1.
    mask_BQS: bool; True where a query may attend to a key, and everyone to
      something. B may be 1. It may be coarser than tokens, `[B, F, Fk]`: then
      an entry stands for Q / F queries and S / Fk keys, as for the frames of a
      video.

  Returns:
    `BQNK`, in the dtype of the queries.

  Raises:
    ValueError: rows or columns of the mask do not divide queries or keys.
  """
  if mask_BQS is not None:
    xla.check_mask(mask_BQS, q_BQNK.shape[1], k_BSNK.shape[1])
  return mesh_context.over_mesh(
    _on_one_device, q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS
  )


def _on_one_device(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS):
  arguments = (q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  backend = backend_for(q_BQNK, k_BSNK, mask_BQS)
  if backend == 'splash':
    # Here, so that only TPUs wait for Pallas to be imported.
    from unitemp_jax.models.attention import splash

    interpret = mesh_context.platform() != 'tpu'
    return splash.attention(*arguments, _tiles(*arguments), interpret)
  if backend == 'cudnn':
    y = xla.cudnn_attention(q_BQNK, k_BSNK, v_BSNK, kv_len)
  elif q_BQNK.shape[1] * k_BSNK.shape[1] < LARGE:
    y = xla.attention(*arguments)
  else:
    y = xla.in_pieces(*arguments, logits=_tiles(*arguments).xla_logits)
  # The kernel of splash names what it keeps itself.
  return checkpoint_name(y, xla.RESIDUALS)


def _tiles(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS) -> tiles.Tiles:
  del v_BSNK, kv_len
  rows, columns = (1, 1) if mask_BQS is None else mask_BQS.shape[1:]
  return tiles.lookup(
    mesh_context.device_kind(),
    q_BQNK.shape[1] // rows,
    k_BSNK.shape[1] // columns,
    mask_BQS is not None,
  )
