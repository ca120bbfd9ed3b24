"""LoRAs: additions of low rank to a transformer's weights, merged into them.

A layer's weight W becomes W + strength * (alpha / rank) * B A (arXiv
2106.09685, section 4.1). Read are the namings of PEFT, diffusers, kohya's
scripts (musubi-tuner), ComfyUI, and Wan's own layer names (DiffSynth-Studio);
a layer may go by its name in the original or in the diffusers layout.
"""

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.convert import checkpoints, fit, hub, keymap, wan
from unitemp_jax.convert.checkpoints import Tensor
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights

_HALF = re.compile(r'(.+)[._]lora[._](A|B|down|up)(?:\.\w+)?\.weight')
# Of one number, and ComfyUI's differences of whole arrays.
_OTHER = re.compile(r'(.+)\.(alpha|diff|diff_b|diff_m)')
_ROLES = {'A': 'down', 'B': 'up', 'diff_b': 'diff', 'diff_m': 'diff'}
_PARAMETER = {'diff_b': 'bias', 'diff_m': 'modulation'}
_PREFIX = re.compile(
  r'(?:base_model|model|transformer|diffusion_model|dit|pipe|module|unet|'
  r'lora_unet|lora_transformer|generator|generator_ema)_(.+)'
)


def parse(text: str) -> tuple[str, float]:
  """Reads FILE[:strength], of strength 1 unless it says another."""
  name, colon, last = text.rpartition(':')
  if not colon or Path(text).exists():
    return text, 1.0
  try:
    strength = float(last)
  except ValueError:
    return text, 1.0
  if not math.isfinite(strength):
    raise UserError(f'--lora={text}: the strength {last} is no finite number.')
  return name, strength


def merge(found: fit.Found, shapes: Any, given: Sequence[str]) -> fit.Found:
  """Returns a transformer with LoRAs added; they are read with its weights."""
  for text in given:
    name, strength = parse(text)
    found = _merge(found, _spellings(found.layout, shapes), name, strength)
  return found


def _spellings(layout: str, shapes: Any) -> dict[str, str]:
  """Any layout's name, dots as underscores -> the name in `layout`."""
  table = wan.TABLES['dit']
  layouts = {
    other: {
      (entry.path, entry.layer): entry.name
      for entry in keymap.entries(table, other, shapes)
    }
    for other in table.signatures
  }
  return {
    name.replace('.', '_'): layouts[layout][place]
    for names in layouts.values()
    for place, name in names.items()
  }


def _merge(
  found: fit.Found, spellings: Mapping[str, str], name: str, strength: float
) -> fit.Found:
  opened = checkpoints.open_checkpoint(name)
  problems: list[tuple[str, str]] = []
  # (target, module) -> role -> tensor; the module for its alpha.
  layers: dict[tuple[str, str], dict[str, tuple[str, Tensor]]] = (
    collections.defaultdict(dict)
  )
  seen: dict[tuple[str, str], str] = {}  # (target, role) -> key
  for key, tensor in opened.tensors.items():
    plain = fit.unwrap(key)
    match = _HALF.fullmatch(plain) or _OTHER.fullmatch(plain)
    if match is None:
      problems.append((key, 'is no part of a LoRA that is read'))
      continue
    module, role = match.groups()
    place = f'{module}.{_PARAMETER.get(role, "weight")}'.replace('.', '_')
    while place not in spellings and (inner := _PREFIX.fullmatch(place)):
      place = inner[1]
    if place not in spellings:
      problems.append((key, 'is of a layer that the model has not'))
      continue
    target, part = spellings[place], _ROLES.get(role, role)
    if (first := seen.setdefault((target, part), key)) != key:
      problems.append((key, f'says again what {first} says'))
      continue
    layers[target, module][part] = key, tensor
  settings = _settings(name, opened.configs)
  tensors, ranks = dict(found.tensors), set()
  for (target, module), layer in layers.items():
    wrong = _misfit(layer, tensors.get(target))
    if wrong:
      problems += [(key, wrong) for key, _ in layer.values()]
      continue
    scale = 1.0  # A difference of a whole array has no rank.
    if 'down' in layer:
      rank = layer['down'][1].shape[0]
      ranks.add(rank)
      scale = _scale(name, module, rank, layer.get('alpha'), settings)
    tensors[target] = _sum(tensors[target], layer, strength, scale, name)
  if problems or not layers:
    count = len(opened.tensors)
    raise UserError(
      f'{name} does not fit {found.where}: {len(problems)} of its {count} '
      'names or shapes are wrong, and nothing was written; use a LoRA of this '
      f'model.\n{fit.grouped(problems)}'
    )
  if not strength:
    return found
  about = {
    'source': Path(name).name,
    'strength': strength,
    'layers': len(layers),
    'ranks': sorted(ranks),
    'fingerprint': checkpoints.fingerprint(opened.tensors),
  }
  loras = (*found.loras, about)
  return dataclasses.replace(found, tensors=tensors, loras=loras)


def _misfit(
  layer: Mapping[str, tuple[str, Tensor]], base: Tensor | None
) -> str:
  """How the parts of a layer's addition do not fit, '' if they do."""
  shape = {role: tensor.shape for role, (_, tensor) in layer.items()}
  if any(t.dtype is None for r, (_, t) in layer.items() if r != 'alpha'):
    return 'is of a type that weights do not have'
  if ('down' in shape) != ('up' in shape) or set(shape) == {'alpha'}:
    return 'lacks its other half'
  if math.prod(shape.get('alpha', ())) != 1:
    return 'has an alpha of several numbers'
  made = [shape['diff']] if 'diff' in shape else []
  if 'down' in shape:
    down, up = shape['down'], shape['up']
    if len(down) < 2 or len(up) < 2 or up[1:2] != down[:1] or not down[0]:
      return 'does not multiply with its other half'
    if math.prod(up[2:]) > 1:
      return 'is a convolution by its second half as well'
    made.append((up[0], *down[1:]))
  if base is None or any(m != base.shape for m in made):
    wanted = 'nothing' if base is None else list(base.shape)
    return f'makes {list(made[0])} and should make {wanted}'
  return ''


def _settings(
  name: str, configs: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
  """PEFT's settings: adapter_config.json beside, or in diffusers' header."""
  path = hub.fetch(name) if hub.is_name(name) else Path(name)
  folder = path if path.is_dir() else path.parent
  beside: list[Mapping[str, Any]] = []
  if (folder / 'adapter_config.json').is_file():
    with contextlib.suppress(UserError):
      beside = [files.read_json(folder / 'adapter_config.json')]
  for config in (*beside, *configs):
    plain = {k.removeprefix('transformer.'): v for k, v in config.items()}
    if isinstance(plain.get('lora_alpha'), int | float):
      return plain
  return {}


def _scale(
  where: str,
  module: str,
  rank: int,
  alpha: tuple[str, Tensor] | None,
  settings: Mapping[str, Any],
) -> float:
  """alpha / rank of a layer; a file that says no alpha means its rank."""
  value = float(settings.get('lora_alpha', rank))
  for pattern, other in (settings.get('alpha_pattern') or {}).items():
    # As PEFT matches them (peft/utils/other.py: get_pattern_key).
    try:
      found = re.fullmatch(rf'(.*\.)?({pattern})', module)
      value = float(other) if found else value
    except (re.error, TypeError, ValueError) as error:
      raise UserError(
        f'{where}: its alpha_pattern {pattern!r} is not readable: {error}.'
      ) from error
    if found:
      break
  if alpha is not None:
    value = np.asarray(alpha[1].read(), np.float32).item()
  if not math.isfinite(value):
    raise UserError(f'{where}: the alpha of {module} is {value}, not finite.')
  root = settings.get('use_rslora')  # arXiv 2312.03732
  return value / (math.sqrt(rank) if root else rank)


def _sum(
  base: Tensor,
  layer: Mapping[str, tuple[str, Tensor]],
  strength: float,
  scale: float,
  where: str,
) -> Tensor:
  def part(role: str, rows: slice | None = None) -> np.ndarray:
    name, tensor = layer[role]
    values = tensor.read(rows)
    weights.check_finite(values, name, where)
    return values.astype(np.float32)

  def load(rows: slice | None) -> np.ndarray:
    values = base.read(rows)
    total = values.astype(np.promote_types(values.dtype, np.float32))
    if 'down' in layer:
      down, up = part('down'), part('up', rows)
      made = up.reshape(up.shape[:2]) @ down.reshape(len(down), -1)
      total = total + strength * scale * made.reshape(total.shape)
    if 'diff' in layer:
      total = total + strength * part('diff', rows)
    return total

  return Tensor(base.shape, base.kind, load)
