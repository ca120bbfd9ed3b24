"""`unitemp plan`: print, check, draw or save a temporal order."""

from typing import Any

from unitemp_jax import files, orders, timeline
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.plans import Plan, check, drawing, text

EXAMPLE = """examples:
  unitemp plan --order=backward --frames=33
  unitemp plan --order=inbetween --first=9 --last=1 --out=plan.svg
  unitemp plan --order=extend --clip=9 --before=24 --after=12
  unitemp plan --order=keyframes --frames=61 --given=0,20,36:9 --prompts=24:1
  unitemp plan --order=regenerate --frames=61 --replace=21:31
  unitemp plan --order=story --scenes=36,36,24 --connections=12 --loop
  unitemp plan --order=long --frames=481 --sinks=both --span=21 --out=long.svg
  unitemp plan --plan=plan.json --out=plan.svg
"""

_ORDERS = {**orders.ORDERS, **orders.WORKFLOWS}
_FRAMES = 33
_MOST_PROMPTS = 10_000

_OPTIONS = f"""
--order ORDER  {', '.join(_ORDERS)}
--plan FILE  check a plan in JSON
--block N  latents per block (3)
--anchors N  anchors per block (3)
--start_level N  level at which blocks start from carried anchors (0 = never)
--window N  most latents that a row sees before its own (all)
--local_attn_size N  the same in Self-Forcing's terms: with its own
--span N  latents that the model was trained on: none farther away are seen
--rows N  pad to this many rows
--prompts FRAME:PROMPT,...  prompt numbers from frames on
--frames N  frames of the video ({_FRAMES})
--first N  frames given at the start (inbetween: 1, else 0)
--last N  frames given at the end (inbetween: 1, else 0)
--first_block N  forward: latents of the first block (1: Wan's first frame)
--given FRAME[:COUNT],...  keyframes, story: frames given
--side SIDE  from which side gaps are filled: {', '.join(orders.SIDES)}
--clip N  extend: frames of the clip (1, an image)
--before N  extend: frames to be added before it
--after N  extend: frames to be added after it
--sides SIDE  extend: which grows first: {', '.join(orders.GROWTHS)}
--replace FROM:TO  regenerate: first and last frame made anew
--scenes N,N,...  story: frames of each scene, as 24,24,24
--connections,--transitions N,...
  story: frames between scenes, one for all or each
--direction DIRECTION  long: {' or '.join(orders.DIRECTIONS)}
--sinks SINKS  long: ends that stay in view: {', '.join(orders.SINKS)}
--sink_latents N  long: latents per end that stay in view
--loop  story: ends as it began
--out NAME  write plan.json or .svg
@dry_run
"""
# Settings of all orders, and those that they know by the option's name.
_SETTINGS = ('block', 'anchors', 'start_level', 'window', 'local_attn_size')
_SETTINGS += ('span', 'rows', 'prompts')
_NAMES = ('block', 'anchors', 'window', 'span', 'rows', 'side', 'sides')
_NAMES += ('direction', 'sinks', 'sink_latents', 'loop')
_ENDS = ('frames', 'first', 'last')
_OF_ORDER = {
  **dict.fromkeys(orders.ORDERS, _ENDS),
  'forward': (*_ENDS, 'first_block'),
  'inbetween': (*_ENDS, 'side'),
  'loop': ('frames', 'first', 'side'),
  'extend': ('clip', 'before', 'after', 'sides'),
  'keyframes': ('frames', 'given', 'side'),
  'transition': (*_ENDS, 'side'),
  'regenerate': ('frames', 'replace', 'side'),
  'story': ('scenes', 'connections', 'given', 'loop', 'side'),
  'long': (*_ENDS, 'direction', 'sinks', 'sink_latents'),
}


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code."""
  about = 'Print, check, draw or save a temporal order.'
  parser = Parser('plan', about, _OPTIONS, EXAMPLE, ORDER=_ORDERS)
  options = dict(vars(parser.parse_args(argv)))
  out, dry_run = options.pop('out'), options.pop('dry_run')
  if out is not None and not out.endswith(('.json', '.svg')):
    raise UserError(f'--out={out}: must end in .json or .svg')
  plan = _plan(
    {k: v for k, v in options.items() if v is not None and v is not False}
  )
  print(text.table(plan))
  if out and dry_run:
    print(f'would write {out}')
  elif out:
    draw = text.to_json if out.endswith('.json') else drawing.draw
    files.write(out, draw(plan), replace=False)
    print(f'wrote {out}')
  return 0


def _plan(options: dict[str, Any]) -> Plan:
  order, file = options.pop('order', None), options.pop('plan', None)
  if (file is None) == (order is None):
    raise UserError('unitemp plan: give either --order or --plan=FILE')
  if order is not None:
    return _build(order, options)
  # A file does not tell how large window and span may be.
  laws = {name: options.pop(name, None) for name in ('window', 'span')}
  if options:
    raise UserError(
      f'--{next(iter(options))}: belongs to --order; a plan from a file is '
      'taken as it is'
    )
  plan = text.load(file)
  check(plan, **laws)
  return plan


def _build(order: str, options: dict[str, Any]) -> Plan:
  """Returns the plan of an order."""
  own = _OF_ORDER[order]
  for name in options:
    if name not in (*own, *_SETTINGS):
      raise UserError(
        f'--{name}: order {order} does not have it; it has '
        f'{", ".join("--" + one for one in own)}'
      )
  if options.get('rows', 0) > timeline.MOST_FRAMES:
    raise UserError(f'--rows: use at most {timeline.MOST_FRAMES}')
  settings = {name: options[name] for name in _NAMES if name in options}
  if 'start_level' in options:
    settings['start'] = options['start_level']
  size = options.get('local_attn_size')
  if size is not None:
    if 'window' in options:
      raise UserError('--window and --local_attn_size say the same; give one.')
    settings['window'] = orders.local_window(size, options.get('block', 3))
  before = _whole('before', options.get('before', 0))
  if 'prompts' in options:
    settings['prompts'] = [
      (timeline.latent_of(frame) - before, index)
      for frame, index in _pairs('prompts', options['prompts'])
    ]
  if 'first_block' in options:  # A block begins where a prompt does.
    first = (options['first_block'], 0)
    settings['prompts'] = [first, *settings.get('prompts', ())]
  if order == 'extend':
    settings['before'] = before
    settings['after'] = _whole('after', options.get('after', 0))
    arguments = [_latents('clip', options.get('clip', 1))]
  elif order == 'story':
    arguments = _story(options, settings)
  else:
    arguments = [_latents('frames', options.get('frames', _FRAMES))]
    if order == 'keyframes':
      arguments.append(_given(options))
    if order == 'regenerate':
      arguments += _replaced(options)
    for name in ('first', 'last'):
      if name in options:
        count = options[name]
        count = _latents(name, count) if count else 0
        settings[f'given_{name}'] = count
  return _ORDERS[order](*arguments, **settings)


def _latents(option: str, frames: int) -> int:
  """Latents of a clip of 1 + 4k frames; UserError for another number."""
  frames = timeline.fit(frames, f'--{option}', offset=1, least=1)
  return timeline.num_latents(frames)


def _replaced(options):
  if 'replace' not in options:
    raise UserError(
      '--order=regenerate: say which frames to make anew, as --replace=9:19'
    )
  low, high = _pairs('replace', options['replace'])[0]
  # The last frame of the last latent is the first one that is kept.
  if low % 4 != 1 or high % 4 != 3 or low > high:
    near = 4 * max(round((low - 1) / 4), 0) + 1
    raise UserError(
      f'--replace={low}:{high}: what is made anew begins at 1, 5, 9, ... and '
      f'ends at 3, 7, 11, ...; use {near}:'
      f'{max(4 * round((high - 3) / 4) + 3, near + 2)}'
    )
  first = timeline.latent_of(low)
  return [first, timeline.latent_of(high) - first + 1]


def _story(options, settings):
  lengths, links = (
    [_whole(name, int(n)) for (n,) in _lists(name, options.get(name, default))]
    for name, default in (('scenes', '20,20'), ('connections', '12'))
  )
  scenes = [orders.Scene(n + (k == 0), k) for k, n in enumerate(lengths)]
  settings['given'] = _given(options)
  return [scenes, links[0] if len(links) == 1 else links]


def _whole(name: str, frames: int) -> int:
  """Latents of frames that are added to a video: 4 each."""
  return timeline.fit(frames, f'--{name}') // timeline.STRIDE


def _given(options):
  given = []
  for frame, count in _pairs('given', options.get('given', ''), default=1):
    given.append((_whole('given', frame), _latents('given', count)))
  return given


def _lists(name, words, pairs=False):
  """Reads 'a,b' or 'a:b,c:d' as tuples of texts that are whole numbers."""
  found = [part.split(':') for part in words.split(',')] if words else []
  most = 2 if pairs else 1
  for part in found:
    if len(part) > most or not all(n.strip().isdecimal() for n in part):
      as_ = 'pairs of whole numbers, as 0:1,16:2'
      if not pairs:
        as_ = 'whole numbers with commas, as 20,12'
      raise UserError(f'--{name}={words[:60]}: must be {as_}')
    if max(map(len, part)) > 9:
      raise UserError(
        f'--{name}={words[:60]}: a number is too large; use nine digits at most'
      )
  return found


def _pairs(name, words, default=None):
  """Reads 'a:b,c:d'; `:b` may be left out if there is a default."""
  pairs = []
  for first, *second in _lists(name, words, pairs=True):
    if not second and default is None:
      raise UserError(
        f'--{name}={words[:60]}: must be pairs of whole numbers, as 0:1,16:2'
      )
    pairs.append((int(first), int(second[0]) if second else default))
  if name == 'prompts' and any(k > _MOST_PROMPTS for _, k in pairs):
    raise UserError(
      f'--prompts={words[:60]}: use numbers up to {_MOST_PROMPTS}'
    )
  return pairs
