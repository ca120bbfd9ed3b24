"""Our networks to checkpoints that PyTorch tools load."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.cli.config_args import load_config
from unitemp_jax.convert import foreign_configs, incoming, outgoing, presets
from unitemp_jax.convert.stream_writer import file_size
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.programs import builders

TARGETS = ('diffusers', 'self_forcing', 'wan')

_BUILD: dict[str, Callable[[Any], Any]] = {
  'dit': builders.dit_config,
  'vae': builders.vae_config,
  'umt5': builders.text_config,
}
# Where diffusers' pipelines look: folder, stem, config.
_DIFFUSERS: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
  'dit': (
    'transformer',
    'diffusion_pytorch_model',
    foreign_configs.dit_diffusers,
  ),
  'vae': ('vae', 'diffusion_pytorch_model', foreign_configs.vae_diffusers),
  'umt5': ('text_encoder', 'model', foreign_configs.umt5_transformers),
}
# Where the original repository looks for what is not the transformer.
_WAN = {
  'vae': 'Wan2.1_VAE.pth',
  'umt5': 'models_t5_umt5-xxl-enc-bf16.pth',
}


def run(
  args: argparse.Namespace,
  overrides: list[str],
  progress: Callable[[str], incoming.Progress],
) -> int:
  """Checks all networks, then writes them; returns the exit code."""
  if args.to is None:
    raise UserError(f'name the layout with --to ({", ".join(TARGETS)}).')
  if args.max_shard_gb <= 0:
    raise UserError(f'--max_shard_gb is {args.max_shard_gb}; give more than 0.')
  networks = _networks(args)
  kinds = [network.kind for network in networks]
  twice = {kind for kind in kinds if kinds.count(kind) > 1}
  if twice:
    raise UserError(
      f'{args.model}: two networks of the kind {twice.pop()} would get one '
      'name; export them one by one, each to its own --out.'
    )
  if args.to == 'self_forcing' and kinds != ['dit']:
    raise UserError(
      'the layout self_forcing is for one transformer; choose it with '
      '--networks, and export the rest with --to=wan.'
    )
  configs = {n.kind: _config(n, args, overrides) for n in networks}
  for network in networks:
    _export(network, configs[network.kind], args, progress)
  return 0


def _networks(args: argparse.Namespace) -> list[outgoing.Network]:
  if not args.model.is_dir():
    return outgoing.open_networks(args.model)
  model_folder.read_card(args.model)  # Refuses what is no model folder.
  return [
    network
    for name in args.networks.split(',')
    for network in outgoing.open_networks(
      args.model / f'{name.strip()}.safetensors'
    )
  ]


def _config(
  network: outgoing.Network, args: argparse.Namespace, overrides: list[str]
) -> Any:
  """The size of a network: as told, or as its files say."""
  field = {'dit': 'dit', 'vae': 'vae', 'umt5': 'text'}[network.kind]
  with weights.Files(network.path) as files:
    trained = files.metadata.get('config', {}).get('model', {})
  if args.config:
    config = _BUILD[network.kind](load_config(args.config, overrides).model)
  elif args.model.is_dir():
    config = getattr(model_folder.read_card(args.model), field)
  elif field in trained:
    config = _BUILD[network.kind](trained)
  else:
    config = _published(network)
  wanted = incoming.plain_shapes(sizes.param_shapes(config))
  if wanted != incoming.plain_shapes(network.shapes):
    raise UserError(
      f'{network.path} does not have the size that its config says; name the '
      'right one with --config.'
    )
  return config


def _published(network: outgoing.Network) -> Any:
  there = incoming.plain_shapes(network.shapes)
  for config in presets.PRESETS[network.kind].values():
    if incoming.plain_shapes(sizes.param_shapes(config)) == there:
      return config
  raise UserError(
    f'{network.path} does not say its size; name it with --config.'
  )


def _export(
  network: outgoing.Network,
  config: Any,
  args: argparse.Namespace,
  progress: Callable[[str], incoming.Progress],
) -> None:
  layout = 'diffusers' if args.to == 'diffusers' else 'wan'
  with weights.Files(network.path) as files:
    tensors = outgoing.state_dict(network, files, layout, args.dtype)
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(
      f'{network.kind}: {len(tensors)} tensors in the layout {args.to}, '
      f'{file_size(size)}'
    )
    differs = foreign_configs.what_differs(config)
    if differs:
      print(f'note: {differs}')
    if args.dry_run:
      for name, tensor in tensors.items():
        print(f'  {name} {list(tensor.shape)} {tensor.dtype}')
      return
    about = {
      'exported': network.prefix + network.kind,
      'layout': args.to,
      'dtype': args.dtype,
      'fingerprint': outgoing.fingerprint_of(files),
    }
    line = progress(network.kind)
    limit = args.max_shard_gb * 1e9
    for path in _write(network, config, args, tensors, about, limit, line):
      print(path)


def _write(
  network: outgoing.Network,
  config: Any,
  args: argparse.Namespace,
  tensors: dict[str, outgoing.Tensor],
  about: dict[str, Any],
  limit: float,
  progress: incoming.Progress,
) -> list[Path]:
  if args.to == 'self_forcing':
    named = {f'model.{name}': tensor for name, tensor in tensors.items()}
    values = {'generator': named, 'generator_ema': named}
    path = args.out / 'student.pt'
    return [outgoing.write_pt(path, values, about, progress)]
  if args.to == 'wan' and network.kind != 'dit':
    path = args.out / _WAN[network.kind]
    return [outgoing.write_pt(path, tensors, about, progress)]
  if args.to == 'wan':
    folder, stem = args.out, 'diffusion_pytorch_model'
    fields = foreign_configs.dit_wan(config)
  else:
    name, stem, describe = _DIFFUSERS[network.kind]
    folder, fields = args.out / name, describe(config)
  paths = outgoing.write_safetensors(
    folder, stem, tensors, about, limit, progress
  )
  return [*paths, files.write_json(folder / 'config.json', fields, indent=2)]
