"""The device mesh: sharding of parameters, batches and activations over it.

Rules shard trees of parameters. Activations are split by the mesh around a
computation, jax's own from `jax.set_mesh`; nothing is handed down for it. From
it models read what they run on, and which axes there are; without a mesh it is
jax's default backend, unsplit.

Rows of a batch are split over `data` and `fsdp`, the tokens of every frame over
`context`: what belongs to a frame, such as its noise level, meets its tokens on
every device. Attention needs every key of a row, so there the heads are split
over `context` instead: going from one to the other is an all-to-all, and a
cache that is kept by heads never travels. `split_heads` and `join_heads` state
both sides of it, because a compiler that is told only one of them adds up whole
activations instead.
"""

import contextlib
import contextvars
import functools
import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.sharding import PartitionSpec as P

from unitemp_jax.errors import UserError

BATCH_AXES = ('data', 'fsdp')  # rows of a batch are split over these
TOKEN_AXIS = 'context'  # and the tokens of a video over this, here its heads
AXES = (*BATCH_AXES, TOKEN_AXIS)
_HEADS_FIRST = Layout(major_to_minor=(0, 1, 3, 2, 4))  # of `LBSNK`

MOST_ROWS = 2**20  # of a batch

# (regex searched in the path of a leaf, how the leaf is split); the first match
# wins. Vectors and scalars need no rule: they are replicated.
Rules = tuple[tuple[str, PartitionSpec], ...]

# A scan over layers stacks the parameters of all layers along a leading axis,
# under a module called `blocks`.
_LAYER_STACK = re.compile(r'(^|/)blocks/')
_local: contextvars.ContextVar[bool] = contextvars.ContextVar('local')


def hush_libtpu() -> None:
  """Keeps libtpu from logging alarming lines about a TPU that is not there."""
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_HOST_BOUNDS', '1,1,1')


if os.environ.get('TPU_SKIP_MDS_QUERY') == '1' and not any(
  glob.glob(path) for path in ('/dev/accel*', '/dev/vfio/*')
):
  hush_libtpu()  # jax found no chips when it was imported, and has set that.


def path_name(key_path) -> str:
  """Returns a jax key path as `a/b/c`, the form that rules are written for."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def rank_in_layer(path: str, leaf) -> int:
  """Returns the number of axes of `leaf`, not counting a stack of layers."""
  return leaf.ndim - bool(_LAYER_STACK.search(path))


@contextlib.contextmanager
def local_mesh() -> Iterator[None]:
  """Context in which a process makes meshes of its own devices only.

  So one of several processes can run what the others do not take part in.
  """
  token = _local.set(True)
  try:
    yield
  finally:
    _local.reset(token)


def make_mesh(
  shape: Mapping[str, int], devices: Sequence[Any] | None = None
) -> Mesh:
  """Returns a mesh with the axes `data`, `fsdp` and `context`.

  Rows of a batch are split over `data` and `fsdp`, the tokens of a row over
  `context`, parameters over `fsdp` and `context`. Neighbours along `context`,
  which talk most, are near each other; slices of a pod, which are far from each
  other, differ along `data`.

  Args:
    shape: axis -> size; a missing axis has size 1, and one axis may be -1,
      which means all devices that are left.
    devices: all of them by default; those of a topology to compile for it.

  Raises:
    UserError: an unknown axis, or sizes that the devices cannot fill.
  """
  unknown = sorted(set(shape) - set(AXES))
  if unknown:
    raise UserError(f'mesh has no axis {unknown[0]!r}; use {", ".join(AXES)}.')
  sizes = [int(shape.get(axis, 1)) for axis in AXES]
  own = _local.get(False) or jax.process_count() == 1
  if devices is None:
    devices = jax.local_devices() if own else jax.devices()
  given = math.prod(size for size in sizes if size != -1)
  fits = sizes.count(-1) <= 1 and given >= 1 and len(devices) % given == 0
  if -1 in sizes and fits:
    sizes[sizes.index(-1)] = len(devices) // given
  # Several processes must all take part, so only one may leave devices idle.
  whole = math.prod(sizes) == len(devices) or own
  if min(sizes) < 1 or math.prod(sizes) > len(devices) or not whole:
    context = math.gcd(max(sizes[2], 1), len(devices))
    data = math.gcd(max(sizes[0], 1), len(devices) // context)
    raise UserError(
      f'mesh {dict(zip(AXES, sizes, strict=True))} does not fit the '
      f'{len(devices)} devices there are; use data={data}, fsdp=-1, '
      f'context={context} (of a config: --config.mesh.context={context}).'
    )
  types = (AxisType.Auto,) * len(AXES)
  used = devices[: math.prod(sizes)]
  slices = {getattr(device, 'slice_index', 0) for device in used}
  if used[0].platform == 'tpu' and len(slices) > 1:
    return Mesh(_over_slices(sizes, used, len(slices)), AXES, axis_types=types)
  try:
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=used)
  except NotImplementedError:  # An axis that is part of one of the torus.
    placed = mesh_utils.create_device_mesh(
      sizes, used, allow_split_physical_axes=True
    )
  return Mesh(placed, AXES, axis_types=types)


def _over_slices(sizes: list[int], devices, slices: int) -> np.ndarray:
  data, *others = sizes
  if data % slices:
    raise UserError(
      f'config.mesh.data is {data}, which does not divide over the {slices} '
      'slices; only `data` may reach from slice to slice.'
    )
  return mesh_utils.create_hybrid_device_mesh(
    (data // slices, *others),
    (slices, *(1 for _ in others)),
    devices,
    allow_split_physical_axes=True,
  )


def matching_rules(path: str, rules: Rules) -> list[int]:
  """Returns the indices of all rules that match `path`, in table order."""
  return [i for i, (regex, _) in enumerate(rules) if re.search(regex, path)]


def _spec_of(path: str, leaf: Any, mesh: Mesh, rules: Rules) -> PartitionSpec:
  matches = matching_rules(path, rules)
  if not matches:
    if rank_in_layer(path, leaf) <= 1:
      return PartitionSpec()
    raise ValueError(
      f'No sharding rule for {path} {leaf.shape}; name it in MODEL_RULES.'
    )
  spec = rules[matches[0]][1]
  if len(spec) > leaf.ndim:
    raise ValueError(
      f'Rule {rules[matches[0]]} has more axes than {path} {leaf.shape}.'
    )
  for size, axes in zip(leaf.shape, spec, strict=False):
    names = axes if isinstance(axes, tuple) else (axes,)
    parts = math.prod(mesh.shape[name] for name in names if name)
    if size % parts:
      raise UserError(
        f'The parameter {path} {tuple(leaf.shape)} cannot be split {spec}: '
        f'{size} does not divide by {parts}; change config.mesh.'
      )
  return spec


def shardings_for(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Returns a NamedSharding for each leaf of `tree`, by the first rule.

  Optimizer states and running means follow their parameter, because a rule is
  searched anywhere in the path and theirs ends like the parameter's.

  Args:
    tree: arrays or their shapes (`jax.eval_shape`).
    mesh: from `make_mesh`.
    rules: see `Rules`.

  Raises:
    ValueError: a leaf with two or more axes (after the layers) has no rule.
    UserError: a sharded axis does not divide; names the leaf.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(
      mesh, _spec_of(path_name(path), leaf, mesh, rules)
    ),
    tree,
  )


def placed(shapes: Any, mesh: Mesh, rules: Rules) -> Any:
  """Returns ShapeDtypeStructs like `shapes`, with `shardings_for` them."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings_for(shapes, mesh, rules),
  )


def on(mesh: Mesh | None, jitted: Callable[..., Any]) -> Callable[..., Any]:
  """A jitted function whose activations a mesh splits, if there is one."""
  if mesh is None:
    return jitted

  @functools.wraps(jitted)
  def call(*arguments, **options):
    with jax.set_mesh(mesh):
      return jitted(*arguments, **options)

  return call


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: rows over `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def cache_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
  """Returns how a cache `LBSNK` of this shape lies, see `split_cache`."""
  batch, heads = row_parts(mesh), mesh.shape[TOKEN_AXIS]
  rows = BATCH_AXES if shape[1] % batch == 0 else None
  axis = TOKEN_AXIS if shape[3] % heads == 0 else None
  return NamedSharding(mesh, PartitionSpec(None, rows, None, axis))


def row_parts(mesh: Mesh) -> int:
  """Returns into how many parts the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh: Mesh, batch_size: int, accumulate: int = 1) -> np.ndarray:
  """Returns which rows of a global batch lie on this process, ascending.

  Raises:
    UserError: the rows of a micro-batch do not divide over the devices.
  """
  check_rows(batch_size, mesh, accumulate)
  places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  rows = [np.arange(batch_size)[place] for place in places.values()]
  return np.unique(np.concatenate(rows))


def check_rows(rows: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Refuses rows whose micro-batches do not divide over the devices.

  Raises:
    UserError: names the settings that would do.
  """
  parts = row_parts(mesh)
  if rows > MOST_ROWS:
    raise UserError(f'A batch of {rows} is too large; use at most {MOST_ROWS}.')
  if min(rows, accumulate) > 0 and rows % (parts * accumulate) == 0:
    return
  mends = []
  if rows > 0:
    passes = [n for n in _divisors(rows // parts) if n <= accumulate]
    if rows % parts == 0 and passes:
      mends.append(f'accumulate={passes[-1]}')
    contexts = [
      n
      for n in _divisors(mesh.size)
      if accumulate > 0 and rows % (mesh.size // n * accumulate) == 0
    ]
    mends += [f'mesh.context={n}' for n in contexts[:1]]
  least = parts * max(accumulate, 1)
  mends.append(f'batch_size={max(round(rows / least), 1) * least}')
  passes_ = f' in {accumulate} passes' if accumulate != 1 else ''
  raise UserError(
    f'A batch of {rows}{passes_} does not divide over {parts} devices (data '
    f'times fsdp); use {" or ".join(f"--config.{one}" for one in mends)}.'
  )


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]


def put_batch(local_batch: Any, mesh: Mesh) -> Any:
  """Returns the global batch made of every process's local one.

  Args:
    local_batch: tree of numpy arrays, the rows that `local_rows` names.
    mesh: from `make_mesh`.

  Raises:
    UserError: the rows do not divide over the devices.
    ValueError: an array holds strings or objects.
  """
  sharding = batch_sharding(mesh)
  parts = row_parts(mesh)
  places = sharding.addressable_devices_indices_map((parts,))
  here = len({place[0].indices(parts) for place in places.values()})

  def put(path, leaf):
    leaf = np.asarray(leaf)
    if leaf.dtype.kind not in 'biufV':
      raise ValueError(
        f'The loader yields {leaf.dtype} for {path_name(path)}; a batch holds '
        'numbers only.'
      )
    rows = leaf.shape[0] * parts // here
    check_rows(rows, mesh)
    return jax.make_array_from_process_local_data(
      sharding, leaf, (rows, *leaf.shape[1:])
    )

  return jax.tree_util.tree_map_with_path(put, local_batch)


WIDTH = ('fsdp', TOKEN_AXIS)  # what the width is split over

# How the parameters of our models are split. Patterns end with the parameter's
# name and are searched in the whole path, so that optimizer states and running
# means meet the same rule. The model width D, the one size that all large
# kernels share, is split over `fsdp` and `context`; stacked layers lead with L.
# Biases, scales and other vectors need no rule.
MODEL_RULES: Rules = (
  # DiT layers: [L, D, ...] in, [L, ..., D] out, modulation [L, 6, D].
  (r'(^|/)blocks/\w+_attn/[qkv]/kernel$', P(None, WIDTH)),
  (r'(^|/)blocks/\w+_attn/o/kernel$', P(None, None, WIDTH)),
  (r'(^|/)blocks/ffn_up/kernel$', P(None, WIDTH)),
  (r'(^|/)blocks/ffn_down/kernel$', P(None, None, WIDTH)),
  (r'(^|/)blocks/modulation$', P()),
  # Around them: into the width, [..., D], and out of it, [D, ...].
  (r'(^|/)(patch_embedding|(text|time)_(in|out))/kernel$', P(None, WIDTH)),
  (r'(^|/)time_projection/kernel$', P(WIDTH)),
  (r'(^|/)head/kernel$', P(WIDTH)),
  (r'(^|/)head_modulation$', P()),
  # Text encoder: [D, ...] in, [..., D] out, one module per layer.
  (r'(^|/)layer\d+/(q|k|v|gate|up)/kernel$', P(WIDTH)),
  (r'(^|/)layer\d+/(o|down)/kernel$', P(None, WIDTH)),
  (r'(^|/)layer\d+/relative_bias$', P()),
  (r'(^|/)token_embedding/embedding$', P(None, WIDTH)),
  # A prompt that guidance leads away from, one row of a batch.
  (r'(^|/)negative/(text|ids|mask)$', P()),
  # The VAE is small and its channels are uneven: every device holds it whole.
  (r'(^|/)(encoder|decoder)/(\w+/)*kernel$', P()),
  (r'(^|/)(to_moments|from_latents)/kernel$', P()),
)


def platform() -> str:
  """Returns what is computed on: 'cpu', 'tpu', 'gpu' ('cuda' is 'gpu' here)."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  name = jax.default_backend() if device is None else device.platform
  return 'gpu' if name == 'cuda' else name


def device_bytes() -> float | None:
  """Memory of a device of this process; None of a host, or if unknown."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    return None
  return (device.memory_stats() or {}).get('bytes_limit')


def device_kind() -> str:
  """Returns the name of the hardware, for example 'TPU v5 lite'."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.devices()[0].device_kind if device is None else device.device_kind


def _constrain(x: jax.Array, axes: dict[int, tuple[str, ...]]) -> jax.Array:
  """Splits axes of `x` where they divide; leaves the rest to the compiler."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or not set(AXES) <= set(mesh.axis_names):
    return x
  spec: list = [None] * x.ndim
  for axis, names in axes.items():
    parts = math.prod(mesh.shape[name] for name in names)
    even = x.shape[axis] % parts == 0
    spec[axis] = names if even else PartitionSpec.UNCONSTRAINED
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def split_tokens(x: jax.Array) -> jax.Array:
  """`[B, F, S, ...]` with rows and the tokens S of a frame split."""
  return _constrain(x, {0: BATCH_AXES, 2: (TOKEN_AXIS,)})


def split_rows(x: jax.Array) -> jax.Array:
  """`[B, ...]` with rows split, all that is split of a VAE."""
  return _constrain(x, {0: BATCH_AXES})


def split_heads(x: jax.Array) -> jax.Array:
  """`[B, F, S, N, K]`, split by tokens before, with rows and heads split."""
  return _constrain(split_tokens(x), {0: BATCH_AXES, 3: (TOKEN_AXIS,)})


def join_heads(x: jax.Array) -> jax.Array:
  """`[B, F, S, N, K]` as attention leaves it, with rows and tokens split."""
  return split_tokens(_constrain(x, {0: BATCH_AXES, 3: (TOKEN_AXIS,)}))


def split_cache(x: jax.Array) -> jax.Array:
  """`LBSNK` with rows and heads split; on TPU heads lie before slots.

  So attention reads them, and no tile is padded. It is said wherever a cache is
  made or written to, so that no loop has another opinion and copies all of it.
  """
  x = _constrain(x, {1: BATCH_AXES, 3: (TOKEN_AXIS,)})
  if platform() != 'tpu':
    return x
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.size <= 1:
    return with_layout_constraint(x, _HEADS_FIRST)
  rows, heads = (
    math.prod(mesh.shape.get(name, 1) for name in names)
    for names in (BATCH_AXES, (TOKEN_AXIS,))
  )
  if mesh.manual_axes or x.shape[1] % rows or x.shape[3] % heads:
    return x
  spec = PartitionSpec(None, BATCH_AXES, None, TOKEN_AXIS)
  return jax.shard_map(
    lambda part: with_layout_constraint(part, _HEADS_FIRST),
    in_specs=spec,
    out_specs=spec,
    check_vma=False,
  )(x)


def enable_compile_cache() -> Path:
  """Turns on jax's persistent cache and returns its folder.

  The folder is `$JAX_COMPILATION_CACHE_DIR`, or else `~/.cache/unitemp_jax`.
  """
  folder = Path(
    os.environ.get('JAX_COMPILATION_CACHE_DIR')
    or Path.home() / '.cache' / 'unitemp_jax'
  )
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # A command runs dozens of small programs, which take seconds together.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  return folder
