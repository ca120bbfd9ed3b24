"""Recognition of the networks in a checkpoint, and checks of their shapes."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from unitemp_jax.convert import keymap, quantised, wan
from unitemp_jax.convert.checkpoints import Checkpoint, Tensor
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig

# Statistics of the latents (wan/modules/vae.py).
LATENT_MEAN = (
  *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
  *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
  *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
  *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

# Published sizes: kind -> name -> config.
PRESETS: dict[str, dict[str, Any]] = {
  'dit': {
    'Wan 2.1 T2V 1.3B': DiTConfig(),
    'Wan 2.1 T2V 14B': DiTConfig(
      dim=5120, ffn_dim=13824, num_heads=40, num_layers=40
    ),
  },
  'vae': {
    'Wan 2.1 VAE': VAEConfig(latent_mean=LATENT_MEAN, latent_std=LATENT_STD)
  },
  'umt5': {'UMT5-XXL': TextConfig()},
}

# What training code wraps around modules leaves these parts in names.
_WRAPPERS = ('_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_orig_mod')
# Of several networks in one file the first of these is meant.
_PREFERRED = ('generator_ema', 'generator')
# What only checkpoints have that condition on images by extra inputs.
_IMAGE_NAMES = ('img_emb.', 'condition_embedder.image_embedder.')
_LORA = re.compile(r'(^|[._])lora[._]|\.hada_')


@dataclasses.dataclass(frozen=True)
class Found:
  """One network within a checkpoint."""

  where: str  # the checkpoint's name, for messages
  kind: str  # 'dit', 'vae' or 'umt5'
  layout: str  # name of its layout
  prefix: str  # of its names in the checkpoint, empty or ending with a dot
  tensors: Mapping[str, Tensor]  # by their name without prefix and wrappers
  # First parts of the names that belong to other things.
  others: tuple[str, ...]
  heads: int | None  # that the file itself says it has, None if it does not
  exported: bool  # whether it was written by `unitemp convert --to`
  # What was merged into it (see `lora.merge`), in this order.
  loras: tuple[Mapping[str, Any], ...] = ()


def unwrap(name: str) -> str:
  """Returns a name without the parts that wrappers leave."""
  return '.'.join(p for p in name.split('.') if p not in _WRAPPERS)


def find(
  checkpoint: Checkpoint,
  kind: str | None = None,
  layout: str | None = None,
  part: str | None = None,
) -> Found:
  """Finds a network by its names.

  Args:
    checkpoint: where to look.
    kind: of the network wanted; None for any.
    layout: that it must have; None for any.
    part: first part of the prefix, such as 'generator' or 'critic', if the
      checkpoint holds several; None prefers the running mean.
  """
  where = checkpoint.where
  names: dict[str, Tensor] = {}
  for name, tensor in checkpoint.tensors.items():
    plain = unwrap(name)
    if plain in names:
      raise UserError(
        f'{where} holds {plain} twice, with and without wrappers; save the '
        'state dict of one model.'
      )
    names[plain] = tensor
  if any(map(_LORA.search, names)):
    raise UserError(
      f'{where} is a LoRA, an addition to the weights of a model; give the '
      'model as --student or --teacher, and this as --lora.'
    )
  names = quantised.dequantise(where, names)
  found = [
    (k, l, p)
    for k, l, p in _candidates(names)
    if kind in (None, k) and layout in (None, l)
    if part in (None, p.split('.')[0])
  ]
  if not found:
    raise UserError(_nothing_found(names, where, kind, layout, part))
  for name in _PREFERRED:
    chosen = [f for f in found if f[2].split('.')[0] == name]
    if len(found) > 1 and len(chosen) == 1:
      found = chosen
  if len(found) > 1:
    parts = ', '.join(prefix.split('.')[0] or kind for kind, _, prefix in found)
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
  heads = _heads(kind, checkpoint.configs)
  exported = any('exported' in config for config in checkpoint.configs)
  return Found(
    *(where, kind, layout, prefix, inside),
    *(tuple(sorted(others)), heads, exported),
  )


def _heads(kind: str, configs: Iterable[Mapping[str, Any]]) -> int | None:
  """Heads of attention by the headers and the config.json of a checkpoint."""
  for config in configs:
    if 'model' in config:  # A training's own.
      nested = sizes.rename(config).get('model', {})
      config = nested.get('dit' if kind == 'dit' else 'text', {})
    told = str(config.get('_class_name', config.get('architectures', '')))
    if ('T5' in told and kind != 'umt5') or ('Wan' in told and kind != 'dit'):
      continue
    for name in ('num_heads', 'num_attention_heads'):
      if type(config.get(name)) is int and kind != 'vae':
        return config[name]
  return None


def check_heads(found: Found, config: Any) -> None:
  """Refuses a size whose number of heads is not what the file itself says.

  Names and shapes are the same for any number of heads.
  """
  if found.heads not in (None, getattr(config, 'num_heads', None)):
    raise UserError(
      f'{found.where} says that it has {found.heads} heads of attention, and '
      f'{config.num_heads} were asked for, which would compute something else; '
      'correct num_heads in the config, or the config.json beside the file.'
    )


def _candidates(names: Iterable[str]) -> list[tuple[str, str, str]]:
  """(kind, layout, prefix) of every network whose signature is there."""
  return sorted(
    (kind, layout, name[: len(name) - len(signature)])
    for name in names
    for kind, table in wan.TABLES.items()
    for layout, signature in table.signatures.items()
    if name == signature or name.endswith('.' + signature)
  )


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
  wanted += f' in the layout {layout}' if layout else ''
  wanted += f' under {part!r}' if part else ''
  if there:
    return (
      f'{where} holds no {wanted}, but {", ".join(there)}; give another file '
      'or the option for what it holds.'
    )
  return (
    f'{where} holds no {wanted}: its names begin with '
    f'{", ".join(sorted(names)[:3])}; known are the layouts wan and diffusers.'
  )


def name_of(kind: str, config: Any) -> str:
  """Returns the published name of a size, or 'a size of its own'."""
  for name, preset in PRESETS[kind].items():
    if sizes.param_shapes(preset) == sizes.param_shapes(config):
      return name
  return 'a size of its own'


def recognise(found: Found) -> Any:
  """Returns the published config that most of a checkpoint's shapes have."""
  if any(name.startswith(_IMAGE_NAMES) for name in found.tensors):
    raise UserError(
      f'{found.where} is an image-to-video transformer, with inputs that ours '
      'has not (it takes images as conditioning frames); use a text-to-video '
      'one.'
    )
  best, most = None, 0
  for config in PRESETS[found.kind].values():
    entries = keymap.entries(
      wan.TABLES[found.kind], found.layout, sizes.param_shapes(config)
    )
    same = sum(
      entry.name in found.tensors
      and found.tensors[entry.name].shape == entry.shape
      for entry in entries
      if len(entry.shape) > 1
    )
    if same > most:
      best, most = config, same
  if best is None or 4 * most < len(found.tensors):
    raise UserError(
      f'{found.where} is a {found.kind} of a size that was not published '
      f'({", ".join(PRESETS[found.kind])}); name its size with --config.'
    )
  return best


def check(found: Found, shapes: Any) -> dict[str, list[keymap.Entry]]:
  """Returns what makes each of our arrays, if all of the checkpoint fits.

  Returns:
    Our path `a/b` -> the tensors that make it, in order.
  """
  table = wan.TABLES[found.kind]
  problems: list[tuple[str, str]] = []
  known: set[str | None] = set()
  grouped: dict[str, list[keymap.Entry]] = {}
  for entry in keymap.entries(table, found.layout, shapes):
    known |= {entry.name, entry.alias}
    alias = entry.alias
    if alias and alias in found.tensors and entry.name not in found.tensors:
      entry = dataclasses.replace(entry, name=alias)
    grouped.setdefault(entry.path, []).append(entry)
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
    raise UserError(_listing(problems, found))
  return grouped


def _listing(problems: list[tuple[str, str]], found: Found) -> str:
  return (
    f'{found.where} does not fit the {found.kind} (read in the layout '
    f'{found.layout}): {len(problems)} of its names or shapes are wrong, and '
    f'nothing was written; use the checkpoint of this size.\n'
    f'{grouped(problems)}'
  )


def grouped(problems: Iterable[tuple[str, str]]) -> str:
  """Lists (name, what is wrong); what all layers share is one line."""
  groups: dict[tuple[str, str], list[str]] = {}
  for name, what in problems:
    shared = re.sub(r'(^|[._])(blocks?)([._])\d+\3', r'\1\2\3*\3', name)
    groups.setdefault((shared, what), []).append(name)
  return '\n'.join(
    f'  {names[0]} {what}'
    if len(names) == 1
    else f'  {shared} {what} ({len(names)} times)'
    for (shared, what), names in groups.items()
  )
