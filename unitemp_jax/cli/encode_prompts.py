"""Prompts to embeddings, shard by shard."""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from unitemp_jax import files
from unitemp_jax.convert import checkpoints, fit, load_torch
from unitemp_jax.data import prompt_embeddings
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate.prompt_encoder import PromptEncoder, fingerprint
from unitemp_jax.models import weights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

_SHARD = 256  # prompts


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what encoding prompts takes."""
  add = parser.add_argument_group('prompts').add_argument
  add(
    'prompts',
    nargs='*',
    type=Path,
    metavar='PROMPTS',
    help='text files with one prompt per line',
  )
  add(
    '--model',
    type=Path,
    default=model_folder.TINY,
    metavar='DIR',
    help='model folder whose text encoder and tokenizer to use',
  )
  add(
    '--checkpoint',
    type=Path,
    metavar='PATH',
    help="instead of --model: PyTorch's weights, as they were downloaded",
  )
  add('--tokenizer', type=Path, metavar='FILE', help='with --checkpoint')
  add(
    '--dtype',
    choices=sorted(prompt_embeddings.DTYPES),
    help="default: the model's own, bfloat16 with --checkpoint",
  )
  add('--batch_size', type=int, default=8, help='prompts at a time')
  add(
    '--shard',
    default=None,
    metavar='I/N',
    help='make every N-th shard from the I-th on, I from 0; default is one '
    'part per host',
  )


def read_prompts(paths: list[Path]) -> list[str]:
  """The lines of all files that are not blank; UserError if there are none."""
  lines: list[str] = []
  for path in paths:
    try:
      lines += path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'{path} cannot be read as text ({error}); check the path.'
      ) from error
  lines = [line for line in lines if line.strip()]
  if not lines:
    raise UserError('the files hold no prompts; write one per line.')
  return lines


def part_of(text: str | None) -> tuple[int, int]:
  """Which parts of N this command makes, 'I/N'; by default this host's."""
  if text is None:
    return jax.process_index(), jax.process_count()
  try:
    part, parts = map(int, text.split('/'))
  except ValueError:
    part, parts = -1, 0
  if not 0 <= part < parts:
    raise UserError(f'--shard={text} is not I/N with 0 <= I < N, such as 0/4.')
  return part, parts


def _text_config(args, overrides):
  """The encoder's size and how its weights are loaded, which are checked."""
  if args.checkpoint is None:
    path = args.model / 'text.safetensors'
    config = model_folder.read_card(args.model).text
    return config, path, lambda shapes: weights.load(path, shapes)
  if args.tokenizer is None:
    raise UserError('--checkpoint needs --tokenizer; give its tokenizer.json.')
  found = fit.find(checkpoints.open_checkpoint(args.checkpoint), 'umt5')
  if args.config:
    config = builders.text_config(load_config(args.config, overrides).model)
  else:
    config = fit.recognise(found)
  return (
    config,
    args.checkpoint,
    lambda shapes: load_torch(args.checkpoint, 'umt5', shapes),
  )


def _tokens(args, config):
  """Ids and masks of the prompts, those that tokenize alike only once."""
  path = args.tokenizer or args.model / 'tokenizer.json'
  tokenizer = Tokenizer.from_file(path)
  if tokenizer.vocab_size > config.vocab:
    raise UserError(
      f'{path} has {tokenizer.vocab_size} tokens and the text encoder '
      f'{config.vocab}; they do not belong together.'
    )
  ids, mask = tokenizer.encode(read_prompts(args.prompts), config.length)
  keys = [prompt_embeddings.key_of(*row) for row in zip(ids, mask, strict=True)]
  seen: dict[str, int] = {}
  for number, key in enumerate(keys):
    seen.setdefault(key, number)
  rows = np.fromiter(seen.values(), int)
  full = int(mask[rows].all(1).sum())
  if full:
    print(f'{full} prompts fill all {config.length} positions or were cut')
  digest = files.file_sha256(path)[:16]
  return ids[rows], mask[rows], list(seen), digest


def run(args: argparse.Namespace, overrides: list[str]) -> int:
  """Encodes the prompts; returns the exit code.

  Raises:
    UserError: bad arguments or files, or `--out` holds other embeddings.
  """
  if args.out is None:
    raise UserError('prompts need --out; name a folder for the embeddings.')
  if args.batch_size < 1:
    raise UserError('--batch_size must be at least 1.')
  part, parts = part_of(args.shard)
  config, path, load = _text_config(args, overrides)
  ids, mask, keys, tokenizer = _tokens(args, config)
  shards = -(-len(keys) // _SHARD)
  dtype = args.dtype or ('bfloat16' if args.checkpoint else config.dtype)
  mine = range(part, shards, parts)
  print(
    f'{len(keys)} prompts to {shards} shards in {args.out}; {len(mine)} are of '
    f'part {part}/{parts}'
  )
  if args.dry_run:
    return 0
  about = {
    'text': fingerprint(path),
    'tokenizer': tokenizer,
    'dtype': dtype,
    'length': config.length,
    'width': config.dim,
    'shards': shards,
    'per_shard': _SHARD,
  }
  prompt_embeddings.write_index(args.out, about, keys)
  missing = [
    shard
    for shard in mine
    if not prompt_embeddings.shard_path(args.out, shard).exists()
  ]
  if missing:
    encoder = PromptEncoder(config, dtype, load)
    _encode(encoder, args, ids, mask, missing)
  there = sum(
    prompt_embeddings.shard_path(args.out, i).exists() for i in range(shards)
  )
  if there < shards:
    print(f'{there} of {shards} shards are there; run the other parts as well')
  print(args.out)
  return 0


def _encode(encoder, args, ids, mask, shards) -> None:
  start = time.monotonic()
  for done, shard in enumerate(shards, 1):
    here = slice(shard * _SHARD, (shard + 1) * _SHARD)
    prompt_embeddings.write_shard(
      prompt_embeddings.shard_path(args.out, shard),
      list(encoder(ids[here], mask[here], args.batch_size)),
    )
    left = (time.monotonic() - start) / done * (len(shards) - done)
    print(f'shard {shard}: {done}/{len(shards)}, {left:.0f} s left', flush=True)
