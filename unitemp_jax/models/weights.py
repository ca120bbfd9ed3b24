"""Weights on disk: one safetensors file per network, names joined by dots.

Safetensors holds arrays and text only, so that reading a file cannot run code.
Files are written beside their target and renamed, so that a killed process
leaves no partial file.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from unitemp_jax.errors import UserError


def save(
  path: str | Path,
  params: Any,
  metadata: dict[str, Any] | None = None,
  dtype=np.float32,
) -> Path:
  """Writes a parameter tree atomically, cast to `dtype`; returns the path."""
  path = Path(path)
  flat = traverse_util.flatten_dict(params, sep='.')
  arrays = {
    name: np.asarray(jax.device_get(value)).astype(dtype)
    for name, value in sorted(flat.items())
  }
  text = {'unitemp': json.dumps(metadata or {}, sort_keys=True)}
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    safetensors.numpy.save_file(arrays, temporary, metadata=text)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def load(path: str | Path, shapes: Any) -> Any:
  """Reads a parameter tree in the shapes and dtypes of `shapes`.

  Args:
    path: a safetensors file.
    shapes: tree of arrays or ShapeDtypeStructs to read into.

  Raises:
    UserError: no such file, not safetensors, or other names or shapes.
  """
  path = Path(path)
  if not path.is_file():
    raise UserError(f'there are no weights at {path}; check the path.')
  try:
    arrays = safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError) as error:
    raise UserError(
      f'{path} cannot be read as safetensors ({error}); copy or write it again.'
    ) from error
  wanted = traverse_util.flatten_dict(shapes, sep='.')
  problems = [f'{n} is missing' for n in sorted(set(wanted) - set(arrays))]
  problems += [f'{n} is unknown' for n in sorted(set(arrays) - set(wanted))]
  problems += [
    f'{n} has shape {list(arrays[n].shape)}, wanted {list(wanted[n].shape)}'
    for n in sorted(set(wanted) & set(arrays))
    if tuple(arrays[n].shape) != tuple(wanted[n].shape)
  ]
  if problems:
    more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
    raise UserError(
      f'{path} does not fit the model: {"; ".join(problems[:3])}{more}; '
      'use the weights of this config or the config of these weights.'
    )
  flat = {n: jnp.asarray(arrays[n], wanted[n].dtype) for n in wanted}
  return traverse_util.unflatten_dict(flat, sep='.')
