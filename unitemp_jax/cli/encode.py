"""`unitemp encode`: clips to latents, or prompts to embeddings, by shards."""

import argparse
from pathlib import Path

from unitemp_jax import TINY
from unitemp_jax.cli.options import Parser, read_prompt_files
from unitemp_jax.data import latents, prompt_embeddings
from unitemp_jax.errors import UserError
from unitemp_jax.generate import encode_prompts
from unitemp_jax.parallel import processes
from unitemp_jax.training import encode
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

_EXAMPLE = """examples:
  Clips, to train on:
    unitemp encode --config=configs/tiny_teacher.py --out=data/tiny_latents
  Your own videos, at full size (config.data.videos, captions, fps):
    unitemp encode --config=configs/wan_1p3b_student_init.py \\
      --config.data.videos=my_videos --out=data/wan_latents --dry_run
  The same by several machines, each with its part, or together on a pod:
    unitemp encode --config=... --shard=0/4
    unitemp encode --config=... --hosts=4
  Prompts, with the text encoder of a model folder:
    unitemp encode prompts.txt --model=models/self_forcing --out=data/prompts
  Prompts, with downloaded weights, the second of four machines:
    unitemp encode prompts.txt --checkpoint=models_t5_umt5-xxl-enc-bf16.pth \\
      --tokenizer=google/umt5-xxl/tokenizer.json --out=data/prompts --shard=1/4
Run the same command again to continue after an interruption."""


_OPTIONS = f"""
@config?  what clips to encode, and how
@out?  default: config.latents.dir
@dry_run
prompts* PROMPTS  text files with one prompt per line
@model  whose text encoder and tokenizer to use
--checkpoint PATH
  instead of --model: PyTorch's weights, as they were downloaded
--tokenizer FILE  with --checkpoint
--dtype {'|'.join(sorted({*latents.DTYPES, *prompt_embeddings.DTYPES}))}
  on disk; default: float16 of clips, of prompts the model's own, bfloat16 with
  --checkpoint
--batch_size N:1
  prompts at a time (8), or clips at a time on each device (1)
@shard @hosts @coordinator @host_index
"""


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  parser = Parser('encode', __doc__, _OPTIONS, _EXAMPLE)
  args, overrides = parser.parse_with_overrides(argv)
  processes.join(args.hosts, args.coordinator, args.host_index)
  # All hosts wait for the slowest one, so that none ends the others.
  with processes.sync('Encoding'):
    _check(args, overrides)
    if args.prompts:
      _prompts(args, overrides)
    else:
      _clips(args, overrides)
  return 0


def _check(args: argparse.Namespace, overrides: list[str]) -> None:
  if args.checkpoint is None:
    if args.prompts and (args.config or overrides):
      raise UserError(
        'give prompts or --config, which says what clips to encode, one of the '
        'two; with --checkpoint it says the size of its encoder.'
      )
  elif args.tokenizer is None:
    raise UserError('--checkpoint needs --tokenizer; give its tokenizer.json.')
  elif args.model != TINY:
    raise UserError('give --model or --checkpoint, one of the two.')


def _clips(args: argparse.Namespace, overrides: list[str]) -> None:
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
  if args.dtype and args.dtype not in latents.DTYPES:
    raise UserError(
      f'--dtype={args.dtype}: latents are stored as '
      f'{" or ".join(latents.DTYPES)}.'
    )
  if args.out is None and ',' in config.latents.dir:
    raise UserError(
      f'config.latents.dir names several folders ({config.latents.dir}), one '
      'for each shape; say with --out which to write, and its shape '
      '(config.data.height, width and num_frames).'
    )
  out = args.out or Path(config.latents.dir)
  encode.encode(
    config,
    out,
    args.dry_run,
    part=processes.part_of(args.shard),
    dtype=args.dtype or 'float16',
    batch_size=args.batch_size or 1,
  )
  if args.dry_run:
    return
  captions = encode.write_captions(config, out)
  if captions is None:
    return
  if args.checkpoint or args.model != TINY:
    args.prompts, args.dtype = [captions], None
    args.out = Path(config.latents.embeddings)
    _prompts(args, overrides)
    return
  print(
    f'the captions are in {captions}; encode them before training: unitemp '
    f'encode {captions} --checkpoint=FILE '
    f'--tokenizer={config.latents.tokenizer} --out={config.latents.embeddings}'
  )


def _prompts(args: argparse.Namespace, overrides: list[str]) -> None:
  if args.out is None:
    raise UserError('prompts need --out; name a folder for the embeddings.')
  if args.dtype and args.dtype not in prompt_embeddings.DTYPES:
    raise UserError(
      f'--dtype={args.dtype}: embeddings are stored as '
      f'{" or ".join(prompt_embeddings.DTYPES)}.'
    )
  if args.checkpoint is None:
    encoder = encode_prompts.model_encoder(args.model)
  else:
    size = None
    if args.config:
      size = builders.text_config(load_config(args.config, overrides).model)
    encoder = encode_prompts.torch_encoder(args.checkpoint, size)
  encode_prompts.encode(
    encoder,
    args.tokenizer or args.model / 'tokenizer.json',
    read_prompt_files(args.prompts),
    args.out,
    dtype=args.dtype or ('bfloat16' if args.checkpoint else None),
    batch_size=args.batch_size or 8,
    part=processes.part_of(args.shard),
    dry_run=args.dry_run,
  )
