"""`unitemp plan`: print, check, draw or save a temporal order."""

import argparse
from typing import NoReturn

from unitemp_jax import files
from unitemp_jax.cli import plan_request
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
  print(text.table(plan))
  if args.out and args.dry_run:
    print(f'would write {args.out}')
  elif args.out:
    draw = text.to_json if args.out.endswith('.json') else drawing.draw
    files.write(args.out, draw(plan), replace=False)
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
  parser.add_argument('--order', choices=list(plan_request.ORDERS))
  parser.add_argument('--plan', metavar='FILE', help='check a plan in JSON')
  plan_request.add_options(parser)
  parser.add_argument('--out', metavar='FILE', help='write plan.json or .svg')
  parser.add_argument(
    '--dry_run', action='store_true', help='print, but write nothing'
  )
  return parser


def _plan(args) -> Plan:
  options = {
    name: value
    for name, value in vars(args).items()
    if name not in ('order', 'plan', 'out', 'dry_run') and value is not None
  }
  if (args.plan is None) == (args.order is None):
    raise UserError('unitemp plan: give either --order or --plan=FILE')
  if args.order is not None:
    return plan_request.build(args.order, options)
  # A file does not tell how large window and span may be.
  laws = {name: options.pop(name, None) for name in ('window', 'span')}
  if options:
    raise UserError(
      f'--{next(iter(options))}: belongs to --order; a plan from a file is '
      'taken as it is'
    )
  plan = text.load(args.plan)
  check(plan, **laws)
  return plan
