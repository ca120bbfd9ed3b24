"""`unitemp report`: one static page from a folder of generated clips."""

import argparse
import pathlib

from unitemp_jax.report import read, report


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the arguments of the verb."""
  parser = argparse.ArgumentParser(
    prog='unitemp report',
    description='Write one page that shows a folder of generated clips.',
    epilog='example: unitemp report out/quickstart',
  )
  parser.add_argument(
    'folder', metavar='DIR', help='folder that unitemp generate wrote'
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='say what would be shown and stop'
  )
  return parser.parse_args(argv)


def main(argv: list[str]) -> int:
  """Writes the page and prints its path; what was left out comes first.

  Raises:
    UserError: there is no such folder or not one usable clip in it.
  """
  arguments = parse(argv)
  contents = read.read_folder(pathlib.Path(arguments.folder))
  for problem in contents.problems:
    print(f'left out: {problem}')
  print(f'{len(contents.clips)} clips, orders: {", ".join(contents.orders)}')
  if not arguments.dry_run:
    print(report.write_sheet(contents))
    print(report.write_page(contents))
  return 0
