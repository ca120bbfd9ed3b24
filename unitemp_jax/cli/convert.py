"""`unitemp convert`: PyTorch checkpoints to a model folder, and back."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tqdm
from ml_collections import ConfigDict

from unitemp_jax.cli.options import Parser, out_folder
from unitemp_jax.convert import (
  folder,
  foreign_configs,
  hub,
  incoming,
  lora,
  outgoing,
)
from unitemp_jax.errors import UserError
from unitemp_jax.parallel import locks
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

_EXAMPLE = """examples:
  Self-Forcing (or CausVid) on Wan 2.1, ready to generate:
    unitemp convert --student=self_forcing_dmd.pt --vae=Wan2.1_VAE.pth \\
      --text=models_t5_umt5-xxl-enc-bf16.pth \\
      --tokenizer=google/umt5-xxl/tokenizer.json --out=models/self_forcing
    unitemp generate --model=models/self_forcing --prompt="a red kite" \\
      --orders=forward --out=out/kite
  One network as one file, for config.teacher or config.student_init:
    unitemp convert --teacher=Wan2.1-T2V-1.3B --out=weights/teacher.safetensors
  The 14B teacher in 16 parts, one for every fsdp shard of a mesh:
    unitemp convert --teacher=Wan2.1-T2V-14B --fsdp=16 --out=models/wan_14b
  With a LoRA merged at 0.8 of its strength:
    unitemp convert --student=self_forcing_dmd.pt \\
      --lora=style.safetensors:0.8 --out=models/self_forcing_style
  Back, a trained student for PyTorch tools:
    unitemp convert --model=runs/distill/weights/student.safetensors \\
      --to=diffusers --out=exported
Inputs are .safetensors, .pt or .pth files, an .index.json of several, a folder
that holds one of these, or hf://OWNER/NAME/file@revision on the Hugging Face
Hub (pip install "unitemp_jax[hub]"); file and revision may be left out. A .pt
is read by PyTorch, without running code in it: pip install
"unitemp_jax[torch]". Nothing is written unless all names and shapes fit. A
conversion that was killed is run again with the same command."""


_OPTIONS = f"""
--out! PATH  a folder, or one .safetensors file for a training config
--dtype {'|'.join(sorted(incoming.POLICIES))}=keep
  of the weights written; keep: as they are
@config?  sizes from config.model; default: whichever of Wan 2.1's fits
@dry_run  print names and sizes, and stop
--student CHECKPOINT  from PyTorch: transformer that generates in few steps
--teacher CHECKPOINT  from PyTorch: bidirectional transformer
--vae CHECKPOINT  from PyTorch: video autoencoder
--text CHECKPOINT  from PyTorch: UMT5 encoder
--lora+ FILE[:STRENGTH]  a LoRA to merge into the transformer; repeatable
--tokenizer FILE  from PyTorch
--layout wan|diffusers  names of the checkpoints; default: found by looking
--part PART
  of a .pt with several: generator_ema (preferred), generator, critic
--fsdp N:1=1  write N files per network, cut as a mesh with fsdp=N holds it
--model PATH  to PyTorch: a model folder, or a weights file of a training
--to {'|'.join(outgoing.TARGETS)}  to PyTorch: the layout
--networks NAME,...=student  of a model folder, separated by commas
--max_shard_gb X=10.0  largest safetensors file
"""


@contextlib.contextmanager
def _progress(name: str) -> Iterator[incoming.Progress]:
  """Yields what shows how far a network is."""
  with tqdm.tqdm(desc=name, unit='B', unit_scale=True, delay=2) as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    yield show


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('convert', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  if hub.is_name(args.tokenizer):
    args.tokenizer = hub.fetch(args.tokenizer)
  if overrides and not args.config:
    raise UserError(f'{overrides[0]} needs --config; name the config file.')
  given = {
    name: value
    for name in ('student', 'teacher', 'vae', 'text')
    if (value := getattr(args, name)) is not None
  }
  if bool(given) == bool(args.model):
    raise UserError(
      'convert needs either checkpoints (--student, --teacher, --vae, --text) '
      'or --model with --to; see unitemp convert --help.'
    )
  if args.model and args.lora:
    raise UserError(
      '--lora is merged into a PyTorch checkpoint (--student or --teacher); '
      'export --model first, and convert it back with --lora.'
    )
  config = load_config(args.config, overrides) if args.config else None
  if args.model:
    return _to_pytorch(args, config)
  return _from_pytorch(args, config, given)


def _sizes(config: ConfigDict | None) -> dict[str, Any]:
  """Kind -> the size that a config describes."""
  fields = {'dit': 'dit', 'vae': 'vae', 'umt5': 'text'}
  return {
    kind: builders.SIZES[kind](config.model)
    for kind, field in fields.items()
    if config is not None and field in config.model
  }


def _from_pytorch(
  args: argparse.Namespace, config: ConfigDict | None, given: Mapping[str, str]
) -> int:
  is_folder = args.out.suffix != '.safetensors'
  card = _card(args.out, config) if is_folder else None
  wanted = folder.sizes_of(card) if card else _sizes(config)
  networks = folder.open_networks(
    given,
    wanted,
    layout=args.layout,
    part=args.part,
    dtype=args.dtype,
    loras=args.lora,
  )
  outputs = folder.outputs(args.out, networks, args.fsdp)
  loras = [lora.parse(text)[0] for text in args.lora]
  sources = [*given.values(), *loras, args.tokenizer]
  folder.check_sources(sources, args.out, outputs)
  folder.check_tokenizer(args.tokenizer, args.out)
  for name, network in networks.items():
    print(folder.describe(name, network))
    if args.dry_run:
      print('\n'.join(f'  {line}' for line in folder.mapping(network)))
  if args.dry_run:
    for output in outputs.values():
      for file in output.files():
        print(f'would write {file}')
    return 0
  finished = {name: output.is_done() for name, output in outputs.items()}
  with locks.lock(args.out if is_folder else args.out.parent):
    for name, output in outputs.items():
      if finished[name]:
        print(f'{output.path}: there already, from the same checkpoint')
        continue
      with _progress(name) as progress:
        incoming.write(output, progress)
      print(output.path if output.parts == 1 else f'{output.path} (in parts)')
    if is_folder:
      told = None if config is None else config.model
      card = card or folder.new_card(networks, told)
      print(folder.finish(args.out, card, networks, args.tokenizer))
  if is_folder and args.fsdp == 1:
    print(folder.next_step(args.out, card))
  return 0


def _card(out: Path, config: ConfigDict | None) -> ModelCard | None:
  """The card that the folder has, or that a student's config describes."""
  if (out / model_folder.INDEX).exists():
    return model_folder.read_card(out)
  needed = ('model', 'data', 'student', 'sampling', 'orders')
  if config is None or not all(key in config for key in needed):
    return None
  vae = builders.vae_config(config.model)
  if not vae.latent_mean:
    print('note: the config has no statistics of the latents; they stay as is')
  statistics = {'latent_mean': vae.latent_mean, 'latent_std': vae.latent_std}
  return builders.model_card(config, statistics, {})


def _to_pytorch(args: argparse.Namespace, config: ConfigDict | None) -> int:
  if args.to is None:
    raise UserError(
      f'name the layout with --to ({", ".join(outgoing.TARGETS)}).'
    )
  if not args.max_shard_gb > 0:
    raise UserError(f'--max_shard_gb is {args.max_shard_gb}; give more than 0.')
  if args.out.resolve() == args.model.resolve():
    raise UserError(f'--out={args.out} is read; choose another name.')
  out_folder(str(args.out))
  names, told = None, _sizes(config)
  if args.model.is_dir():
    card = model_folder.read_card(args.model)
    names, told = args.networks.split(','), told or folder.sizes_of(card)
  networks = outgoing.collect(args.model, args.to, names)
  for network in networks:
    if network.kind not in told:
      told[network.kind] = _size_of(network)
    network.check(told[network.kind])
  pickled = any(outgoing.pickled(n.kind, args.to) for n in networks)
  if pickled and not args.dry_run:
    outgoing.require_torch()
  for network in networks:
    size = told[network.kind]
    print(outgoing.describe(network, args.to, args.dtype, args.dry_run))
    differs = foreign_configs.what_differs(size)
    if differs:
      print(f'note: {differs}')
    if args.dry_run:
      continue
    with locks.lock(args.out), _progress(network.kind) as progress:
      paths = outgoing.export(
        *(network, size, args.to, args.out, progress),
        dtype=args.dtype,
        max_bytes=args.max_shard_gb * 1e9,
      )
    print('\n'.join(map(str, paths)))
  return 0


def _size_of(network: outgoing.Network) -> Any:
  """The size of a network by its own header, or a published one."""
  trained = network.said.get('config', {}).get('model', {})
  if network.field in trained:
    return builders.SIZES[network.kind](trained)
  published = network.published()
  if published is None:
    raise UserError(
      f'{network.path} does not say its size; name it with --config.'
    )
  return published
