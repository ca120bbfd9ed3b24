"""`unitemp plan`: print, check, draw or save a temporal order."""

from typing import Any

from unitemp_jax import files
from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError
from unitemp_jax.orders import from_options
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


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: an argument is wrong, the plan breaks a law, or `--out` is there
      already.
  """
  parser = Parser(
    'plan', 'Print, check, draw or save a temporal order.', EXAMPLE
  )
  parser.add_argument('--order', choices=list(from_options.ORDERS))
  parser.add('--plan', 'check a plan in JSON', metavar='FILE')
  for name, about in {**from_options.SETTINGS, **from_options.OWN}.items():
    kind = str if name in from_options.TEXTS else int
    parser.add_argument(f'--{name}', type=kind, help=about)
  parser.add_argument(
    '--loop', action='store_true', default=None, help='story: ends as it began'
  )
  parser.add('--out', 'write plan.json or .svg', metavar='FILE')
  parser.share('dry_run')
  options = dict(vars(parser.parse_args(argv)))
  out, dry_run = options.pop('out'), options.pop('dry_run')
  if out and not out.endswith(('.json', '.svg')):
    raise UserError(f'--out={out}: must end in .json or .svg')
  plan = _plan({k: v for k, v in options.items() if v is not None})
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
    return from_options.build(order, options)
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
