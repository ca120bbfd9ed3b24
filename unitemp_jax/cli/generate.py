"""`unitemp generate`: video in any temporal order, from prompts and frames."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from unitemp_jax import files, orders, plans
from unitemp_jax.cli.options import (
  Parser,
  at_least,
  by_time,
  part_lock,
  read_prompts,
  seeds,
)
from unitemp_jax.errors import UserError
from unitemp_jax.plans import decoding, drawing, text

_EXAMPLE = f"""orders: {', '.join(orders.ORDERS)}

examples:
  # text to video, many prompts and orders in batches
  unitemp generate --orders=all --num_prompts=8 --out=out
  unitemp generate --prompt="a red seven falls" --orders=backward --out=out
  # one video from what you have; LEN and T are frames (24) or seconds (2s)
  unitemp generate --prompt="..." --image=start.png --at=0 --out=out
  unitemp generate --prompt="..." --extend=clip.mp4 --before=24 --after=2s \\
    --out=out
  unitemp generate --prompt="..." --keyframe=0:a.png --keyframe=32:b.png \\
    --keyframe=-1:c.mp4 --length=65 --out=out
  unitemp generate --prompt="..." --transition --first=a.mp4 --last=b.mp4 \\
    --length=65 --out=out
  unitemp generate --prompt="..." --loop --length=49 --out=out
  unitemp generate --prompt="..." --regenerate=clip.mp4 --span=9:19 \\
    --lossless --out=out
  unitemp generate --prompt="..." --long=120s --direction=backward \\
    --sinks=both --out=out
  unitemp generate --prompt="a red seven falls" \\
    --prompt_at=24:"a blue two falls" --long=10s --out=out
  unitemp generate --storyboard=story.yaml --out=out --dry_run
Run the same command again to continue after an interruption: the clip is the
same, byte for byte."""
_REPEATED: dict[str, Any] = {'action': 'append', 'default': []}
# Workflow -> the options that belong to it alone.
_OPTIONS: dict[str, tuple[str, ...]] = {
  'orders': ('first', 'last'),
  'image': ('at',),
  'extend': ('before', 'after', 'sides'),
  'keyframe': ('side',),
  'transition': ('first', 'last', 'side'),
  'loop': ('first', 'side'),
  'regenerate': ('span', 'side'),
  'long': ('first', 'last', 'direction', 'sinks', 'sink_latents'),
  'plan': (),
  'storyboard': (),
}
# The same -> its function in `generate.workflows`.
WORKFLOWS = {
  'image': 'image_to_video',
  'extend': 'extend',
  'keyframe': 'fill',
  'transition': 'transition',
  'loop': 'loop',
  'regenerate': 'regenerate',
  'long': 'long_video',
  'plan': 'from_plan',
}
# Workflows whose length follows from something else.
_NO_LENGTH = ('extend', 'regenerate', 'long', 'plan', 'storyboard')
# What a storyboard says, or has no say for.
_OF_STORYBOARDS = ('prompt', 'prompts', 'prompt_at', 'height', 'width', 'seed')
_OF_STORYBOARDS += ('window', 'anchors', 'start_level', 'block', 'trained_span')
_OF_STORYBOARDS += ('trim',)


def _parser() -> Parser:
  parser = Parser('generate', __doc__, _EXAMPLE)
  group = parser.add_argument_group('what to do (one of them)')
  one = group.add_mutually_exclusive_group().add_argument
  one('--orders', help='text to video: names with commas, or "all" (forward)')
  one('--image', type=Path, metavar='FILE', help='image to video')
  one('--extend', type=Path, metavar='CLIP')
  one(
    '--keyframe',
    **_REPEATED,
    metavar='T:FILE',
    help='image or clip at a time; -1: it ends the video; repeatable',
  )
  one('--transition', action='store_true', help='from --first to --last')
  one('--loop', action='store_true', help='ends where it starts')
  one('--regenerate', type=Path, metavar='CLIP')
  one('--long', metavar='LEN', help='through a sliding window')
  one('--storyboard', type=Path, metavar='FILE')
  of_file = 'by a plan in JSON, see "unitemp plan"'
  one('--plan', type=Path, metavar='FILE', help=of_file)
  add = parser.add
  add('--at', '--image: where it stands; -1 ends the video', metavar='T')
  add('--before', '--extend: how much is added before', metavar='LEN')
  add('--after', '--extend: how much is added after', metavar='LEN')
  add('--sides', '--extend: which grows first', choices=orders.GROWTHS)
  add('--span', '--regenerate: frames to be made anew', metavar='A:B')
  add('--side', 'where gaps are filled from', choices=orders.SIDES)
  add('--direction', '--long', choices=orders.DIRECTIONS)
  parser.share('sinks', help='--long: ends that stay in view')
  add('--sink_latents', '--long: latents per end that stay in view', int)
  parser.share('window')
  size = "--window in Self-Forcing's terms: with the block itself"
  add('--local_attn_size', size, int)
  add('--block', "latents per block; the model's by default", at_least(1))
  span = "latents that may meet in a view; the model's training by default"
  add('--trained_span', span, at_least(1))
  parser.share('prompt', 'prompts')
  parser.add_argument(
    '--prompt_at',
    **_REPEATED,
    metavar='T:TEXT',
    help='the prompt from a time on; --prompt holds before; repeatable',
  )
  add(
    '--num_prompts',
    'without a prompt, with --orders: captions of so many held-out clips, '
    'whose first and last frames are given to the orders that want them (8)',
    int,
  )
  parser.share('seed', default=None)
  add('--length', "of the video; the model's by default", metavar='LEN')
  add('--height', 'pixels; by default in the shape of given frames', int)
  add('--width', "at the model's area, or the model's own size", int)
  add('--first', 'image or clip that the video starts with', Path)
  add('--last', 'image or clip that the video ends with', Path)
  add('--trim', 'cut up to 3 frames off given clips to get 1 + 4k', bool)
  parser.share('out', 'model', 'mesh', 'shard', 'dry_run')
  parser.share('embeddings', 'anchors', 'start_level')
  add(
    '--decode',
    'the file: all at once, blocks as they are made, or one block later',
    default='joint',
    choices=decoding.MODES,
  )
  add('--noise', 'draws of all latents, see the guide', metavar='FILE.npz')
  add('--save_latents', 'write an npz of the latents too', bool)
  add('--lossless', 'write an mkv (FFV1) of the exact pixels too', bool)
  _add_files(parser)
  add('--batch_size', 'with --orders (8)', at_least(1))
  add('--draw', 'draw the plan', Path, metavar='FILE.svg')
  return parser


def _add_files(parser: Parser) -> None:
  """Adds a negative prompt, what files are written, and how."""
  add = parser.add
  add('--negative_prompt', 'by normalised attention guidance (2505.21179)')
  add('--nag_scale', 'its strength; 1: none (5)', float)
  add('--nag_tau', 'most growth of the norm (2.5)', float)
  add('--nag_alpha', 'share of what is guided (0.25)', float)
  also = 'files beside the mp4, with commas: gif, webm, mkv (lossless), png'
  add('--format', also, default='mp4')
  add('--frame', 'write this frame as a png too', choices=('first', 'last'))
  add('--playback_fps', 'of the files; without sound', float)
  add('--crf', 'quality of mp4 and webm, 0 (best) to 51', int, 18)
  turns = 'a loop in so many turns, as NAME.loop.mp4, for players that stop'
  add('--repeat', turns, int, 0)


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  args = parse(argv)
  if args.draw and args.draw.suffix != '.svg':
    raise UserError(f'--draw={args.draw}: must end in .svg.')
  todo = jobs(args)
  from unitemp_jax.generate import clip_file
  from unitemp_jax.parallel import processes

  number, shard = len(todo), processes.part_of(args.shard)
  todo = todo[shard[0] :: shard[1]]
  if args.storyboard:
    from unitemp_jax.generate import storyboard
    from unitemp_jax.sampling import model_folder

    board = storyboard.read(args.storyboard)
    card = model_folder.read_card(args.model)
    print(storyboard.describe(board, card), end='')
  print(f'{len(todo)} clips, to {args.out}')
  if args.decode == 'lag':
    made = {job.request.workflow: job.request.plan for job in todo}
    for note in decoding.lag_notes(made):
      print(note)
  for remark in dict.fromkeys(r for job in todo for r in job.request.remarks):
    print(f'note: {remark}')
  if args.dry_run or args.storyboard:
    clip_file.show(todo)
  if args.draw and not todo:
    raise UserError(f'--draw={args.draw}: this part has no clip to draw.')
  if args.draw:
    files.write(args.draw, drawing.draw(todo[0].request.plan), replace=False)
    print(f'drew {args.draw}')
  if args.dry_run:
    if args.embeddings is not None:
      from unitemp_jax.data.prompt_embeddings import PromptEmbeddings

      PromptEmbeddings(args.embeddings)
    return 0
  from unitemp_jax.generate import clips
  from unitemp_jax.generate.pipeline import Pipeline
  from unitemp_jax.generate.text import memory_report
  from unitemp_jax.parallel.mesh import enable_compile_cache
  from unitemp_jax.sampling import model_folder

  enable_compile_cache()
  card = model_folder.read_card(args.model)
  needed = memory_report(card, args.embeddings is not None)
  if needed:
    print(needed, flush=True)
  pipeline = Pipeline.load(
    args.model, embeddings=args.embeddings, mesh=args.mesh
  )
  size = None
  # Given noise and negative prompts go clip by clip.
  alone = args.noise is not None or args.negative_prompt is not None
  if workflow_of(args) == 'orders' and not alone:
    size = min(args.batch_size or 8, number)
  with files.lock(part_lock(args.out, shard)):
    done = clips.run(pipeline, todo, size)
  print(f'made {done}, {len(todo) - done} were there')
  for job in todo[:1] if len(todo) == 1 else []:
    print(job.path)
  print(args.out)
  return 0


def workflow_of(args: argparse.Namespace) -> str:
  """The name of what is to be done; 'orders' if nothing else is asked for."""
  for name in _OPTIONS:
    if getattr(args, name) not in (None, False, []):
      return name
  return 'orders'


def parse(argv: list[str]) -> argparse.Namespace:
  """The options of a command."""
  return _parser().parse_args(argv)


def jobs(args: argparse.Namespace) -> list[Any]:
  """The clips of a command; UserError for what does not fit."""
  from unitemp_jax.data.tokenizer import Tokenizer
  from unitemp_jax.generate import storyboard, workflows
  from unitemp_jax.sampling import model_folder

  name = workflow_of(args)
  _check_options(args, name)
  told = args.prompt is not None or args.prompts is not None
  if args.num_prompts is not None and (told or name != 'orders'):
    raise UserError('--num_prompts is for --orders without a prompt.')
  card = model_folder.read_card(args.model)
  tokenizer = Tokenizer.from_file(args.model / 'tokenizer.json')
  model = workflows.Model(card, tokenizer)
  if name == 'storyboard':
    board = storyboard.read(args.storyboard)
    requests = [storyboard.to_request(board, model)]
  elif name == 'orders':
    requests = _orders(args, model)
  else:
    prompts = read_prompts(args)
    if prompts is None:
      raise UserError(f'--{name} needs --prompt: what the video shows.')
    if name == 'plan':  # Once for all prompts.
      args.plan = _plan(args, model)
    requests = [
      _request(args, model, name, schedule(args, prompt), seed)
      for seed, prompt in zip(
        seeds(args.seed or 0, len(prompts)), prompts, strict=True
      )
    ]
  from unitemp_jax.video import formats

  if args.noise is not None:
    from unitemp_jax.generate import noise

    requests = noise.given_to(requests, args.noise, card)
  names = ('scale', 'tau', 'alpha')
  strengths = {
    n: x for n in names if (x := getattr(args, f'nag_{n}')) is not None
  }
  if strengths and args.negative_prompt is None:
    raise UserError('--nag_...: strengths of --negative_prompt; give one.')
  if args.negative_prompt is not None:
    from unitemp_jax.models.nag import Nag

    guide = Nag(args.negative_prompt, **strengths)
    unread = tokenizer.remarks(args.negative_prompt, card.text.length)
    requests = [
      dataclasses.replace(r, nag=guide, remarks=(*r.remarks, *unread))
      for r in requests
    ]
  output = formats.Output.parse(
    args.format,
    frame=args.frame,
    playback_fps=args.playback_fps,
    crf=args.crf,
    repeat=args.repeat,
  )
  if output.repeat and not any(r.plan.loops for r in requests):
    raise UserError('--repeat is for loops; leave it out, or use --loop.')
  from unitemp_jax.generate import clip_file, clips  # What is refused is fast.

  counts: dict[str, int] = {}
  made = []
  for request in requests:
    index = counts[request.workflow] = counts.get(request.workflow, -1) + 1
    title = args.storyboard.stem if name == 'storyboard' else request.prompts[0]
    path = args.out / request.workflow / clip_file.clip_name(index, title)
    job = clips.Job(
      *(path, request, args.decode, args.lossless, output, args.save_latents)
    )
    made.append(job)
  return made


def _check_options(args, name):
  if args.local_attn_size is not None:
    from unitemp_jax.sampling import model_folder

    if args.window is not None:
      raise UserError('--window and --local_attn_size say the same; give one.')
    block = args.block or model_folder.read_card(args.model).block
    args.window = orders.local_window(args.local_attn_size, block)
    print(
      f'--local_attn_size={args.local_attn_size} with blocks of {block}: '
      f'--window={args.window}'
    )
  for option in sorted({o for options in _OPTIONS.values() for o in options}):
    if getattr(args, option) is not None and option not in _OPTIONS[name]:
      homes = [f'--{n}' for n, own in _OPTIONS.items() if option in own]
      raise UserError(f'--{option} belongs to {" or ".join(homes)}.')
  if args.length is not None and name in _NO_LENGTH:
    raise UserError(
      f'--length does not go with --{name}, whose length follows from it.'
    )
  if name == 'storyboard':
    for option in _OF_STORYBOARDS:
      value = getattr(args, option)
      if value is not None and value is not False and value != []:
        raise UserError(
          f'--{option} does not go with --storyboard, whose file takes size, '
          'seed, anchors, window and prompts; say it there.'
        )
  if args.batch_size is not None and name != 'orders':
    raise UserError(f'--batch_size goes with --orders, not with --{name}.')


def _settings(args, seed) -> dict[str, Any]:
  own = {
    'seed': seed,
    'height': args.height,
    'width': args.width,
    'anchors': args.anchors,
    'start': args.start_level,
    'block': args.block,
    'window': args.window,
    'trained_span': args.trained_span,
    'trim': args.trim,
  }
  return own if args.length is None else {**own, 'length': args.length}


def _request(args, model, name, prompt, seed):
  from unitemp_jax.generate import workflows

  own = arguments(args, model, name, seed)
  return getattr(workflows, WORKFLOWS[name])(model, prompt=prompt, **own)


def arguments(args, model, name, seed) -> dict[str, Any]:
  """What a workflow is called with, but for the model and the prompt."""
  own = {
    option: getattr(args, option)
    for option in _OPTIONS[name]
    if getattr(args, option) is not None
  }
  own |= _settings(args, seed)
  if name == 'image':
    own['image'] = args.image
  elif name == 'long':
    own['length'] = args.long
  elif name == 'plan':
    own['plan'] = args.plan
  elif name == 'keyframe':
    own['keyframes'] = by_time(args.keyframe, '--keyframe', 'FILE')
  elif name == 'transition' and (args.first is None or args.last is None):
    raise UserError('--transition leads from --first to --last; give both.')
  elif name in ('extend', 'regenerate'):
    own['clip'] = getattr(args, name)
  if name == 'regenerate':
    low, colon, high = own.pop('span', '').partition(':')
    if not colon:
      raise UserError('--regenerate needs --span=A:B, the frames to make anew.')
    own['span'] = low, high
  return own


def _plan(args, model) -> plans.Plan:
  """The plan of a file, if it is one for this model."""
  for option in ('anchors', 'start_level', 'window', 'block', 'trained_span'):
    if getattr(args, option) is not None:
      raise UserError(f'--{option}: a plan says so itself.')
  plan, block = text.load(args.plan), model.card.block
  if plan.block != block or plan.num_anchors not in (0, block):
    raise UserError(
      f'{args.plan} has blocks of {plan.block} and {plan.num_anchors} anchors, '
      f'the model of {block} and 0 or {block}; write the plan with its numbers '
      f'(unitemp plan --block={block}).'
    )
  return plan


def schedule(args, prompt):
  """The prompt, or the prompts by time."""
  if not args.prompt_at:
    return prompt
  return by_time([f'0:{prompt}', *args.prompt_at], '--prompt_at', 'TEXT')


def _order_names(listed: str) -> list[str]:
  names = [name.strip() for name in listed.split(',')]
  if names == ['all']:
    return list(orders.ORDERS)
  for name in names:
    if name not in orders.ORDERS:
      raise UserError(
        f'--orders names {name!r}; use "all" alone, or some of '
        f'{", ".join(orders.ORDERS)}.'
      )
  return list(dict.fromkeys(names))


def _orders(args, model) -> list[Any]:
  """Every order for every prompt, with plans of one shape."""
  from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
  from unitemp_jax.generate import workflows

  names = _order_names('forward' if args.orders is None else args.orders)
  if args.prompt_at:
    raise UserError('--prompt_at does not go with --orders; use --long.')
  held_out, prompts = None, read_prompts(args)
  if prompts is None:
    number = 8 if args.num_prompts is None else args.num_prompts
    if not 1 <= number <= 10_000:
      raise UserError('--num_prompts must lie in 1..10000.')
    spec = FallingDigitsSpec(
      num_frames=model.card.frames, size=model.card.height, split='test'
    )
    held_out = sample_clips(spec, range(number))
    prompts = list(held_out['caption'])
  made: dict[str, list[Any]] = {}
  for name in names:
    for i, prompt in enumerate(prompts):
      ends = {'first': args.first, 'last': args.last}
      if held_out is not None and name.startswith('inbetween'):
        video = held_out['video'][i]
        ends = {'first': video[:1], 'last': video[-1:]}
      elif name == 'loop' and args.orders != 'loop':
        del ends['last']
      settings = {**_settings(args, (args.seed or 0) + i), 'bounded': False}
      request = workflows.text_to_video(
        model, prompt, order=name, **ends, **settings
      )
      made.setdefault(name, []).append(request)
  # One shape and one plan for all, so that they share one compiled program.
  aligned = plans.align(*(made[name][0].plan for name in names))
  return [
    dataclasses.replace(request, plan=plan)
    for plan, name in zip(aligned, names, strict=True)
    for request in made[name]
  ]
