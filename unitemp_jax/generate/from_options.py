"""Jobs from options, named as the command line names them.

Options are the attributes of an object, such as `argparse` makes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from unitemp_jax import orders, plans
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file, workflows
from unitemp_jax.generate.request import Request
from unitemp_jax.generate.storyboard import request as storyboard
from unitemp_jax.sampling import model_folder

# Workflow -> the options that belong to it alone.
_OPTIONS: dict[str, tuple[str, ...]] = {
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
_MAKE: dict[str, Callable[..., Request]] = {
  'image': workflows.image_to_video,
  'extend': workflows.extend,
  'keyframe': workflows.fill,
  'transition': workflows.transition,
  'loop': workflows.loop,
  'regenerate': workflows.regenerate,
  'long': workflows.long_video,
}
# Workflows whose length follows from something else.
_NO_LENGTH = ('extend', 'regenerate', 'long', 'storyboard')


def workflow_of(args: Any) -> str:
  """The name of what is to be done; 'orders' if nothing else is asked for."""
  for name in _OPTIONS:
    if getattr(args, name) not in (None, False, []):
      return name
  return 'orders'


def build_jobs(args: Any) -> list[clip_file.Job]:
  """The clips of a command.

  Raises:
    UserError: an argument or a file does not fit.
  """
  name = workflow_of(args)
  _check_options(args, name)
  model = workflows.Model(
    model_folder.read_card(args.model),
    Tokenizer.from_file(args.model / 'tokenizer.json'),
  )
  if name == 'storyboard':
    board = storyboard.read(args.storyboard)
    requests = [storyboard.to_request(board, model)]
    print(storyboard.describe(board, model.card), end='')
  elif name == 'orders':
    requests = _orders(args, model)
  else:
    prompts = _prompts(args)
    if prompts is None:
      raise UserError(f'--{name} needs --prompt: what the video shows.')
    requests = [
      _request(args, model, name, _schedule(args, prompt), args.seed + i)
      for i, prompt in enumerate(prompts)
    ]
  counts: dict[str, int] = {}
  made = []
  for request in requests:
    index = counts[request.workflow] = counts.get(request.workflow, -1) + 1
    title = args.storyboard.stem if name == 'storyboard' else request.prompts[0]
    path = args.out / request.workflow / clip_file.clip_name(index, title)
    made.append(clip_file.Job(path, request, args.decode, args.lossless))
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
  own = {
    'seed': seed,
    'height': args.height,
    'width': args.width,
    'anchors': args.anchors,
    'start': args.start_level,
    'window': args.window,
    'trim': args.trim,
  }
  return own if args.length is None else {**own, 'length': args.length}


def _request(args, model, name, prompt, seed) -> Request:
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
  elif name == 'keyframe':
    own['keyframes'] = _by_time(args.keyframe, '--keyframe', 'FILE')
  elif name == 'transition' and (args.first is None or args.last is None):
    raise UserError('--transition leads from --first to --last; give both.')
  elif name in ('extend', 'regenerate'):
    own['clip'] = getattr(args, name)
  if name == 'regenerate':
    low, colon, high = own.pop('span', '').partition(':')
    if not colon:
      raise UserError('--regenerate needs --span=A:B, the frames to make anew.')
    own['span'] = low, high
  return _MAKE[name](model, prompt=prompt, **own)


def _by_time(texts: list[str], option: str, what: str) -> dict[str, str]:
  """Reads 'T:WHAT' by time."""
  found: dict[str, str] = {}
  for entry in texts:
    time, colon, value = entry.partition(':')
    if not colon or not value.strip():
      raise UserError(f'{option}={entry}: write it as T:{what}.')
    if time in found:
      raise UserError(f'{option}={entry}: there is one at {time} already.')
    found[time] = value.strip()
  return found


def _schedule(args, prompt):
  if not args.prompt_at:
    return prompt
  return _by_time([f'0:{prompt}', *args.prompt_at], '--prompt_at', 'TEXT')


def _prompts(args) -> list[str] | None:
  if args.prompt is not None:
    lines = [args.prompt]
  elif args.prompts is not None:
    try:
      lines = args.prompts.read_text('utf-8-sig').splitlines()
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


def _order_names(listed: str) -> list[str]:
  names = list(orders.ORDERS) if listed == 'all' else listed.split(',')
  for name in names:
    if name not in orders.ORDERS:
      raise UserError(
        f'--orders names {name!r}; use "all" or some of '
        f'{", ".join(orders.ORDERS)}.'
      )
  return list(dict.fromkeys(names))


def _orders(args, model) -> list[Request]:
  """Every order for every prompt, with plans of one shape."""
  names = _order_names('forward' if args.orders is None else args.orders)
  if args.prompt_at:
    raise UserError('--prompt_at does not go with --orders; use --long.')
  held_out, prompts = None, _prompts(args)
  if prompts is None:
    if args.num_prompts < 1:
      raise UserError('--num_prompts must be at least 1.')
    spec = FallingDigitsSpec(
      num_frames=model.card.frames, size=model.card.height, split='test'
    )
    held_out = sample_clips(spec, range(args.num_prompts))
    prompts = list(held_out['caption'])
  made: dict[str, list[Request]] = {}
  for name in names:
    for i, prompt in enumerate(prompts):
      ends = {'first': args.first, 'last': args.last}
      if held_out is not None and name.startswith('inbetween'):
        video = held_out['video'][i]
        ends = {'first': video[:1], 'last': video[-1:]}
      elif name == 'loop' and args.orders != 'loop':
        del ends['last']
      settings = {**_settings(args, args.seed + i), 'bounded': False}
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
