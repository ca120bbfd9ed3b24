"""`unitemp encode`: clips to latents, or prompts to embeddings, by shards."""

import argparse
from pathlib import Path

from unitemp_jax.cli.options import Parser, at_least
from unitemp_jax.data import prompt_embeddings, shards
from unitemp_jax.errors import UserError
from unitemp_jax.generate import encode_prompts
from unitemp_jax.training import encode
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

_EXAMPLE = """examples:
  Clips, to train on:
    unitemp encode --config=configs/tiny_teacher.py --out=data/tiny_latents
  Your own videos, at full size (config.data.videos, captions, fps):
    unitemp encode --config=configs/wan_1p3b_student_init.py \\
      --config.data.videos=my_videos --out=data/wan_latents
  Prompts, with the text encoder of a model folder:
    unitemp encode prompts.txt --model=models/self_forcing --out=data/prompts
  Prompts, with downloaded weights, the second of four machines:
    unitemp encode prompts.txt --checkpoint=models_t5_umt5-xxl-enc-bf16.pth \\
      --tokenizer=google/umt5-xxl/tokenizer.json --out=data/prompts --shard=1/4
Run the same command again to continue after an interruption."""


def _parser() -> Parser:
  parser = Parser('encode', __doc__, _EXAMPLE)
  parser.share('config', required=False, help='what clips to encode, and how')
  parser.share('out', required=False, help='default: config.latents.dir')
  parser.share('dry_run')
  lines = 'text files with one prompt per line'
  parser.add('prompts', lines, Path, nargs='*', metavar='PROMPTS')
  parser.share('model', help='whose text encoder and tokenizer to use')
  torch = "instead of --model: PyTorch's weights, as they were downloaded"
  parser.add('--checkpoint', torch, Path, metavar='PATH')
  parser.add('--tokenizer', 'with --checkpoint', Path, metavar='FILE')
  dtype = "default: the model's own, bfloat16 with --checkpoint"
  parser.add('--dtype', dtype, choices=sorted(prompt_embeddings.DTYPES))
  parser.add('--batch_size', 'prompts at a time', at_least(1), 8)
  part = 'every N-th shard from the I-th on, I from 0; default: one per host'
  parser.add('--shard', part, metavar='I/N')
  return parser


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, files or weights, or `--out` holds other latents
      or embeddings.
  """
  args, overrides = _parser().parse_with_overrides(argv)
  if args.prompts:
    return _prompts(args, overrides)
  if args.config is None:
    raise UserError(
      'say what to encode: --config=FILE for clips, or files with prompts.'
    )
  config = load_config(args.config, overrides)
  if 'latents' not in config:
    raise UserError(
      f'{args.config} has no config.latents; use a stage after the VAE, such '
      'as configs/tiny_teacher.py.'
    )
  encode.encode(config, args.out or Path(config.latents.dir), args.dry_run)
  return 0


def _prompts(args: argparse.Namespace, overrides: list[str]) -> int:
  if args.out is None:
    raise UserError('prompts need --out; name a folder for the embeddings.')
  if args.checkpoint is None:
    encoder = encode_prompts.model_encoder(args.model)
  elif args.tokenizer is None:
    raise UserError('--checkpoint needs --tokenizer; give its tokenizer.json.')
  else:
    size = None
    if args.config:
      size = builders.text_config(load_config(args.config, overrides).model)
    encoder = encode_prompts.torch_encoder(args.checkpoint, size)
  encode_prompts.encode(
    encoder,
    args.tokenizer or args.model / 'tokenizer.json',
    shards.read_prompts(args.prompts),
    args.out,
    dtype=args.dtype or ('bfloat16' if args.checkpoint else None),
    batch_size=args.batch_size,
    part=shards.part_of(args.shard),
    dry_run=args.dry_run,
  )
  return 0
