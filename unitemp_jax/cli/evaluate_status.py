"""`unitemp evaluate status`: what of an evaluation set is there."""

import argparse
from pathlib import Path

from unitemp_jax.evaluation_sets.status import read_status, to_text


def main(argv: list[str]) -> int:
  """Runs the action; returns 0 if the set is complete, 1 if not.

  Raises:
    UserError: the folder is no set.
  """
  parser = argparse.ArgumentParser(
    prog='unitemp evaluate status',
    description=__doc__,
    epilog='example: unitemp evaluate status DIR',
    allow_abbrev=False,
  )
  parser.add_argument('folder', type=Path, metavar='DIR')
  status = read_status(parser.parse_args(argv).folder)
  print(to_text(status))
  return 1 if status.missing else 0
