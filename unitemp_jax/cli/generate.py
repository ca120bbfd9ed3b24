"""`unitemp generate`: video in any temporal order, from prompts and frames."""

import argparse
from pathlib import Path

from unitemp_jax import orders, plans
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.errors import UserError
from unitemp_jax.generate import conditioning, jobs, model_folder
from unitemp_jax.generate.conditioning import Ends
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.training.compile_cache import enable_compile_cache

_EXAMPLE = """examples:
  unitemp generate --orders=all --num_prompts=8 --out=out/quickstart
  unitemp generate --prompt="a red seven falls" --orders=backward --out=out/a
  unitemp generate --prompt="a red seven falls" --orders=inbetween \\
    --first=start.png --last=end.png --out=out/b
Run the same command again to continue after an interruption."""


def _parse_args(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='unitemp generate',
    description=__doc__,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--out', required=True, type=Path, metavar='DIR')
  add('--orders', default='forward', help='names with commas, or "all"')
  add('--prompt', help='one prompt')
  add('--prompts', type=Path, metavar='FILE', help='one prompt per line')
  add(
    '--num_prompts',
    type=int,
    default=8,
    help='without a prompt: so many captions of held-out clips, whose first '
    'and last frames are given to the orders that want them',
  )
  add('--seed', type=int, default=0, help='of the first clip; the next is + 1')
  add('--first', type=Path, help='image or clip that the video starts with')
  add('--last', type=Path, help='image or clip that the video ends with')
  add('--anchors', type=int, help='anchor latents; 0 for none')
  add('--start_level', type=int, help='see "unitemp plan"; 0 starts from noise')
  add('--decode', default='joint', choices=jobs.DECODES)
  add('--model', type=Path, default=model_folder.TINY, metavar='DIR')
  add('--batch_size', type=int, default=8)
  add('--dry_run', action='store_true')
  return parser.parse_args(argv)


def _order_names(text: str) -> list[str]:
  names = list(orders.ORDERS) if text == 'all' else text.split(',')
  for name in names:
    if name not in orders.ORDERS:
      raise UserError(
        f'--orders names {name!r}; use "all" or some of '
        f'{", ".join(orders.ORDERS)}.'
      )
  return names


def _prompts(args) -> list[str] | None:
  if args.prompt is not None:
    lines = [args.prompt]
  elif args.prompts is not None:
    try:
      lines = args.prompts.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'--prompts={args.prompts} cannot be read as text ({error}); check the '
        'path.'
      ) from error
    lines = [line for line in lines if line.strip()]
  else:
    return None
  if not lines or not all(line.strip() for line in lines):
    raise UserError('the prompt is empty; say what the video should show.')
  return [line.strip() for line in lines]


def _wanted(args, card) -> list[tuple[str, Ends]]:
  """Prompts with the frames that may be given to them."""
  prompts = _prompts(args)
  if prompts is None:
    if args.num_prompts < 1:
      raise UserError('--num_prompts must be at least 1.')
    spec = FallingDigitsSpec(
      num_frames=card.frames, size=card.height, split='test'
    )
    clips = sample_clips(spec, range(args.num_prompts))
    videos = clips['video']
    return [
      (caption, Ends(videos[i : i + 1, :1], videos[i : i + 1, -1:]))
      for i, caption in enumerate(clips['caption'])
    ]
  size = (card.height, card.width, card.fps)
  read = conditioning.read_end
  ends = Ends(
    None if args.first is None else read(args.first, *size),
    None if args.last is None else read(args.last, *size),
  )
  return [(prompt, ends) for prompt in prompts]


def _ends_for(order: str, ends: Ends, args) -> Ends:
  """What an order is given: both ends, what the user asked for, or nothing."""
  asked = args.first is not None or args.last is not None
  if order.startswith('inbetween'):
    if ends.first is None or ends.last is None:
      raise UserError(
        f'the order {order} fills between two given frames; give --first and '
        '--last.'
      )
    return ends
  if order == 'loop':
    if args.last is not None and args.orders == 'loop':
      raise UserError('a loop ends where it starts; leave out --last.')
    return Ends(ends.first if asked else None, None)
  return ends if asked else Ends()


def build_jobs(args, card) -> list[jobs.Job]:
  """The clips of a command, each with its plan, order by order."""
  names = _order_names(args.orders)
  wanted = _wanted(args, card)
  latents = 1 + (card.frames - 1) // 4
  anchors = card.anchors if args.anchors is None else args.anchors
  start = card.start if args.start_level is None else args.start_level
  if start > len(card.timesteps):
    raise UserError(
      f'--start_level={start} is beyond the {len(card.timesteps)} levels of '
      'this model; use a lower one.'
    )
  made = {}
  for name in names:
    first, last = _ends_for(name, wanted[0][1], args).counts
    made[name] = orders.ORDERS[name](
      latents,
      block=card.block,
      anchors=anchors,
      start=start,
      given_first=first,
      given_last=last,
    )
  # One shape for all orders, so that they share one compiled program.
  aligned = dict(zip(made, plans.align(*made.values()), strict=True))
  return [
    jobs.Job(
      path=args.out / name / jobs.clip_name(i, prompt),
      order=name,
      prompt=prompt,
      seed=(args.seed + i) % 2**32,
      plan=aligned[name],
      ends=_ends_for(name, ends, args),
      decode=args.decode,
    )
    for name in names
    for i, (prompt, ends) in enumerate(wanted)
  ]


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad arguments, files or plans; nothing is written then.
  """
  args = _parse_args(argv)
  if args.batch_size < 1:
    raise UserError('--batch_size must be at least 1.')
  if args.out.exists() and not args.out.is_dir():
    raise UserError(f'--out={args.out} is a file; name a folder.')
  todo = build_jobs(args, model_folder.read_card(args.model))
  print(f'{len(todo)} clips, to {args.out}')
  if args.dry_run:
    for job in todo:
      print(f'  {job.path}  seed {job.seed}  {job.prompt}')
    return 0
  enable_compile_cache()
  pipeline = Pipeline.load(args.model)
  size = min(args.batch_size, len(todo))
  done = jobs.run(pipeline, todo, size)
  print(f'made {done}, {len(todo) - done} were there')
  print(args.out)
  return 0
