"""`unitemp teacher`: videos of the bidirectional teacher, the reference."""

import argparse
import os
from pathlib import Path

from unitemp_jax import progress
from unitemp_jax.cli import options
from unitemp_jax.cli.options import Parser, part_of
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.diffusion import guidance
from unitemp_jax.errors import UserError, foreign
from unitemp_jax.generate import clip_file
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.generate.text import Stored
from unitemp_jax.parallel import locks
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.sampling import model_folder, teacher
from unitemp_jax.sampling.teacher import SOLVERS, WAN_NEGATIVE_PROMPT
from unitemp_jax.video.write import write_video

_EXAMPLE = """examples:
  unitemp teacher --model=models/wan --prompt="a red kite" --out=out/teacher
  unitemp teacher --model=models/wan --prompts=prompts.txt --solver=unipc \\
    --steps=50 --shift=8 --guidance_scale=6 --wan_negative_prompt --out=out/t
  unitemp teacher --model=models/wan --prompts=prompts.txt \\
    --embeddings=data/prompts --out=out/t
The folder holds teacher.safetensors, vae.safetensors, tokenizer.json and,
unless prompts come as embeddings, text.safetensors. --guidance_scale is w in
u + w (c - u). Its former options, --guidance and --extra_guidance (w - 1), are
still understood.
Run the same command again to continue after an interruption."""


_OPTIONS = f"""
--model! DIR  its folder
@out @prompt @prompts @embeddings
--negative_prompt TEXT  default is no text at all
--wan_negative_prompt  Wan's own, in Chinese, as the negative prompt
--solver {'|'.join(SOLVERS)}=unipc
--steps N=50  of the solver
--shift X  default: the model's
--guidance_scale X  default: the model's; 1 for none
@seed
--batch_size N:1=1  clips at a time
@shard @dry_run
"""


def _parser() -> Parser:
  parser = Parser('teacher', __doc__, _OPTIONS, _EXAMPLE)
  for former in guidance.FORMER:
    parser.add_argument(f'--{former}', type=float, help=argparse.SUPPRESS)
  return parser


def _settings(args: argparse.Namespace) -> dict:
  names = ('guidance_scale', *guidance.FORMER)
  scale = None
  if any(getattr(args, name) is not None for name in names):
    scale = guidance.read_scale(vars(args), 'the command')
  negative = args.negative_prompt
  if args.wan_negative_prompt:
    if negative is not None:
      raise UserError(
        'give --negative_prompt or --wan_negative_prompt, one of the two.'
      )
    negative = WAN_NEGATIVE_PROMPT
  return {
    'num_steps': args.steps,
    'solver': args.solver,
    'shift': args.shift,
    'guidance_scale': scale,
    'negative_prompt': negative,
  }


def _tags(prompt: str, seed: int, settings: dict) -> dict:
  return {'prompt': prompt, 'seed': seed, 'teacher': settings}


def _is_there(path: Path, prompt: str, seed: int, settings: dict) -> bool:
  """Whether a clip is finished; UserError if the file is another one."""
  if not os.path.lexists(path):
    return False
  tags, found = _tags(prompt, seed, settings), clip_file.tags_of(path)
  if any(found.get(name) != value for name, value in tags.items()):
    raise foreign(path)
  return True


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  args = _parser().parse_args(argv)
  prompts, settings = options.read_prompts(args), _settings(args)
  if prompts is None:
    raise UserError('give --prompt or --prompts, one of the two.')
  card = model_folder.read_card(args.model)
  how = teacher.settings_of(card, **settings)
  tokenizer = Tokenizer.from_file(args.model / 'tokenizer.json')
  seeds = options.seeds(args.seed, len(prompts))
  wanted = [
    (args.out / clip_file.clip_name(i, prompt), prompt, seed)
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
  ]
  size, shard = min(args.batch_size, len(wanted)), part_of(args)
  wanted = wanted[shard[0] :: shard[1]]
  todo = [clip for clip in wanted if not _is_there(*clip, settings)]
  print(f'{len(todo)} of {len(wanted)} clips to make, to {args.out}')
  negative = settings['negative_prompt']
  texts = [*prompts, *([] if negative is None else [negative])]
  for text in dict.fromkeys(filter(str.strip, texts)):
    for remark in tokenizer.remarks(text, card.text.length):
      print(f'note: {remark}')
  if negative is not None and how.guidance_scale == 1:
    print('note: with --guidance_scale=1 the negative prompt does nothing')
  if args.embeddings is not None:
    Stored(args.embeddings, card, tokenizer).check(texts)
  if args.dry_run or not todo:
    return 0
  enable_compile_cache()
  model = Pipeline.load(args.model, embeddings=args.embeddings, teacher=True)
  with locks.lock(args.out, shard):
    for first in progress.track(range(0, len(todo), size), 'batch'):
      _make(model, todo[first : first + size], size, settings)
  print(args.out)
  return 0


def _make(model: Pipeline, batch: list, size: int, settings: dict) -> None:
  """Makes and writes clips: (path, prompt, seed) each."""
  # The last batch is filled up, so that all share one compilation.
  rows = batch + batch[-1:] * (size - len(batch))
  _, texts, seeds = zip(*rows, strict=True)
  made = model.sample_teacher(texts, seeds, **settings)
  for (path, prompt, seed), latents in zip(batch, made, strict=False):
    tags = _tags(prompt, seed, settings)
    write_video(path, model.decode(latents[None])[0], model.card.fps, tags)
    print(path, flush=True)
