"""`unitemp plan`: print, check, draw or save a temporal order."""

import argparse
from typing import Any, NoReturn

from unitemp_jax import orders, plan_drawing, plan_text
from unitemp_jax.errors import UserError
from unitemp_jax.plans import Plan, check

EXAMPLE = """examples:
  unitemp plan --order=backward --frames=33
  unitemp plan --order=inbetween --first=9 --last=1 --out=plan.svg
  unitemp plan --plan=plan.json --out=plan.svg
"""
ORDER_OPTIONS = (
  'frames',
  'block',
  'anchors',
  'start_level',
  'first',
  'last',
  'rows',
)
DEFAULT_FRAMES = 33


class _Parser(argparse.ArgumentParser):
  """A parser whose complaints are user errors like all others."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'unitemp plan: {message}; see unitemp plan --help')


def main(argv: list[str]) -> int:
  """Runs the verb.

  Args:
    argv: the arguments after the verb.

  Returns:
    0 on success.

  Raises:
    UserError: an argument is wrong, or the plan breaks a law.
  """
  args = _parser().parse_args(argv)
  if args.out and not args.out.endswith(('.json', '.svg')):
    raise UserError(f'--out={args.out}: must end in .json or .svg')
  plan = _plan(args)
  print(plan_text.table(plan))
  if args.out and args.dry_run:
    print(f'would write {args.out}')
  elif args.out:
    if args.out.endswith('.json'):
      plan_text.save(plan, args.out)
    else:
      plan_text.write_text(args.out, plan_drawing.draw(plan))
    print(f'wrote {args.out}')
  return 0


def _parser():
  parser = _Parser(
    prog='unitemp plan',
    description='Print, check, draw or save a temporal order.',
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--order', choices=list(orders.ORDERS))
  parser.add_argument('--plan', metavar='FILE', help='check a plan in JSON')
  parser.add_argument(
    '--frames', type=int, help=f'frames of the video ({DEFAULT_FRAMES})'
  )
  parser.add_argument('--block', type=int, help='latents per block (3)')
  parser.add_argument('--anchors', type=int, help='anchors per block (3)')
  parser.add_argument(
    '--start_level',
    type=int,
    help='level at which blocks start from carried anchors (0 = never)',
  )
  parser.add_argument(
    '--first', type=int, help='frames given at the start (inbetween: 1, else 0)'
  )
  parser.add_argument(
    '--last', type=int, help='frames given at the end (inbetween: 1, else 0)'
  )
  parser.add_argument('--rows', type=int, help='pad to this many rows')
  parser.add_argument('--out', metavar='FILE', help='write plan.json or .svg')
  parser.add_argument(
    '--dry_run', action='store_true', help='print, but write nothing'
  )
  return parser


def _plan(args) -> Plan:
  given = {
    name: getattr(args, name)
    for name in ORDER_OPTIONS
    if getattr(args, name) is not None
  }
  if (args.plan is None) == (args.order is None):
    raise UserError('unitemp plan: give either --order or --plan=FILE')
  if args.plan is not None:
    if given:
      raise UserError(
        f'--{next(iter(given))}: belongs to --order; a plan from a file is '
        'taken as it is'
      )
    return plan_text.load(args.plan)
  settings: dict[str, Any] = {
    name: given[name] for name in ('block', 'anchors', 'rows') if name in given
  }
  if 'start_level' in given:
    settings['start'] = given['start_level']
  for option in ('first', 'last'):
    if option in given:
      settings[f'given_{option}'] = _latents(option, given[option])
  frames = given.get('frames', DEFAULT_FRAMES)
  plan = orders.ORDERS[args.order](_latents('frames', frames), **settings)
  check(plan)
  return plan


def _latents(option, frames):
  if option != 'frames' and frames == 0:
    return 0
  if frames < 1 or (frames - 1) % 4:
    lower = 1 + 4 * max((frames - 1) // 4, 0)
    raise UserError(
      f'--{option}={frames}: a clip has 1 + 4 k frames; use {lower} or '
      f'{lower + 4}'
    )
  return 1 + (frames - 1) // 4
