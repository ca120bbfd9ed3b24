"""Model folders from checkpoints: their files and card."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.convert import fit, incoming
from unitemp_jax.convert.checkpoints import file_size
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.model_folder import ModelCard

KINDS = {'student': 'dit', 'teacher': 'dit', 'vae': 'vae', 'text': 'umt5'}


def sizes_of(card: ModelCard) -> dict[str, Any]:
  """Kind -> size, of the networks of a model."""
  return {'dit': card.dit, 'vae': card.vae, 'umt5': card.text}


def open_networks(
  given: Mapping[str, str],
  wanted: Mapping[str, Any],
  *,
  layout: str | None = None,
  part: str | None = None,
  dtype: str = 'keep',
  loras: Sequence[str] = (),
) -> dict[str, incoming.Network]:
  """Checks all checkpoints; nothing is read of their weights.

  Args:
    given: student, teacher, vae, text -> checkpoint.
    wanted: kind -> the size it must have; others have a published one, and
      student and teacher the same.
    layout: see `fit.find`.
    part: see `fit.find`; of transformers.
    dtype: a name of `incoming.POLICIES`.
    loras: FILE[:strength] of what is merged into the transformer.
  """
  if loras and len({'student', 'teacher'} & set(given)) != 1:
    raise UserError(
      '--lora is merged into one transformer; give it with either --student or '
      '--teacher.'
    )
  networks: dict[str, incoming.Network] = {}
  settled = dict(wanted)
  for name, source in given.items():
    kind = KINDS[name]
    networks[name] = incoming.open_network(
      source,
      kind,
      config=settled.get(kind),
      layout=layout,
      part=part if kind == 'dit' else None,
      dtype=dtype,
      loras=loras if kind == 'dit' else (),
    )
    settled.setdefault(kind, networks[name].config)
  return networks


def outputs(
  out: Path, networks: Mapping[str, incoming.Network], parts: int
) -> dict[str, incoming.Output]:
  """The files to write, one per network in a folder, or one file."""
  if out.suffix != '.safetensors':
    found = {
      name: incoming.Output(out / f'{name}.safetensors', {'': network}, parts)
      for name, network in networks.items()
    }
  elif set(networks) == {'teacher', 'text'}:
    joined = {'dit.': networks['teacher'], 'text.': networks['text']}
    found = {'teacher': incoming.Output(out, joined, parts)}
  elif len(networks) == 1:
    ((name, network),) = networks.items()
    found = {name: incoming.Output(out, {'': network}, parts)}
  else:
    raise UserError(
      f'{out} is one file, for one network or for --teacher with --text; got '
      f'{", ".join(networks)}: give a folder as --out.'
    )
  for output in found.values():
    output.arrays()  # Refuses what does not divide.
  return found


def check_sources(
  sources: Sequence[str | Path | None],
  out: Path,
  found: Mapping[str, incoming.Output],
) -> None:
  """Refuses to write to what is read."""
  written = {out.resolve()} | {
    f.resolve() for o in found.values() for f in o.files()
  }
  for source in sources:
    if source is not None and Path(source).resolve() in written:
      raise UserError(
        f'--out={out} would write over {source}, which is read; choose another '
        '--out.'
      )


def check_tokenizer(path: Path | None, out: Path) -> None:
  """Refuses, by UserError, a file that is none, or another than `out` has."""
  if path is None:
    return
  Tokenizer.from_file(path)
  target = out / 'tokenizer.json'
  if os.path.lexists(target) and not (
    target.is_file() and target.read_bytes() == path.read_bytes()
  ):
    raise UserError(
      f'{target} is another tokenizer than {path}; remove it or choose another '
      '--out.'
    )


def describe(name: str, network: incoming.Network) -> str:
  """What was found and what will be written, and a line per LoRA."""
  found = network.found
  prefix = f' under {found.prefix!r}' if found.prefix else ''
  others = f'; passed over: {", ".join(found.others)}' if found.others else ''
  return (
    f'{name}: {fit.name_of(found.kind, network.config)} in the layout '
    f'{found.layout}{prefix}, {len(found.tensors)} tensors, '
    f'{file_size(network.bytes)} to write{others}'
    + ''.join(
      f'\n  with {lora["source"]} at strength {lora["strength"]:g}: '
      f'{lora["layers"]} arrays of rank {", ".join(map(str, lora["ranks"]))}'
      for lora in found.loras
    )
  )


def mapping(network: incoming.Network) -> list[str]:
  """One line per array of ours; layers and stages that are alike share one."""
  lines: dict[str, int] = {}
  for path, entries in network.entries.items():
    shape, dtype = network.leaves[path]
    theirs = network.found.tensors[entries[0].name]
    name = re.sub(r'\.\d+\.', '.*.', entries[0].name, count=1)
    line = (
      f'{name if entries[0].layer is not None else entries[0].name} '
      f'{list(theirs.shape)} {theirs.dtype} -> {path} {list(shape)} {dtype}'
    )
    lines[line] = len(entries)
  return [
    f'{line} ({count} layers)' if count > 1 else line
    for line, count in lines.items()
  ]


def finish(
  out: Path,
  card: ModelCard,
  networks: Mapping[str, incoming.Network],
  tokenizer: Path | None,
) -> Path:
  """Adds tokenizer and card to a folder of weights; returns the card's path."""
  target = out / 'tokenizer.json'
  if tokenizer and tokenizer.resolve() != target.resolve():
    files.write(target, tokenizer.read_bytes())
  about = {name: network.about() for name, network in networks.items()}
  about = card.provenance.get('converted', {}) | about
  provenance = card.provenance | {'converted': about}
  card = dataclasses.replace(card, provenance=provenance)
  return model_folder.write_card(out, card)


def next_step(out: Path, card: ModelCard | None) -> str:
  """What to run next: to complete a folder, or to generate with it."""
  names = {name: f'{name}.safetensors' for name in ('student', 'vae', 'text')}
  names['tokenizer'] = 'tokenizer.json'
  lacks = [f'--{n}' for n, file in names.items() if not (out / file).exists()]
  if lacks:
    return (
      f'to generate with {out}, run again with {", ".join(lacks)} and the same '
      '--out'
    )
  order = '' if not card or not card.orders else f' {card.orders[0]} only:'
  return (
    f'next:{order} unitemp generate --model={out} --orders=forward --prompt=...'
  )


def new_card(
  networks: Mapping[str, incoming.Network], told: Any = None
) -> ModelCard:
  """A card with Wan 2.1's published settings.

  A student of others keeps the regime that it was trained in (Self-Forcing,
  arXiv 2506.08009: configs/self_forcing_dmd.yaml): forward, without anchors or
  sinks, over 21 latents of which three are the block itself. One that was
  exported from here has learned all orders.

  Args:
    networks: that were converted.
    told: a `config.model` that sizes and dtypes come from, if there is one.
      What it does not say is in bfloat16, as Wan's own products are; so
      that a published VAE decodes as the memory tables of `unitemp aot` say, in
      bfloat16 and one frame at a time. It encodes in float32.
  """
  defaults = {
    kind: next(iter(fit.PRESETS[kind].values())) for kind in fit.PRESETS
  }
  sized = defaults | {n.found.kind: n.config for n in networks.values()}
  for kind, field in (('dit', 'dit'), ('umt5', 'text')):
    if told is None or 'dtype' not in told.get(field, {}):
      sized[kind] = dataclasses.replace(sized[kind], dtype='bfloat16')
  if told is None or 'vae' not in told:
    sized['vae'] = dataclasses.replace(
      sized['vae'], decode_dtype='bfloat16', large_frames=True
    )
  small = sized['dit'].dim == DiTConfig().dim
  own = 'student' in networks and networks['student'].found.exported
  regime: dict[str, Any] = {'anchors': 3}
  if not own:
    regime = {'anchors': 0, 'orders': ('forward',), 'window': 18}
    regime['sinks'] = 'none'
  return ModelCard(
    vae=sized['vae'],
    dit=sized['dit'],
    text=sized['umt5'],
    timesteps=(1000, 750, 500, 250),
    shift=5.0,
    teacher_shift=8.0 if small else 5.0,
    guidance_scale=6.0 if small else 5.0,
    frames=81,
    height=480,
    width=832,
    fps=16,
    block=3,
    anchor_kind='raw',
    start=0,
    provenance={},
    **regime,
  )
