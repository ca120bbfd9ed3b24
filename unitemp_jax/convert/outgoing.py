"""Export to PyTorch checkpoints, one tensor at a time."""

import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from unitemp_jax import files
from unitemp_jax.convert import checkpoints, fit, foreign_configs, keymap, wan
from unitemp_jax.convert.checkpoints import (
  DTYPES,
  NAMES,
  Tensor,
  file_size,
  streaming,
)
from unitemp_jax.convert.incoming import POLICIES, Progress
from unitemp_jax.errors import UserError, optional
from unitemp_jax.models import sizes, weights

TARGETS = ('diffusers', 'self_forcing', 'wan')

# A name that only this kind of network has, in our own files.
_OURS = {
  'dit': 'blocks.self_attn.q.kernel',
  'vae': 'encoder.conv_in.kernel',
  'umt5': 'token_embedding.embedding',
}
# Where diffusers' pipelines look: folder, stem, config.
_DIFFUSERS: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
  'dit': (
    *('transformer', 'diffusion_pytorch_model'),
    foreign_configs.dit_diffusers,
  ),
  'vae': ('vae', 'diffusion_pytorch_model', foreign_configs.vae_diffusers),
  'umt5': ('text_encoder', 'model', foreign_configs.umt5_transformers),
}
# Where the original repository looks for what is not the transformer.
_WAN = {'vae': 'Wan2.1_VAE.pth', 'umt5': 'models_t5_umt5-xxl-enc-bf16.pth'}


@dataclasses.dataclass(frozen=True)
class Network:
  """One of our networks in a file."""

  path: Path  # of the file
  kind: str  # 'dit', 'vae' or 'umt5'
  prefix: str  # of its names in the file
  shapes: Any  # tree of its shapes and types
  said: Mapping[str, Any]  # what the file says of its weights

  @property
  def field(self) -> str:
    """Its name in model cards and configs."""
    return {'umt5': 'text'}.get(self.kind, self.kind)

  def published(self) -> Any:
    """The published size that it has, or None."""
    there = keymap.plain_shapes(self.shapes)
    for config in fit.PRESETS[self.kind].values():
      if keymap.plain_shapes(sizes.param_shapes(config)) == there:
        return config
    return None

  def check(self, config: Any) -> None:
    """Refuses a config of another size."""
    wanted = keymap.plain_shapes(sizes.param_shapes(config))
    heads = weights.heads(self.said, self.field, self.prefix)
    if wanted != keymap.plain_shapes(self.shapes) or (
      heads not in (None, getattr(config, 'num_heads', None))
    ):
      raise UserError(
        f'{self.path} does not have the size that its config says; name the '
        'right one with --config.'
      )


def open_networks(path: Path) -> list[Network]:
  """Finds the networks in one of our weight files."""
  with weights.Files(path) as opened:
    said = opened.metadata
    names = {
      name: jax.ShapeDtypeStruct(shape, opened.dtype(name))
      for name, shape in opened.shapes.items()
    }
  found = []
  for kind, signature in _OURS.items():
    for name in names:
      if name == signature or name.endswith('.' + signature):
        prefix = name[: len(name) - len(signature)]
        flat = {
          n[len(prefix) :]: leaf
          for n, leaf in names.items()
          if n.startswith(prefix)
        }
        tree = traverse_util.unflatten_dict(flat, sep='.')
        found.append(Network(path, kind, prefix, tree, said))
  if not found:
    raise UserError(
      f'{path} holds none of our networks (its names begin with '
      f'{", ".join(sorted(names)[:3]) or "nothing"}); give a file that '
      '"unitemp train" or "unitemp convert" wrote.'
    )
  return found


def collect(
  model: Path, target: str, names: Sequence[str] | None = None
) -> list[Network]:
  """The networks to export; UserError if two of them would get one name.

  Args:
    model: a file of weights, or a model folder.
    target: of `TARGETS`.
    names: of a folder's files, such as `student`; None where it is a file.
  """
  paths = [model]
  if names is not None:
    paths = [model / f'{name.strip()}.safetensors' for name in names]
  networks = [network for path in paths for network in open_networks(path)]
  kinds = [network.kind for network in networks]
  twice = {kind for kind in kinds if kinds.count(kind) > 1}
  if twice:
    raise UserError(
      f'{model}: two networks of the kind {twice.pop()} would get one name; '
      'export them one by one, each to its own --out.'
    )
  if target == 'self_forcing' and kinds != ['dit']:
    raise UserError(
      'the layout self_forcing is for one transformer; choose it with '
      '--networks, and export the rest with --to=wan.'
    )
  return networks


def state_dict(
  network: Network, opened: weights.Files, layout: str, dtype: str = 'keep'
) -> dict[str, Tensor]:
  """Returns the PyTorch tensors of a network, to be read one at a time."""
  flat = keymap.flat_shapes(network.shapes)
  try:
    entries = keymap.entries(wan.TABLES[network.kind], layout, network.shapes)
  except ValueError as error:
    raise UserError(
      f'{network.path} is not quite a {network.kind} ({error}); give a file '
      'that "unitemp train" or "unitemp convert" wrote.'
    ) from error

  def read(
    entry: keymap.Entry, dtype: np.dtype, rows: slice | None
  ) -> np.ndarray:
    name = network.prefix + entry.path.replace('/', '.')
    if entry.layer is None:
      value = opened.read(name)
    else:
      rest = (slice(None),) * (len(flat[entry.path].shape) - 1)
      at = slice(entry.layer, entry.layer + 1)
      value = opened.read(name, (at, *rest))[0]
    value = weights.cast(value, dtype, name, network.path)
    value = np.ascontiguousarray(entry.pattern.to_torch(value))
    return value[rows or slice(None)]

  out = {}
  for entry in entries:
    kind = POLICIES[dtype] or NAMES[np.dtype(flat[entry.path].dtype)]
    load = functools.partial(read, entry, DTYPES[kind])
    out[entry.name] = Tensor(entry.shape, kind, load)
  return out


def export(
  network: Network,
  config: Any,
  target: str,
  out: Path,
  progress: Progress,
  *,
  dtype: str = 'keep',
  max_bytes: float = 1e10,
) -> list[Path]:
  """Writes a network as PyTorch tools load it, and returns the paths."""
  layout = 'diffusers' if target == 'diffusers' else 'wan'
  with weights.Files(network.path) as opened:
    tensors = state_dict(network, opened, layout, dtype)
    if pickled(network.kind, target):
      if target == 'wan':
        path, parts = out / _WAN[network.kind], ['']
      else:
        path = out / 'student.pt'
        parts = ['generator.model.', 'generator_ema.model.']
      return [write_pt(path, tensors, parts, progress)]
    if target == 'wan':
      folder, stem = out, 'diffusion_pytorch_model'
      fields = foreign_configs.dit_wan(config)
    else:
      name, stem, describe = _DIFFUSERS[network.kind]
      folder, fields = out / name, describe(config)
    about = {
      'exported': network.prefix + network.kind,
      'layout': target,
      'dtype': dtype,
      'fingerprint': _fingerprint(opened),
    }
    text, config_path = (
      json.dumps(fields, indent=2) + '\n',
      folder / 'config.json',
    )
    if os.path.lexists(config_path) and not (
      config_path.is_file() and config_path.read_bytes() == text.encode()
    ):
      raise UserError(
        f'{config_path} exists; delete it or choose another --out.'
      )
    heads = getattr(config, 'num_heads', None)
    paths = write_safetensors(
      folder, stem, tensors, about, heads, max_bytes, progress
    )
  return [*paths, files.write(config_path, text)]


def describe(
  network: Network, target: str, dtype: str, verbose: bool = False
) -> str:
  """What an export holds: a line, and with `verbose` one per tensor."""
  layout = 'diffusers' if target == 'diffusers' else 'wan'
  with weights.Files(network.path) as opened:
    tensors = state_dict(network, opened, layout, dtype)
  size = file_size(sum(map(_nbytes, tensors.values())))
  line = (
    f'{network.kind}: {len(tensors)} tensors in the layout {target}, {size}'
  )
  names = [f'  {n} {list(t.shape)} {t.dtype}' for n, t in tensors.items()]
  return '\n'.join([line, *(names if verbose else [])])


def pickled(kind: str, target: str) -> bool:
  """Whether a target wants a network of this kind as a `.pt`."""
  return target == 'self_forcing' or (target == 'wan' and kind != 'dit')


def _fingerprint(opened: weights.Files) -> str:
  """See `checkpoints.fingerprint`, of one of our files."""

  def load(rows: slice | None, name: str) -> np.ndarray:
    rest = (slice(None),) * (len(opened.shapes[name]) - 1)
    return opened.read(name, (rows or slice(None), *rest))

  return checkpoints.fingerprint(
    {
      name: Tensor(
        *(shape, NAMES[opened.dtype(name)]), functools.partial(load, name=name)
      )
      for name, shape in opened.shapes.items()
    }
  )


def write_safetensors(
  folder: Path,
  stem: str,
  tensors: Mapping[str, Tensor],
  about: Mapping[str, Any],
  heads: int | None,
  max_bytes: float,
  progress: Progress,
) -> list[Path]:
  """Writes `STEM.safetensors`, or parts of it and an index as PyTorch has.

  Files of the same `about`, which the headers keep, are left alone. The index
  comes last.
  """
  groups = list(_groups(tensors, max_bytes))
  metadata = {'format': 'pt', 'unitemp': json.dumps(about, sort_keys=True)}
  if heads is not None:
    metadata['config'] = json.dumps({'num_heads': heads})
  total = sum(map(_nbytes, tensors.values()))
  done, paths, where = 0, [], {}
  for number, group in enumerate(groups):
    name = f'{stem}.safetensors'
    if len(groups) > 1:
      name = f'{stem}-{number + 1:05}-of-{len(groups):05}.safetensors'
    paths.append(folder / name)
    where |= dict.fromkeys(group, name)
    if _is_same(folder / name, about):
      done += sum(_nbytes(tensors[n]) for n in group)
      continue
    specs = {n: (tensors[n].shape, DTYPES[tensors[n].kind]) for n in group}
    with streaming(folder / name, specs, metadata) as writer:
      for n in group:
        writer.write(n, 0, tensors[n].read())
        done += _nbytes(tensors[n])
        progress(done, total)
  if len(groups) > 1:
    paths.append(folder / f'{stem}.safetensors.index.json')
    fields = {'metadata': {'total_size': total}, 'weight_map': where}
    files.write_json(paths[-1], fields, indent=2)
  return paths


def _nbytes(tensor: Tensor) -> int:
  return int(np.prod(tensor.shape)) * DTYPES[tensor.kind].itemsize


def _groups(
  tensors: Mapping[str, Tensor], max_bytes: float
) -> Iterator[list[str]]:
  """Names in order, as many to a file as it may hold."""
  group: list[str] = []
  size = 0
  for name, tensor in tensors.items():
    if group and size + _nbytes(tensor) > max_bytes:
      yield group
      group, size = [], 0
    group.append(name)
    size += _nbytes(tensor)
  yield group


def _is_same(path: Path, about: Mapping[str, Any]) -> bool:
  """Whether a file is there from the same input; UserError if from another."""
  if not path.exists():
    return False
  with weights.Files(path) as opened:
    if opened.metadata == about:
      return True
  raise _other_weights(path)


def _other_weights(path: Path) -> UserError:
  return UserError(
    f'{path} holds other weights; remove it or choose another --out.'
  )


def require_torch() -> None:
  """Raises UserError unless PyTorch is there, which writes `.pt` files."""
  what = 'this layout is a .pt file, which PyTorch writes'
  with optional(what, 'torch', ', or use --to=diffusers'):
    import torch  # noqa: F401


def write_pt(
  path: Path,
  tensors: Mapping[str, Tensor],
  parts: list[str],
  progress: Progress,
) -> Path:
  """Writes a `.pt` by PyTorch, from a file in its place that is mapped.

  So the network need not be in memory as a whole, and twice its size must be
  free on the disk. `parts` are the dicts that hold the tensors, such as
  `generator.model.`: within `generator` names begin with `model.`; '' is the
  file itself.
  """
  require_torch()
  import torch

  if path.exists():
    there = checkpoints.open_checkpoint(path).tensors
    wanted = {p + name: t for p in parts for name, t in tensors.items()}
    if checkpoints.fingerprint(there) != checkpoints.fingerprint(wanted):
      raise _other_weights(path)
    return path
  total, done, made = sum(map(_nbytes, tensors.values())), 0, {}
  with (
    files.writing(path) as temporary,
    tempfile.TemporaryFile(dir=path.parent) as scratch,
  ):
    # All of it at once: a mapped file that cannot grow ends the process.
    os.posix_fallocate(scratch.fileno(), 0, max(total, 1))
    space = np.memmap(scratch, np.uint8, 'r+')
    # Wide types first, so that every array is aligned to its type.
    for name, tensor in sorted(
      tensors.items(), key=lambda item: -DTYPES[item[1].kind].itemsize
    ):
      kind, size = DTYPES[tensor.kind], _nbytes(tensor)
      values = space[done : done + size].view(kind).reshape(tensor.shape)
      values[...] = tensor.read()
      if tensor.kind == 'BF16':
        bits = torch.from_numpy(values.view(np.int16))
        made[name] = bits.view(torch.bfloat16)
      else:
        made[name] = torch.from_numpy(values)
      done += size
      progress(done, total)
    out: dict[str, Any] = {}
    for part in parts:
      outer, _, inner = part.partition('.')
      named = {inner + name: made[name] for name in tensors}
      out |= {outer: named} if outer else named
    torch.save(out, temporary)
  return path
