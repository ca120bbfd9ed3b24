"""Dataclasses from JSON, each value of the kind that its field says."""

import dataclasses
import types
import typing
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError


def from_json(kind: Any, value: Any) -> Any:
  """A dataclass of plain values, lists, tuples and tables of such, from JSON.

  ValueError for anything else. Keys that no field has are passed over, and so
  are those that have a default and are not there.
  """
  own, inner = typing.get_origin(kind), typing.get_args(kind)
  if own in (list, tuple) and isinstance(value, list):
    return own(from_json(inner[0], one) for one in value)
  if own is dict and isinstance(value, dict):
    return {key: from_json(inner[1], one) for key, one in value.items()}
  if own is types.UnionType:  # Or None.
    return None if value is None else from_json(inner[0], value)
  if not dataclasses.is_dataclass(kind) or not isinstance(value, dict):
    whole = kind is float and type(value) is int
    if kind is not Any and type(value) is not kind and not whole:
      raise ValueError(f'{value!r:.60} stands in it')
    return value
  hints, missing = typing.get_type_hints(kind), dataclasses.MISSING
  for field in dataclasses.fields(kind):
    default = field.default, field.default_factory
    if field.name not in value and default == (missing, missing):
      raise ValueError(f'it lacks {field.name!r}')
  known = {n: from_json(k, value[n]) for n, k in hints.items() if n in value}
  return kind(**known)  # type: ignore[operator]


def read(path: files.Name, kind: Any, what: str, mend: str) -> Any:
  """A dataclass from a file of JSON; UserError says `what` it is not."""
  try:
    return from_json(kind, files.read_json(path, what, mend))
  except ValueError as error:
    raise UserError(
      f'{path} cannot be read as {what} ({error}); {mend}.'
    ) from error
