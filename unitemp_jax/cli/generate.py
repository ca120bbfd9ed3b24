"""`unitemp generate`: video in any temporal order, from prompts and frames."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from unitemp_jax import files, orders, plans
from unitemp_jax.cli.options import (
  Parser,
  by_time,
  out_folder,
  part_of,
  read_prompts,
  seeds,
  some,
)
from unitemp_jax.errors import UserError
from unitemp_jax.parallel import locks
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
_WORKFLOWS = """
--orders,--order NAME,...  text to video: names with commas, or "all" (forward)
--image FILE  image to video
--extend CLIP
--keyframe+ T:FILE  image or clip at a time; -1: it ends the video; repeatable
--transition  from --first to --last
--loop  ends where it starts
--regenerate CLIP
--long LEN  through a sliding window
--storyboard FILE
--plan FILE  by a plan in JSON, see "unitemp plan"
"""
_SETTINGS = f"""
--at T  --image: where it stands; -1 ends the video
--before LEN  --extend: how much is added before
--after LEN  --extend: how much is added after
--sides {'|'.join(orders.GROWTHS)}  --extend: which grows first
--span A:B  --regenerate: frames to be made anew
--side {'|'.join(orders.SIDES)}  where gaps are filled from
--direction {'|'.join(orders.DIRECTIONS)}  --long
@sinks  --long: ends that stay in view
--sink_latents N  --long: latents per end that stay in view
@window
--local_attn_size N
  --window in Self-Forcing's terms: with the block itself
--block N:1  latents per block; the model's by default
--trained_span N:1
  latents that may meet in a view; the model's training by default
@prompt @prompts
--prompt_at+ T:TEXT
  the prompt from a time on; --prompt holds before; repeatable
--num_prompts N
  without a prompt, with --orders: captions of so many held-out clips, whose
  first and last frames are given to the orders that want them (8)
--seed N  of the first clip; the next is + 1 (0)
--length LEN  of the video; the model's by default
--height N  pixels; by default in the shape of given frames
--width N  at the model's area, or the model's own size
--first FILE  image or clip that the video starts with
--last FILE  image or clip that the video ends with
--trim  cut up to 3 frames off given clips to get 1 + 4k
@out @model @mesh
@shard  every N-th part from the I-th on, I from 0
@dry_run @embeddings @anchors @start_level
--decode {'|'.join(decoding.MODES)}=joint
  the file: all at once, blocks as they are made, or one block later
--noise FILE.npz  draws of all latents, see the guide
--save_latents  write an npz of the latents too
--lossless  write an mkv (FFV1) of the exact pixels too
--negative_prompt TEXT  by normalised attention guidance (2505.21179)
--nag_scale X  its strength; 1: none (5)
--nag_tau X  most growth of the norm (2.5)
--nag_alpha X  share of what is guided (0.25)
--format NAME,...=mp4
  files beside the mp4, with commas: gif, webm, mkv (lossless), png
--frame first|last  write this frame as a png too
--playback_fps X  of the files; without sound
--crf N=18  quality of mp4 and webm, 0 (best) to 51
--repeat N=0
  a loop in so many turns, as NAME.loop.mp4, for players that stop
--batch_size N:1  with --orders (8)
--draw FILE.svg  draw the plan
"""
# What is to be done -> its function in `generate.workflows`, the argument that
# its option gives, and the options that belong to it.
_WAYS = {
  'orders': ('text_to_video', '', 'first last length batch_size num_prompts'),
  'image': ('image_to_video', 'image', 'at length'),
  'extend': ('extend', 'clip', 'before after sides'),
  'keyframe': ('fill', 'keyframes', 'side length'),
  'transition': ('transition', '', 'first last side length'),
  'loop': ('loop', '', 'first side length'),
  'regenerate': ('regenerate', 'clip', 'span side'),
  'long': ('long_video', 'length', 'first last direction sinks sink_latents'),
  'plan': ('from_plan', 'plan', ''),
  'storyboard': ('', '', ''),
}
# Settings of the order, by their names in `workflows`.
_ORDER = {'anchors': 'anchors', 'start': 'start_level', 'block': 'block'}
_ORDER |= {'window': 'window', 'trained_span': 'trained_span'}
# What a file says itself.
_SAID = {
  'plan': _ORDER.values(),
  'storyboard': (
    *('prompt', 'prompts', 'prompt_at', 'height', 'width', 'seed', 'trim'),
    *_ORDER.values(),
  ),
}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  args = parse(argv)
  if args.draw and args.draw.suffix != '.svg':
    raise UserError(f'--draw={args.draw}: must end in .svg.')
  todo = jobs(args)
  from unitemp_jax.generate import clip_file
  from unitemp_jax.sampling import model_folder

  card = model_folder.read_card(args.model)
  number = len(todo)
  shard = part_of(args)
  todo = todo[shard[0] :: shard[1]]
  if args.storyboard:
    from unitemp_jax.generate import storyboard

    board = storyboard.read(args.storyboard)
    print(storyboard.describe(board, card), end='')
  print(f'{len(todo)} clips, to {args.out}')
  if args.decode == 'lag':
    made = {job.request.workflow: job.request.plan for job in todo}
    for note in decoding.lag_notes(made):
      print(note)
  remarks = [*dict.fromkeys(r for job in todo for r in job.request.remarks)]
  for remark in some(remarks, 'notes'):
    print(f'note: {remark}')
  frames = min((job.request.num_frames for job in todo), default=card.frames)
  if frames < card.frames:
    print(
      f'note: the model was trained on {card.frames} frames; pictures of '
      f'{frames} may be worse'
    )
  if args.dry_run or args.storyboard:
    clip_file.show(todo)
  if args.embeddings is not None:
    _check_embeddings(args, card, [job.request for job in todo])
  if args.draw and not todo:
    raise UserError(f'--draw={args.draw}: this part has no clip to draw.')
  if args.draw:
    files.write(args.draw, drawing.draw(todo[0].request.plan), replace=False)
    print(f'drew {args.draw}')
  from unitemp_jax.generate import clips, memory

  if args.mesh:
    memory.mesh_of(card, args.mesh)
  if args.dry_run:
    there = [job for job in todo if job.path.parent.is_dir()]
    clips.unfinished(there, None)
    return 0
  from unitemp_jax.generate.pipeline import Pipeline
  from unitemp_jax.generate.text import memory_report
  from unitemp_jax.parallel.mesh import enable_compile_cache

  enable_compile_cache()
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
  with locks.lock(args.out, shard):
    done = clips.run(pipeline, todo, size)
  print(f'made {done}, {len(todo) - done} were there')
  for job in todo[:1] if len(todo) == 1 else []:
    print(job.path)
  print(args.out)
  return 0


def _check_embeddings(args, card, requests) -> None:
  from unitemp_jax.data.tokenizer import Tokenizer
  from unitemp_jax.generate.text import Stored

  texts = [text for request in requests for text in request.prompts]
  texts += [request.nag.prompt for request in requests if request.nag]
  tokenizer = Tokenizer.from_file(args.model / 'tokenizer.json')
  Stored(args.embeddings, card, tokenizer).check([*dict.fromkeys(texts)])


def workflow_of(args: argparse.Namespace) -> str:
  """The name of what is to be done; 'orders' if nothing else is asked for."""
  return next((name for name in _WAYS if _is_given(args, name)), 'orders')


def _is_given(args: argparse.Namespace, option: str) -> bool:
  value = getattr(args, option)
  return value is not None and value is not False and value != []


def parse(argv: list[str]) -> argparse.Namespace:
  """The options of a command."""
  kinds = {'FILE.svg': Path}
  parser = Parser('generate', __doc__, _SETTINGS, _EXAMPLE, **kinds)
  group = parser.add_argument_group('what to do (one of them)')
  parser.options(_WORKFLOWS, group.add_mutually_exclusive_group())
  return parser.parse_args(argv)


def jobs(args: argparse.Namespace) -> list[Any]:
  """The clips of a command; UserError for what does not fit."""
  from unitemp_jax.data.tokenizer import Tokenizer
  from unitemp_jax.generate import clip_file, storyboard, workflows
  from unitemp_jax.sampling import model_folder

  name = workflow_of(args)
  _check_options(args, name)
  if args.num_prompts is not None and (args.prompt or args.prompts):
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
    make = getattr(workflows, _WAYS[name][0])
    requests = [
      make(model, prompt=schedule(args, prompt), **arguments(args, name, seed))
      for seed, prompt in zip(
        seeds(args.seed or 0, len(prompts)), prompts, strict=True
      )
    ]
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
    if guide.scale == 1:
      unread.append('with --nag_scale=1 the negative prompt does nothing')
    requests = [
      dataclasses.replace(r, nag=guide, remarks=(*r.remarks, *unread))
      for r in requests
    ]
  output = clip_file.Output.parse(
    args.format + ',mkv' * args.lossless,
    frame=args.frame,
    playback_fps=args.playback_fps,
    crf=args.crf,
    repeat=args.repeat,
  )
  if output.repeat and not any(r.plan.loops for r in requests):
    raise UserError('--repeat is for loops; leave it out, or use --loop.')
  counts: dict[str, int] = {}
  made = []
  for request in requests:
    index = counts[request.workflow] = counts.get(request.workflow, -1) + 1
    title = args.storyboard.stem if name == 'storyboard' else request.prompts[0]
    path = args.out / request.workflow / clip_file.clip_name(index, title)
    job = clip_file.Job(
      *(path, request, args.decode, output, args.save_latents)
    )
    made.append(job)
  for folder in {job.path.parent for job in made}:
    files.check_no_links(args.out, [folder.name])
    out_folder(str(folder))
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
      + (f'--window={args.window}' if args.window else 'no --window')
    )
  homes: dict[str, list[str]] = {}
  for way, (_, _, own) in _WAYS.items():
    for option in own.split():
      homes.setdefault(option, []).append(way)
  for option, ways in homes.items():
    if _is_given(args, option) and name not in ways:
      raise UserError(
        f'--{option} belongs to --{" or --".join(ways)}, not to --{name}.'
      )
  for option in _SAID.get(name, ()):
    if _is_given(args, option):
      raise UserError(
        f'--{option} does not go with --{name}, whose file says so itself.'
      )


def _settings(args, seed) -> dict[str, Any]:
  own = {'seed': seed, 'length': args.length, 'trim': args.trim}
  own |= {'height': args.height, 'width': args.width}
  own |= {name: getattr(args, option) for name, option in _ORDER.items()}
  return {name: value for name, value in own.items() if value is not None}


def arguments(args, name, seed) -> dict[str, Any]:
  """What a workflow is called with, but for the model and the prompt."""
  _, given, options = _WAYS[name]
  own = {o: getattr(args, o) for o in options.split() if _is_given(args, o)}
  own |= _settings(args, seed)
  if given:
    own[given] = getattr(args, name)
  if name == 'keyframe':
    own[given] = by_time(args.keyframe, '--keyframe', 'FILE')
  elif name == 'transition' and (args.first is None or args.last is None):
    raise UserError('--transition leads from --first to --last; give both.')
  elif name == 'regenerate':
    low, colon, high = own.pop('span', '').partition(':')
    if not colon:
      raise UserError('--regenerate needs --span=A:B, the frames to make anew.')
    own['span'] = low, high
  return own


def _plan(args, model) -> plans.Plan:
  """The plan of a file, if it is one for this model."""
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


def _orders(args, model) -> list[Any]:
  """Every order for every prompt, with plans of one shape."""
  from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
  from unitemp_jax.generate import workflows

  names = ['forward'] if args.orders is None else orders.named(args.orders)
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
        if args.first is not None or args.last is not None:
          raise UserError(
            f'{name} without a prompt is given ends of held-out clips; leave '
            'out --first and --last, or give --prompt.'
          )
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
