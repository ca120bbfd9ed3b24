"""Attention on whatever there is, split over the mesh around it.

Kernels (splash on TPUs, cuDNN on NVIDIA) take over from a size on, below which
XLA, the reference, is as fast. From that size on XLA computes in pieces;
without a mask and a gradient over tiles of keys, up to the last one that is
visible. cuDNN takes no masks and no float32, splash no masks of tokens, but of
frames of 128 tokens or more; XLA does what a kernel cannot.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from unitemp_jax.errors import check_known
from unitemp_jax.models.attention import tiles, xla
from unitemp_jax.parallel import mesh as device_mesh
from unitemp_jax.parallel.mesh import BATCH_AXES, TOKEN_AXIS
from unitemp_jax.shapes import AnyArray, Index, KeyMask, Keys, Queries

BACKENDS = ('xla', 'splash', 'cudnn')
# Tokens from which on a kernel is used; width of the heads that fill lanes.
_TOKENS, _LANES = 256, 128
# Logits per head and clip from which on XLA computes them in pieces.
LARGE = 2**22
# As many from which on it skips what is not visible, and keys per tile.
STREAMED = {'cpu': (2**16, 256), 'gpu': (LARGE, 1024)}

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
  check_known('there is no attention backend', name, BACKENDS)
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
    name = {'tpu': 'splash', 'gpu': 'cudnn'}.get(device_mesh.platform(), 'xla')
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
  whole: tuple[AnyArray, AnyArray, Index] | None = None,
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
    whole: keys and values `LBSNK` of all layers and the layer that the keys
      and values above are of; on TPUs they are read there, not sliced out.

  Returns:
    `BQNK`, in the dtype of the queries.

  Raises:
    ValueError: rows or columns of the mask do not divide queries or keys.
  """
  if mask_BQS is not None:
    xla.check_mask(mask_BQS, q_BQNK.shape[1], k_BSNK.shape[1])
  elif whole is not None and _reads_cache(q_BQNK, k_BSNK, whole[0]):
    return _over_mesh_cached(q_BQNK, k_BSNK, v_BSNK, *whole, kv_len)
  return _over_mesh(_on_one_device, q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)


def _reads_cache(q_BQNK, k_BSNK, k_LBSNK) -> bool:
  if backend_for(q_BQNK, k_BSNK, None) != 'splash':
    return False
  from unitemp_jax.models.attention import prefix

  mesh = jax.sharding.get_abstract_mesh()
  parts = 1 if mesh.manual_axes else mesh.shape.get(TOKEN_AXIS, 1)
  return q_BQNK.shape[2] % parts == 0 and prefix.takes(q_BQNK, k_LBSNK)


@jax.custom_vjp
def _from_cache(q_BQNK, k_BSNK, v_BSNK, k_LBSNK, v_LBSNK, layer, kv_len):
  """Reads the cache; a pass that is differentiated takes the slices."""
  from unitemp_jax.models.attention import prefix

  tiles = _tiles(q_BQNK, k_BSNK, v_BSNK, kv_len, None)
  interpret = device_mesh.platform() != 'tpu'
  return prefix.attention(
    q_BQNK, k_LBSNK, v_LBSNK, layer, kv_len, tiles, interpret
  )


def _from_cache_forward(q, k, v, k_LBSNK, v_LBSNK, layer, kv_len):
  del k_LBSNK, v_LBSNK, layer
  return jax.vjp(lambda q, k, v: _on_one_device(q, k, v, kv_len, None), q, k, v)


_from_cache.defvjp(
  _from_cache_forward, lambda pull, dy: (*pull(dy), None, None, None, None)
)


def _over_mesh_cached(q_BQNK, k_BSNK, v_BSNK, k_LBSNK, v_LBSNK, layer, kv_len):
  """`_from_cache` on every device, see `_over_mesh`; heads divide."""
  mesh = jax.sharding.get_abstract_mesh()
  numbers = [jnp.asarray(x, jnp.int32) for x in (layer, kv_len)]
  cache = jax.lax.stop_gradient((k_LBSNK, v_LBSNK))  # It flows in the slices.
  arguments = (q_BQNK, k_BSNK, v_BSNK, *cache, *numbers)
  if mesh.size <= 1 or mesh.manual_axes:
    return _from_cache(*arguments)
  row, none = _rows(mesh, q_BQNK.shape[0]), PartitionSpec()
  axis = TOKEN_AXIS if mesh.shape.get(TOKEN_AXIS, 1) > 1 else None
  own = PartitionSpec(row, None, axis)
  whole = PartitionSpec(None, row, None, axis)
  return jax.shard_map(
    _from_cache,
    in_specs=(own, own, own, whole, whole, none, none),
    out_specs=own,
    check_vma=False,
  )(*arguments)


def _on_one_device(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS):
  arguments = (q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  backend = backend_for(q_BQNK, k_BSNK, mask_BQS)
  if backend == 'splash':
    # Here, so that only TPUs wait for Pallas to be imported.
    from unitemp_jax.models.attention import splash

    interpret = device_mesh.platform() != 'tpu'
    return splash.attention(*arguments, _tiles(*arguments), interpret)
  if backend == 'cudnn':
    y = xla.cudnn_attention(q_BQNK, k_BSNK, v_BSNK, kv_len)
  elif mask_BQS is None and _tile(q_BQNK, k_BSNK):
    y = _streamed(q_BQNK, k_BSNK, v_BSNK, kv_len)
  else:
    y = _plain(*arguments)
  # The kernel of splash names what it keeps itself.
  return checkpoint_name(y, xla.RESIDUALS)


def _tile(q_BQNK, k_BSNK) -> int:
  """Keys per tile of `xla.streamed`; 0 where all keys at once are faster."""
  least, tile = STREAMED.get(device_mesh.platform(), (math.inf, 0))
  return tile if q_BQNK.shape[1] * k_BSNK.shape[1] >= least else 0


def _plain(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS):
  arguments = (q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  if q_BQNK.shape[1] * k_BSNK.shape[1] < LARGE:
    return xla.attention(*arguments)
  return xla.in_pieces(*arguments, logits=_tiles(*arguments).xla_logits)


@jax.custom_vjp
def _streamed(q_BQNK, k_BSNK, v_BSNK, kv_len):
  """Skips what is not visible; loops of unknown length have no gradient."""
  return xla.streamed(q_BQNK, k_BSNK, v_BSNK, kv_len, _tile(q_BQNK, k_BSNK))


def _streamed_forward(q, k, v, kv_len):
  return jax.vjp(lambda q, k, v: _plain(q, k, v, kv_len, None), q, k, v)


_streamed.defvjp(_streamed_forward, lambda pull, dy: (*pull(dy), None))


def _tiles(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS) -> tiles.Tiles:
  del v_BSNK, kv_len
  rows, columns = (1, 1) if mask_BQS is None else mask_BQS.shape[1:]
  return tiles.lookup(
    device_mesh.device_kind(),
    q_BQNK.shape[1] // rows,
    k_BSNK.shape[1] // columns,
    mask_BQS is not None,
  )


def _over_mesh(
  local: Callable[..., jax.Array],
  q_BQNK: Queries,
  k_BSNK: Keys,
  v_BSNK: Keys,
  kv_len: Index | None,
  mask_BQS: KeyMask | None,
) -> Queries:
  """Runs an attention on every device: its rows of the batch, and its heads.

  Kernels cannot be split by the compiler, so this is a `shard_map`. The batch
  is split over `data` and `fsdp` as far as it divides, heads over `context`: so
  a cache that is kept by heads never travels, and tokens that are split turn
  into heads by an all-to-all. Where heads do not divide, queries are split
  instead (padded, if they do not divide either), and every device has all keys.

  Args:
    local: attention of one device, with the arguments below.
    q_BQNK: queries.
    k_BSNK: keys.
    v_BSNK: values.
    kv_len: int scalar or None.
    mask_BQS: bool or None; see `attention`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  # Inside a shard_map the mesh is manual, and everything is local already.
  if mesh.size <= 1 or mesh.manual_axes:
    return local(q_BQNK, k_BSNK, v_BSNK, kv_len, mask_BQS)
  row = _rows(mesh, q_BQNK.shape[0])
  parts = mesh.shape.get(TOKEN_AXIS, 1)
  axis = TOKEN_AXIS if parts > 1 else None
  queries, heads = q_BQNK.shape[1:3]
  if heads % parts:
    q_BQNK, mask_BQS = _pad_queries(q_BQNK, mask_BQS, parts)
    split, keys, seen = PartitionSpec(row, axis), PartitionSpec(row), axis
  else:
    split, keys, seen = (
      PartitionSpec(row, None, axis),
      PartitionSpec(row, None, axis),
      None,
    )
  # What is not given is not an argument of the program either.
  given, specs = [q_BQNK, k_BSNK, v_BSNK], [split, keys, keys]
  if kv_len is not None:
    given.append(jnp.asarray(kv_len, jnp.int32))
    specs.append(PartitionSpec())
  if mask_BQS is not None:
    given.append(mask_BQS)
    specs.append(PartitionSpec(row if mask_BQS.shape[0] > 1 else None, seen))

  def run(q, k, v, *rest):
    left = list(rest)
    length = left.pop(0) if kv_len is not None else None
    mask = left.pop(0) if mask_BQS is not None else None
    return local(q, k, v, length, mask)

  y = jax.shard_map(
    run, in_specs=tuple(specs), out_specs=split, check_vma=False
  )(*given)
  return y[:, :queries]


def _rows(mesh: jax.sharding.AbstractMesh, batch: int) -> tuple[str, ...]:
  """The axes of the batch that it divides by."""
  axes, parts = [], 1
  for axis in BATCH_AXES:
    size = mesh.shape.get(axis, 1)
    if size > 1 and batch % (parts * size) == 0:
      axes.append(axis)
      parts *= size
  return tuple(axes)


def _pad_queries(
  q_BQNK: jax.Array, mask_BQS: jax.Array | None, parts: int
) -> tuple[jax.Array, jax.Array | None]:
  """Adds queries, under a mask whole rows of it, until they divide."""
  queries = q_BQNK.shape[1]
  rows = queries if mask_BQS is None else mask_BQS.shape[1]
  more = -rows % parts
  if not more:
    return q_BQNK, mask_BQS
  pad = ((0, 0), (0, more * (queries // rows)), (0, 0), (0, 0))
  if mask_BQS is not None:
    mask_BQS = jnp.pad(
      mask_BQS, ((0, 0), (0, more), (0, 0)), constant_values=True
    )
  return jnp.pad(q_BQNK, pad), mask_BQS
