"""From the arguments of `unitemp generate` to the clips to be made."""

import argparse
from typing import Any

import numpy as np

from unitemp_jax import orders, plans
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.errors import UserError
from unitemp_jax.generate import jobs, workflows
from unitemp_jax.generate.draft import Draft
from unitemp_jax.generate.request import Given, Request
from unitemp_jax.generate.storyboard import request as storyboard
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.video.resize import fit

# Workflow -> the options that belong to it alone.
_OPTIONS = {
  'orders': ('first', 'last'),
  'image': ('at',),
  'extend': ('before', 'after', 'sides'),
  'keyframe': ('side',),
  'transition': ('first', 'last', 'side'),
  'loop': ('first', 'side'),
  'regenerate': ('span', 'side'),
  'long': ('first', 'last', 'direction', 'sinks'),
  'storyboard': (),
}
# How the command calls the lengths that a workflow's clip has otherwise.
_NO_LENGTH = ('extend', 'regenerate', 'long', 'storyboard')


def workflow(args: argparse.Namespace) -> str:
  """The name of what is to be done; 'orders' if nothing else is asked for."""
  for name in _OPTIONS:
    if getattr(args, name):
      return name
  return 'orders'


def build_jobs(args: argparse.Namespace, card: ModelCard) -> list[jobs.Job]:
  """The clips of a command, each with its plan.

  Raises:
    UserError: an argument or a file does not fit.
  """
  name = workflow(args)
  _check_options(args, name)
  if name == 'orders':
    requests = _orders(args, card)
  elif name == 'storyboard':
    requests = [_storyboard(args, card)]
  else:
    prompts = _prompts(args)
    if prompts is None:
      raise UserError(f'--{name} needs --prompt: what the video shows.')
    requests = [
      _request(args, card, name, _schedule(args, prompt), args.seed + i)
      for i, prompt in enumerate(prompts)
    ]
  counts: dict[str, int] = {}
  made = []
  for request in requests:
    index = counts.setdefault(request.workflow, 0)
    counts[request.workflow] += 1
    title = args.storyboard.stem if name == 'storyboard' else request.prompts[0]
    path = args.out / request.workflow / jobs.clip_name(index, title)
    made.append(jobs.Job(path, request, args.decode, args.lossless))
  return made


def _check_options(args, name):
  for option in sorted({o for options in _OPTIONS.values() for o in options}):
    if getattr(args, option) is not None and option not in _OPTIONS[name]:
      homes = [f'--{n}' for n, own in _OPTIONS.items() if option in own]
      raise UserError(f'--{option} belongs to {" or ".join(homes)}.')
  if args.length is not None and name in _NO_LENGTH:
    raise UserError(
      f'--length does not go with --{name}, whose length follows from it.'
    )
  if name == 'storyboard':
    for option in ('prompt', 'prompts', 'height', 'width', 'window'):
      if getattr(args, option) is not None:
        raise UserError(f'--{option}: a storyboard says so itself.')


def _settings(args, seed) -> dict[str, Any]:
  return {
    'seed': seed % 2**32,
    'height': args.height,
    'width': args.width,
    'anchors': args.anchors,
    'start': args.start_level,
    'window': args.window,
    'trim': args.trim,
  }


def _request(args, card, name, prompt, seed) -> Request:
  own = {
    option: getattr(args, option)
    for option in _OPTIONS[name]
    if getattr(args, option) is not None
  }
  own |= _settings(args, seed)
  if args.length is not None:
    own['length'] = args.length
  if name == 'image':
    return workflows.image_to_video(card, args.image, prompt, **own)
  if name == 'extend':
    return workflows.extend(card, args.extend, prompt, **own)
  if name == 'keyframe':
    return workflows.fill(card, _keyframes(args), prompt, **own)
  if name == 'transition':
    if args.first is None or args.last is None:
      raise UserError('--transition leads from --first to --last; give both.')
    return workflows.transition(
      card, own.pop('first'), own.pop('last'), prompt, **own
    )
  if name == 'loop':
    return workflows.loop(card, prompt, **own)
  if name == 'regenerate':
    span = own.pop('span', None)
    if span is None or ':' not in span:
      raise UserError('--regenerate needs --span=A:B, the frames to make anew.')
    low, _, high = span.partition(':')
    return workflows.regenerate(
      card, args.regenerate, (low, high), prompt, **own
    )
  return workflows.long_video(card, prompt, args.long, **own)


def _keyframes(args) -> dict[str, str]:
  found = {}
  for text in args.keyframe:
    time, colon, path = text.partition(':')
    if not colon or not path:
      raise UserError(f'--keyframe={text}: write it as T:FILE.')
    if time in found:
      raise UserError(f'--keyframe={text}: there is one at {time} already.')
    found[time] = path
  return found


def _schedule(args, prompt):
  if not args.prompt_at:
    return prompt
  schedule = {'0': prompt}
  for text in args.prompt_at:
    time, colon, words = text.partition(':')
    if not colon or not words.strip():
      raise UserError(f'--prompt_at={text}: write it as T:TEXT.')
    if time in schedule:
      raise UserError(f'--prompt_at={text}: there is one at {time} already.')
    schedule[time] = words.strip()
  return schedule


def _storyboard(args, card) -> Request:
  """Reads a storyboard and shows its scenes on the timeline."""
  board = storyboard.read(args.storyboard)
  request = storyboard.to_request(board, card)
  print(storyboard.describe(board, card), end='')
  return request


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


def _order_names(text: str) -> list[str]:
  names = list(orders.ORDERS) if text == 'all' else text.split(',')
  for name in names:
    if name not in orders.ORDERS:
      raise UserError(
        f'--orders names {name!r}; use "all" or some of '
        f'{", ".join(orders.ORDERS)}.'
      )
  return names


def _orders(args, card) -> list[Request]:
  """Every order for every prompt, with plans of one shape."""
  names = _order_names(args.orders or 'forward')
  draft = Draft(card, _settings(args, args.seed))
  frames = draft.length(args.length)
  wanted = _with_ends(args, card, draft)
  made = {}
  for name in names:
    first, last = _ends_for(name, wanted[0][1], args)
    made[name] = orders.ORDERS[name](
      1 + (frames - 1) // 4,
      given_first=0 if first is None else 1 + len(first) // 4,
      given_last=0 if last is None else 1 + len(last) // 4,
      **draft.order,
    )
  # One shape for all orders, so that they share one compiled program.
  aligned = dict(zip(made, plans.align(*made.values()), strict=True))
  requests = []
  for name in names:
    for i, (prompt, ends) in enumerate(wanted):
      first, last = _ends_for(name, ends, args)
      clips = [clip for clip in (first, last) if clip is not None]
      height, width = draft.resolution(clips)
      given = []
      if first is not None:
        given.append(Given(0, fit(first, height, width)))
      if last is not None:
        clip = fit(last, height, width)
        given.append(Given(frames - len(clip), clip))
      seed = (args.seed + i) % 2**32
      requests.append(
        Request(
          name, aligned[name], (prompt,), seed, height, width, tuple(given)
        )
      )
  return requests


Ends = tuple[np.ndarray | None, np.ndarray | None]  # first, last


def _with_ends(args, card, draft) -> list[tuple[str, Ends]]:
  """Prompts with the frames that may be given to them."""
  if args.prompt_at:
    raise UserError('--prompt_at does not go with --orders; use --long.')
  prompts = _prompts(args)
  if prompts is None:
    if args.num_prompts < 1:
      raise UserError('--num_prompts must be at least 1.')
    spec = FallingDigitsSpec(
      num_frames=card.frames, size=card.height, split='test'
    )
    clips = sample_clips(spec, range(args.num_prompts))
    return [
      (caption, (video[:1], video[-1:]))
      for caption, video in zip(clips['caption'], clips['video'], strict=True)
    ]
  ends = (
    None if args.first is None else draft.read(args.first, '--first'),
    None if args.last is None else draft.read(args.last, '--last'),
  )
  return [(prompt, ends) for prompt in prompts]


def _ends_for(order: str, ends: Ends, args) -> Ends:
  """What an order is given: both ends, what the user asked for, or nothing."""
  asked = args.first is not None or args.last is not None
  if order.startswith('inbetween'):
    if ends[0] is None or ends[1] is None:
      raise UserError(
        f'the order {order} fills between two given frames; give --first and '
        '--last.'
      )
    return ends
  if order == 'loop':
    if args.last is not None and args.orders == 'loop':
      raise UserError('a loop ends where it starts; leave out --last.')
    return (ends[0] if asked else None, None)
  return ends if asked else (None, None)
