"""Checkpoints of PyTorch to a model folder or to files for training."""

import argparse
import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unitemp_jax import files
from unitemp_jax.cli.config_args import load_config
from unitemp_jax.convert import incoming, presets
from unitemp_jax.convert.stream_writer import file_size
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.card import model_card

_KINDS = {'student': 'dit', 'teacher': 'dit', 'vae': 'vae', 'text': 'umt5'}
_FIELDS = {'dit': 'dit', 'vae': 'vae', 'umt5': 'text'}


def run(
  args: argparse.Namespace,
  overrides: list[str],
  given: Mapping[str, str],
  progress: Callable[[str], incoming.Progress],
) -> int:
  """Checks all checkpoints, then writes all outputs; returns the exit code."""
  folder = args.out.suffix != '.safetensors'
  config = load_config(args.config, overrides) if args.config else None
  card = _card(args.out, config) if folder else None
  wanted = _wanted_sizes(config, card)
  networks: dict[str, incoming.Network] = {}
  for name, source in given.items():
    kind = _KINDS[name]
    networks[name] = incoming.open_network(
      source,
      kind,
      config=wanted.get(kind),
      layout=args.layout,
      part=args.part if kind == 'dit' else None,
      dtype=args.dtype,
    )
    wanted.setdefault(kind, networks[name].config)
  outputs = _outputs(args, networks, folder)
  for output in outputs.values():
    output.axes()  # Refuses what does not divide.
  if args.tokenizer:
    Tokenizer.from_file(args.tokenizer)
  _describe(networks, outputs, verbose=args.dry_run)
  if args.dry_run:
    return 0
  finished = {name: output.is_done() for name, output in outputs.items()}
  for name, output in outputs.items():
    if finished[name]:
      print(f'{output.path}: there already, from the same checkpoint')
      continue
    incoming.write(output, progress(name))
    print(output.path if output.parts == 1 else f'{output.path} (in parts)')
  if folder:
    _finish_folder(args, card, networks)
  return 0


def _card(folder: Path, config: ConfigDict | None) -> ModelCard | None:
  """The card that the folder has, or that a student's config describes."""
  if (folder / model_folder.INDEX).exists():
    return model_folder.read_card(folder)
  needed = ('model', 'data', 'student', 'sampling', 'orders')
  if config is None or not all(key in config for key in needed):
    return None
  vae = builders.vae_config(config.model)
  if not vae.latent_mean:
    print('note: the config has no statistics of the latents; they stay as is')
  statistics = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  return model_card(config, statistics, {})


def _wanted_sizes(
  config: ConfigDict | None, card: ModelCard | None
) -> dict[str, Any]:
  """Kind -> the size it must have, of those that are settled."""
  if card:
    return {kind: getattr(card, field) for kind, field in _FIELDS.items()}
  if config is None:
    return {}
  build = {
    'vae': builders.vae_config,
    'dit': builders.dit_config,
    'umt5': builders.text_config,
  }
  return {
    kind: build[kind](config.model)
    for kind, field in _FIELDS.items()
    if field in config.model
  }


def _outputs(
  args: argparse.Namespace,
  networks: Mapping[str, incoming.Network],
  folder: bool,
) -> dict[str, incoming.Output]:
  if args.fsdp < 1:
    raise UserError(f'--fsdp is {args.fsdp}; it must be at least 1.')
  if folder:
    return {
      name: incoming.Output(
        args.out / f'{name}.safetensors', {'': network}, args.fsdp
      )
      for name, network in networks.items()
    }
  if set(networks) == {'teacher', 'text'}:
    joined = {'dit.': networks['teacher'], 'text.': networks['text']}
    return {'teacher': incoming.Output(args.out, joined, args.fsdp)}
  if len(networks) == 1:
    ((name, network),) = networks.items()
    return {name: incoming.Output(args.out, {'': network}, args.fsdp)}
  raise UserError(
    f'{args.out} is one file, for one network or for --teacher with --text; '
    f'got {", ".join(networks)}: give a folder as --out.'
  )


def _describe(
  networks: Mapping[str, incoming.Network],
  outputs: Mapping[str, incoming.Output],
  verbose: bool,
) -> None:
  for name, network in networks.items():
    found = network.found
    prefix = f' under {found.prefix!r}' if found.prefix else ''
    others = f'; passed over: {", ".join(found.others)}' if found.others else ''
    print(
      f'{name}: {presets.name_of(found.kind, network.config)} in the layout '
      f'{found.layout}{prefix}, {len(found.tensors)} tensors, '
      f'{file_size(network.bytes)} to write{others}'
    )
    if verbose:
      for line in _mapping(network):
        print(f'  {line}')
  if verbose:
    for output in outputs.values():
      for file in output.files():
        print(f'would write {file}')


def _mapping(network: incoming.Network) -> list[str]:
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


def _finish_folder(
  args: argparse.Namespace,
  card: ModelCard | None,
  networks: Mapping[str, incoming.Network],
) -> None:
  """Adds tokenizer and card, and says what is missing."""
  out = args.out
  if args.tokenizer:
    with files.writing(out / 'tokenizer.json') as temporary:
      shutil.copyfile(args.tokenizer, temporary)
  about = {name: network.about() for name, network in networks.items()}
  card = card or _new_card(networks)
  known = card.provenance.get('converted', {})
  card = dataclasses.replace(
    card, provenance=card.provenance | {'converted': known | about}
  )
  print(model_folder.write_card(out, card))
  needed = ('student', 'vae', 'text')
  missing = [
    f'--{name}' for name in needed if not (out / f'{name}.safetensors').exists()
  ]
  if not (out / 'tokenizer.json').exists():
    missing.append('--tokenizer')
  if missing and args.fsdp == 1:
    print(
      f'to generate with {out}, run again with {", ".join(missing)} and the '
      'same --out'
    )
  elif args.fsdp == 1:
    print(f'next: unitemp generate --model={out} --orders=forward --prompt=...')


def _new_card(networks: Mapping[str, incoming.Network]) -> ModelCard:
  """A card with Wan 2.1's published settings (Wan-Video/Wan2.1, `wan/configs`).

  Products are in bfloat16, as Wan's own are; the VAE stays in float32.
  """
  configs = {n.found.kind: n.config for n in networks.values()}
  defaults = {
    kind: next(iter(named.values())) for kind, named in presets.PRESETS.items()
  }
  sized = defaults | configs
  small = sized['dit'].dim == DiTConfig().dim
  return ModelCard(
    vae=sized['vae'],
    dit=dataclasses.replace(sized['dit'], dtype='bfloat16'),
    text=dataclasses.replace(sized['umt5'], dtype='bfloat16'),
    timesteps=(1000, 750, 500, 250),
    shift=5.0,
    teacher_shift=8.0 if small else 5.0,
    guidance=6.0 if small else 5.0,
    frames=81,
    height=480,
    width=832,
    fps=16,
    block=3,
    anchors=3,
    # Checkpoints of others generate forward, where no anchors are carried.
    anchor_kind='raw',
    start=0,
    provenance={},
  )
