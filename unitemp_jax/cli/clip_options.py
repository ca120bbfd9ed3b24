"""Options of the commands that measure folders of clips."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.layout import Blocks
from unitemp_jax.report import pages


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


def check(
  args: argparse.Namespace, eyebrow: str, folders: Iterable[Path]
) -> None:
  """Checks the options before anything is read.

  Args:
    args: parsed.
    eyebrow: of the page that will be written to `args.out`.
    folders: that are read.

  Raises:
    UserError: a value cannot be used, or output would mix with what is read.
  """
  if args.workers < 1:
    raise UserError(f'--workers={args.workers} must be at least 1.')
  if args.out.exists() and not args.out.is_dir():
    raise UserError(f'--out={args.out} is a file; choose a folder.')
  for folder in folders:
    if folder.resolve() == args.out.resolve():
      raise UserError(
        f'--out={args.out} is where clips are read; choose another folder.'
      )
  pages.check_own(args.out / 'index.html', eyebrow)
