"""Which network a checkpoint holds, and whether all of it fits ours."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from unitemp_jax.convert import keymap, wan
from unitemp_jax.convert.tensors import Tensor
from unitemp_jax.errors import UserError

# What training code wraps around modules leaves these parts in names.
_WRAPPERS = ('_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_orig_mod')
# Of several networks in one file the first of these is meant.
_PREFERRED = ('generator_ema', 'generator')


@dataclasses.dataclass(frozen=True)
class Found:
  """One network within a checkpoint.

  Attributes:
    kind: 'dit', 'vae' or 'umt5'.
    layout: name of its layout.
    prefix: of its names in the checkpoint, empty or ending with a dot.
    tensors: by their name without prefix and wrappers.
    others: first parts of the names that belong to other things.
  """

  kind: str
  layout: str
  prefix: str
  tensors: Mapping[str, Tensor]
  others: tuple[str, ...]


def unwrap(name: str) -> str:
  """Returns a name without the parts that wrappers leave."""
  return '.'.join(p for p in name.split('.') if p not in _WRAPPERS)


def find(
  tensors: Mapping[str, Tensor],
  where: str,
  kind: str | None = None,
  layout: str | None = None,
  part: str | None = None,
) -> Found:
  """Finds a network by its names.

  Args:
    tensors: of the checkpoint.
    where: the checkpoint's name, for errors.
    kind: of the network wanted; None for any.
    layout: that it must have; None for any.
    part: first part of the prefix, such as 'generator' or 'critic', if the
      checkpoint holds several; None prefers the running mean.

  Raises:
    UserError: there is none, or several and no way to choose.
  """
  names: dict[str, Tensor] = {}
  for name, tensor in tensors.items():
    plain = unwrap(name)
    if plain in names:
      raise UserError(
        f'{where} holds {plain} twice, with and without wrappers; save the '
        'state dict of one model.'
      )
    names[plain] = tensor
  found = [f for f in _candidates(names) if kind in (None, f[0])]
  if layout is not None:
    found = [f for f in found if f[1] == layout]
  if part is not None:
    found = [f for f in found if f[2].split('.')[0] == part]
  if not found:
    raise UserError(_nothing_found(names, where, kind, layout, part))
  if len(found) > 1:
    for name in _PREFERRED:
      chosen = [f for f in found if f[2].split('.')[0] == name]
      if len(chosen) == 1:
        found = chosen
        break
    else:
      parts = ', '.join(
        prefix.split('.')[0] or kind for kind, _, prefix in found
      )
      raise UserError(
        f'{where} holds several networks ({parts}); name one with --part.'
      )
  kind, layout, prefix = found[0]
  inside, others = {}, set()
  for name, tensor in names.items():
    if name.startswith(prefix):
      inside[name[len(prefix) :]] = tensor
    elif name.split('.')[0] == prefix.split('.')[0]:
      inside[name] = tensor  # Within the same part: reported as unexpected.
    else:
      others.add(name.split('.')[0])
  return Found(kind, layout, prefix, inside, tuple(sorted(others)))


def _candidates(names: Iterable[str]) -> list[tuple[str, str, str]]:
  """(kind, layout, prefix) of every network whose signature is there."""
  out = []
  for name in names:
    for kind, table in wan.TABLES.items():
      for layout, signature in table.signatures.items():
        if name == signature or name.endswith('.' + signature):
          out.append((kind, layout, name[: len(name) - len(signature)]))
  return sorted(out)


def _nothing_found(
  names: Mapping[str, Tensor],
  where: str,
  kind: str | None,
  layout: str | None,
  part: str | None,
) -> str:
  there = [
    f'a {k} in the layout {l}' + (f' under {p.split(".")[0]!r}' if p else '')
    for k, l, p in _candidates(names)
  ]
  wanted = kind or 'network'
  if layout:
    wanted += f' in the layout {layout}'
  if part:
    wanted += f' under {part!r}'
  if there:
    return (
      f'{where} holds no {wanted}, but {", ".join(there)}; give another file '
      'or the option for what it holds.'
    )
  return (
    f'{where} holds no {wanted}: its names begin with '
    f'{", ".join(sorted(names)[:3])}; known are the layouts wan and diffusers.'
  )


def check(found: Found, shapes: Any, where: str) -> list[keymap.Entry]:
  """Returns every tensor's destination, if all of them fit.

  Args:
    found: the network of the checkpoint.
    shapes: tree of our shapes.
    where: the checkpoint's name, for errors.

  Raises:
    UserError: names all that is missing, unexpected, of another shape or of a
      type that weights do not have.
  """
  table = wan.TABLES[found.kind]
  entries = [
    _present(e, found.tensors)
    for e in keymap.entries(table, found.layout, shapes)
  ]
  problems: list[tuple[str, str]] = []
  known = set()
  for entry in entries:
    known |= {entry.name, entry.alias}
    tensor = found.tensors.get(entry.name)
    if tensor is None:
      problems.append((entry.name, 'is missing'))
    elif tensor.shape != entry.shape:
      has, wanted = list(tensor.shape), list(entry.shape)
      problems.append((entry.name, f'is {has} and should be {wanted}'))
    elif tensor.dtype is None:
      problems.append((entry.name, 'is of a type that weights do not have'))
  ignored = re.compile('|'.join(table.ignored) or r'(?!)')
  problems += [
    (name, 'is not expected')
    for name in sorted(found.tensors)
    if name not in known and not ignored.fullmatch(name)
  ]
  if problems:
    raise UserError(_listing(problems, found, where))
  return entries


def _present(
  entry: keymap.Entry, tensors: Mapping[str, Tensor]
) -> keymap.Entry:
  """Names an entry by its alias if that alone is there."""
  if entry.alias and entry.alias in tensors and entry.name not in tensors:
    return dataclasses.replace(entry, name=entry.alias, alias=entry.name)
  return entry


def _listing(problems: list[tuple[str, str]], found: Found, where: str) -> str:
  """All problems; what all layers share is one line."""
  groups: dict[tuple[str, str], list[str]] = {}
  for name, what in problems:
    shared = re.sub(r'(^|\.)(blocks?)\.\d+\.', r'\1\2.*.', name)
    groups.setdefault((shared, what), []).append(name)
  text = '\n'.join(
    f'  {names[0]} {what}'
    if len(names) == 1
    else f'  {shared} {what} ({len(names)} times)'
    for (shared, what), names in groups.items()
  )
  return (
    f'{where} does not fit the {found.kind} (read in the layout '
    f'{found.layout}): {len(problems)} of its names or shapes are wrong, and '
    f'nothing was written; use the checkpoint of this size.\n{text}'
  )
