"""`unitemp report`: one static page from a folder of generated clips."""

from unitemp_jax.cli.options import Parser
from unitemp_jax.report import read, report

_OPTIONS = """
folder DIR  of "unitemp generate" or "unitemp evaluate generate"
@dry_run
"""
_EXAMPLE = 'example: unitemp report out/quickstart'


def main(argv: list[str]) -> int:
  """Writes the page and prints its path; what was left out comes first."""
  args = Parser('report', __doc__, _OPTIONS, _EXAMPLE).parse_args(argv)
  contents = read.read_folder(args.folder)
  for problem in contents.problems:
    print(f'left out: {problem}')
  print(f'{len(contents.clips)} clips, orders: {", ".join(contents.orders)}')
  if not args.dry_run:
    page = report.write_page(contents)  # Refuses what is not its own.
    print(report.write_sheet(contents))
    print(page)
  return 0
