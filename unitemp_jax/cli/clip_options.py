"""Options of the commands that measure folders of clips."""

import argparse
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.layout import Blocks


def add(parser: argparse.ArgumentParser) -> None:
  """Adds --out, --real, --blocks, --workers and --dry_run."""
  own = parser.add_argument
  own('--out', required=True, type=Path, metavar='OUT')
  own(
    '--real',
    type=Path,
    metavar='DIR',
    help='real footage; it is cut to the length, rate and size of the clips',
  )
  own(
    '--blocks',
    type=Blocks.parse,
    metavar='FIRST:PERIOD',
    help='boundaries of clips that do not tell theirs, in frames (8:12)',
  )
  own('--workers', type=int, default=1, help='processes (1)')
  own('--dry_run', action='store_true', help='say what is there, and stop')


def check(args: argparse.Namespace) -> None:
  """Raises UserError for values that cannot be used."""
  if args.workers < 1:
    raise UserError(f'--workers={args.workers} must be at least 1.')
  if args.out.exists() and not args.out.is_dir():
    raise UserError(f'--out={args.out} is a file; choose a folder.')
