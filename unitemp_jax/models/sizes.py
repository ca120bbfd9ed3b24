"""Sizes of networks: their names, what they may be, and parameter shapes."""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unitemp_jax import timeline
from unitemp_jax.models import params
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.umt5 import TextConfig, TextEncoder
from unitemp_jax.models.vae3d import VAE, VAEConfig

# Sizes in model cards and configs from before they had the field's names.
CURRENT_NAMES = {
  'width': 'dim',
  'ffn_width': 'ffn_dim',
  'heads': 'num_heads',
  'layers': 'num_layers',
  'text_width': 'text_dim',
  'freq_width': 'freq_dim',
}
FORMER_NAMES = {new: old for old, new in CURRENT_NAMES.items()}


def rename(
  fields: Mapping[str, Any],
  names: Mapping[str, str] = CURRENT_NAMES,
  network: bool = False,
) -> dict[str, Any]:
  """Renames the sizes of transformers and text encoders in a plain tree.

  Args:
    fields: a model card or a config, or with `network` one network's sizes.
    names: new name of each; others stay.
    network: whether `fields` are sizes, and not what holds them as `dit` and
      `text` on any level.
  """
  return {
    names.get(key, key) if network else key: rename(
      value, names, key in ('dit', 'text')
    )
    if isinstance(value, Mapping)
    else value
    for key, value in fields.items()
  }


def config_from(kind: type, fields: Mapping[str, Any]) -> Any:
  """Returns the dataclass `kind` of a network's sizes; lists become tuples.

  Raises:
    TypeError: a name that the dataclass does not have, or one size twice.
  """
  values = rename(fields, network=True)
  if len(values) < len(fields):
    twice = ', '.join(n for n in CURRENT_NAMES if n in fields)
    raise TypeError(f'{twice} are former names of what is there as well')
  check_names(kind, values)
  return kind(
    **{
      name: tuple(value) if isinstance(value, list | tuple) else value
      for name, value in values.items()
    }
  )


def check_names(kind: type, values: Mapping[str, Any]) -> None:
  """Refuses, by TypeError, names that a dataclass lacks, and their lack."""
  known = {field.name: field for field in dataclasses.fields(kind)}
  for name in values:
    if name not in known:
      raise TypeError(f'{name!r:.60} is no key of this version')
  for name, field in known.items():
    if name not in values and field.default is field.default_factory:
      former = {**FORMER_NAMES, 'guidance_scale': 'guidance'}.get(name)
      own = f', formerly {former}' if former else ''
      raise TypeError(f'it lacks {name}{own}')


_LARGEST = 2**20  # of any size; a mistake or an attack beyond
_DTYPES = ('float32', 'bfloat16', 'float16')


def misfits(value: Any, kind: Any, name: str) -> str | None:
  """Says what is wrong with the type or range of a value, None if nothing."""
  if dataclasses.is_dataclass(value):
    hints = typing.get_type_hints(type(value))
    found = (
      misfits(getattr(value, field), hint, f'{name}.{field}'.lstrip('.'))
      for field, hint in hints.items()
    )
    return next(filter(None, found), None)
  if typing.get_origin(kind) is tuple:
    item = typing.get_args(kind)[0]
    if not isinstance(value, tuple):
      return f'{name} is {value!r:.60}, not a list'
    return next(filter(None, (misfits(v, item, name) for v in value)), None)
  if value is None and type(None) in typing.get_args(kind):
    return None
  if float in (kind, *typing.get_args(kind)):
    if type(value) not in (int, float) or value != value:
      return f'{name} is {value!r:.60}, not a number'
    return f'{name} is {value!r:.60}, too large' if abs(value) >= 1e9 else None
  if int in (kind, *typing.get_args(kind)):
    if type(value) is not int:
      return f'{name} is {value!r:.60}, not a whole number'
    return (
      f'{name} is {value!r:.60}, too large' if abs(value) > _LARGEST else None
    )
  if kind in (bool, str) and type(value) is not kind:
    wanted = 'a text' if kind is str else 'true or false'
    return f'{name} is {value!r:.60}, not {wanted}'
  return None


def problem_of(
  config: DiTConfig | VAEConfig | TextConfig, name: str
) -> str | None:
  """Says why no network can have these sizes, None if one can.

  Args:
    config: of the network.
    name: of it, such as 'vae'.
  """
  wrong = misfits(config, type(config), name)
  if wrong:
    return wrong
  fields = dataclasses.asdict(config)
  choices = {'conv_form': ('auto', 'direct', 'folded')}
  choices |= dict.fromkeys(('decode_dtype', 'dtype'), _DTYPES)
  for field, value in fields.items():
    if (type(value) is int or field == 'rope_theta') and value <= 0:
      return f'{name}.{field} is {value} and must be above 0'
    if field in choices and value not in choices[field]:
      listed = ', '.join(choices[field])
      return f'{name}.{field} is {value!r:.60}, not one of {listed}'
  for field, most in (('num_layers', 1000), ('num_res_blocks', 16)):
    if (deep := fields.get(field, 0)) > most:
      return f'{name}.{field} is {deep}, which is too many; use up to {most}'
  if isinstance(config, DiTConfig) and config.dim % (2 * config.num_heads):
    return (
      f'{name}.dim {config.dim} does not divide into {config.num_heads} heads '
      'of an even size'
    )
  return (
    _problem_of_vae(config, name) if isinstance(config, VAEConfig) else None
  )


def _problem_of_vae(vae: VAEConfig, name: str) -> str | None:
  if vae.base_dim < 2:  # The decoder halves it.
    return f'{name}.base_dim is {vae.base_dim}; use 2 or more'
  if min((1, *vae.dim_mult)) < 1 or not (
    len(vae.temporal_down) == len(vae.dim_mult) - 1 <= 8
  ):
    return f'{name}.dim_mult and {name}.temporal_down do not fit each other'
  if vae.temporal_stride != timeline.STRIDE:
    return (
      f'{name}.temporal_down makes a latent of every {vae.temporal_stride} '
      f'frames, and this version plans with {timeline.STRIDE} (two of it true)'
    )
  statistics = {len(vae.latent_mean), len(vae.latent_std)}
  if not statistics <= {0, vae.z_dim} or min((1, *vae.latent_std)) <= 0:
    return (
      f'{name}.latent_mean and {name}.latent_std are not {name}.z_dim numbers, '
      'or 0'
    )
  return None


def param_shapes(config: DiTConfig | VAEConfig | TextConfig, dtype=None) -> Any:
  """The tree of shapes that a network of this size has.

  Args:
    config: of the transformer, the VAE or the text encoder.
    dtype: of the leaves; default is what training uses, float32.
  """

  def as_asked(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype or leaf.dtype))

  return jax.tree.map(as_asked, _traced(config))


@functools.cache
def _traced(config: DiTConfig | VAEConfig | TextConfig) -> Any:
  def of(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)

  if isinstance(config, DiTConfig):
    latents = of(1, 1, config.patch, config.patch, config.channels)
    arguments = latents, of(1, 1), of(1, dtype=jnp.int32)
    arguments = *arguments, of(1, 1, config.text_dim)
    # Layers are alike: one is traced, however many a turn of the scan runs.
    network, method = DiT(dataclasses.replace(config, unroll=1)), 'init_all'
  elif isinstance(config, VAEConfig):
    stride = config.spatial_stride
    frames = 1 + config.temporal_stride
    arguments = (of(1, frames, stride, stride, 3),)
    network, method = VAE(config), None
  else:
    arguments = of(1, 1, dtype=jnp.int32), of(1, 1, dtype=jnp.bool_)
    network, method = TextEncoder(config), None

  def init(*arguments):
    return network.init(jax.random.key(0), *arguments, method=method)

  return params.shapes(init, *arguments)['params']


# Used in float32 whatever a transformer computes in.
_FLOAT32 = ('time_in', 'time_out', 'time_projection', 'head')
# Of a VAE, which encodes in float32.
_ENCODER = ('encoder', 'to_moments')


def inference_shapes(config: DiTConfig | VAEConfig | TextConfig) -> Any:
  """The shapes of a network that is used and not trained.

  Kernels are held in the dtype that they are used in; vectors, tables and what
  is computed in float32 stay in float32.
  """
  if isinstance(config, VAEConfig):
    dtype, others = jnp.dtype(config.decode_dtype), _ENCODER
  else:
    dtype, others = jnp.dtype(config.dtype), _FLOAT32

  def held(path, leaf):
    kernel = path[-1].key in ('kernel', 'embedding')
    used = kernel and path[0].key not in others
    return jax.ShapeDtypeStruct(leaf.shape, dtype if used else jnp.float32)

  return jax.tree_util.tree_map_with_path(held, param_shapes(config))


def num_bytes(shapes: Any) -> int:
  """Bytes of a tree of arrays or shapes."""
  leaves = jax.tree.leaves(shapes)
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def count(shapes: Any) -> int:
  """Numbers in a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
