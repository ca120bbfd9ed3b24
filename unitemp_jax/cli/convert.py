"""`unitemp convert`: PyTorch checkpoints to a model folder, and back."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from unitemp_jax.cli import convert_in, convert_out
from unitemp_jax.cli.config_args import parse_with_overrides
from unitemp_jax.convert import incoming
from unitemp_jax.convert.stream_writer import file_size
from unitemp_jax.errors import UserError

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
  Back, a trained student for PyTorch tools:
    unitemp convert --model=runs/distill/weights/student.safetensors \\
      --to=diffusers --out=exported
Inputs are .pt, .pth or .safetensors files, an .index.json of several, or a
folder that holds one of these. A .pt is read without running code in it.
Nothing is written unless all names and shapes fit. A conversion that was
killed is run again with the same command."""


def _parse_args(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(
    prog='unitemp convert',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--out',
    required=True,
    type=Path,
    metavar='PATH',
    help='a folder, or one .safetensors file for a training config',
  )
  parser.add_argument(
    '--dtype',
    default='keep',
    choices=sorted(incoming.POLICIES),
    help='of the weights written; keep: as they are (default)',
  )
  parser.add_argument(
    '--config',
    metavar='FILE[:ARG]',
    help="sizes from config.model; default: whichever of Wan 2.1's fits",
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='print names and sizes and stop'
  )
  group = parser.add_argument_group('from PyTorch')
  for name, what in (
    ('student', 'transformer that generates in few steps'),
    ('teacher', 'bidirectional transformer'),
    ('vae', 'video autoencoder'),
    ('text', 'UMT5 encoder'),
  ):
    group.add_argument(f'--{name}', metavar='CHECKPOINT', help=what)
  group.add_argument('--tokenizer', type=Path, metavar='FILE')
  group.add_argument(
    '--layout',
    choices=('wan', 'diffusers'),
    help='names of the checkpoints; default: found by looking',
  )
  group.add_argument(
    '--part',
    help='of a .pt with several transformers: generator_ema (preferred), '
    'generator, critic',
  )
  group.add_argument(
    '--fsdp',
    type=int,
    default=1,
    metavar='N',
    help='write N files per network, cut as a mesh with fsdp=N holds it',
  )
  group = parser.add_argument_group('to PyTorch')
  group.add_argument(
    '--model',
    type=Path,
    metavar='PATH',
    help='a model folder, or a weights file of a training',
  )
  group.add_argument('--to', choices=convert_out.TARGETS)
  group.add_argument(
    '--networks',
    default='student',
    help='of a model folder, separated by commas (default student)',
  )
  group.add_argument(
    '--max_shard_gb', type=float, default=10.0, help='largest safetensors file'
  )
  return parse_with_overrides(parser, argv)


class ProgressLine:
  """Prints how far a network is and how long the rest will take."""

  def __init__(self, name: str):
    self._name = name
    self._began = self._shown = time.monotonic()

  def __call__(self, done: int, total: int) -> None:
    """Prints at most every 2 seconds."""
    now = time.monotonic()
    if now - self._shown < 2:
      return
    self._shown = now
    left = (now - self._began) / done * (total - done)
    print(
      f'{self._name}: {file_size(done)} of {file_size(total)}, '
      f'about {left:.0f} s left',
      file=sys.stderr,
      flush=True,
    )


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: a checkpoint that cannot be read or does not fit; nothing is
      written then.
  """
  args, overrides = _parse_args(argv)
  if overrides and not args.config:
    raise UserError(f'{overrides[0]} needs --config; name the config file.')
  given: dict[str, Any] = {
    name: value
    for name in ('student', 'teacher', 'vae', 'text')
    if (value := getattr(args, name)) is not None
  }
  if bool(given) == bool(args.model):
    raise UserError(
      'convert needs either checkpoints (--student, --teacher, --vae, --text) '
      'or --model with --to; see unitemp convert --help.'
    )
  if args.model:
    return convert_out.run(args, overrides, ProgressLine)
  return convert_in.run(args, overrides, given, ProgressLine)
