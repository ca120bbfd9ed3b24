"""Attention on whatever there is, split over the mesh around it."""

from jax.ad_checkpoint import checkpoint_name

from unitemp_jax.models.attention import backends, cudnn, masks, tiles, xla
from unitemp_jax.parallel import mesh_context
from unitemp_jax.shapes import Index, KeyMask, Keys, Queries


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
    masks.check(mask_BQS, q_BQNK.shape[1], k_BSNK.shape[1])
  return mesh_context.over_mesh(
    _on_one_device, q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS
  )


def _on_one_device(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS):
  arguments = (q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  backend = backends.backend_for(q_BQNK, k_BSNK, mask_BQS)
  if backend == 'splash':
    # Here, so that only TPUs wait for Pallas to be imported.
    from unitemp_jax.models.attention import splash

    interpret = mesh_context.platform() != 'tpu'
    return splash.attention(*arguments, _tiles(*arguments), interpret)
  if backend == 'cudnn':
    y = cudnn.attention(q_BQNK, k_BSNK, v_BSNK, kv_len)
  elif q_BQNK.shape[1] * k_BSNK.shape[1] < backends.LARGE:
    y = xla.attention(*arguments)
  else:
    y = xla.in_pieces(*arguments, logits=_tiles(*arguments).xla_logits)
  # The kernel of splash names what it keeps itself.
  return checkpoint_name(y, backends.RESIDUALS)


def _tiles(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS) -> tiles.Tiles:
  del v_BSNK, kv_len
  rows, columns = (1, 1) if mask_BQS is None else mask_BQS.shape[1:]
  return tiles.lookup(
    mesh_context.device_kind(),
    q_BQNK.shape[1] // rows,
    k_BSNK.shape[1] // columns,
    mask_BQS is not None,
  )
