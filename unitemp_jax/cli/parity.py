"""`unitemp parity`: is a PyTorch checkpoint the same network here?"""

import argparse

from unitemp_jax.cli.options import Parser
from unitemp_jax.convert import checkpoints, fit, parity, parity_torch
from unitemp_jax.convert.parity import Input
from unitemp_jax.errors import UserError
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

_EXAMPLE = """examples:
  unitemp parity --checkpoint=self_forcing_dmd.pt
  unitemp parity --checkpoint=self_forcing_dmd.pt --rollout --dtypes=float32
  unitemp parity --checkpoint=Wan2.1_VAE.pth --frames=3 --height=8 --width=8
  unitemp parity --checkpoint=models_t5_umt5-xxl-enc-bf16.pth --dtypes=bfloat16
Runs diffusers (transformers for the text encoder) on the CPU beside JAX on the
devices it finds, module by module on the same input, and prints the errors, for
float32 with products in full precision. Needs PyTorch:
pip install "unitemp_jax[torch]". Both sides read the file layer by layer; with
--rollout ours holds all weights in float32, 5.7 GB of the 1.3B transformer. The
exit code is 0 if all errors are within their tolerances and 1 otherwise."""


_OPTIONS = f"""
--checkpoint! PATH
  .pt, .pth or .safetensors file, an .index.json, or a folder
--part PART
  of a file with several networks: generator, ...; default: the mean
@config?  the network's size, from config.model; default: the published one
--dtypes DTYPE,...=float32,bfloat16
  which to compare in, with commas; the VAE in float32 only
--frames N:1={Input().frames}  latent frames of the input
--height N:1={Input().height}  latent rows of the input
--width N:1={Input().width}  latent columns of the input
--tokens N:1={Input().tokens}  text positions of the input
--seed N={Input().seed}  of the input
--rollout  cached, masked and windowed passes of three blocks too (float32)
--block N:1=3  --rollout: latents per block
@dry_run
"""


def _dtypes(text: str) -> list[str]:
  names = text.split(',')
  for name in names:
    if name not in parity_torch.TOLERANCES:
      raise UserError(
        f'--dtypes names {name!r}; use {", ".join(parity_torch.TOLERANCES)}.'
      )
  return names


def _size(args: argparse.Namespace) -> Input:
  size = Input(args.frames, args.height, args.width, args.tokens, args.seed)
  if size.height % 2 or size.width % 2:
    raise UserError(
      f'--height={size.height} and --width={size.width} must be even: the '
      'transformer takes patches of 2x2 latents.'
    )
  return size


def main(argv: list[str]) -> int:
  """Runs the verb; returns 0 if all is within tolerance, else 1."""
  parser = Parser('parity', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  dtypes, size = _dtypes(args.dtypes), _size(args)
  where = str(args.checkpoint)
  found = fit.find(checkpoints.open_checkpoint(where), part=args.part)
  if args.config:
    model = load_config(args.config, overrides).model
    config = builders.SIZES[found.kind](model)
  else:
    config = fit.recognise(found)
  if args.rollout and (found.kind != 'dit' or 'float32' not in dtypes):
    raise UserError(
      '--rollout is for a transformer in float32; leave it out, or name one '
      '(--checkpoint) and --dtypes=float32.'
    )
  name = fit.name_of(found.kind, config)
  print(f'{where}: {found.kind}, {name}, layout {found.layout}')
  if args.dry_run:
    return 0
  block = args.block if args.rollout else None
  rows = parity.compare_checkpoint(found, config, dtypes, size, block=block)
  print(parity.format_rows(rows))
  failed = sum(not row.passed for row in rows)
  if failed:
    print(f'{failed} of {len(rows)} modules differ by more than allowed')
    return 1
  print(f'all {len(rows)} modules agree')
  return 0
