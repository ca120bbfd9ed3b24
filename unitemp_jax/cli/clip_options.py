"""Options of the commands that measure folders of clips."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips.layout import Blocks
from unitemp_jax.report import pages

# Beside the page, by a comparison or by measurements.
_WRITTEN = ('clips.csv', 'metrics.json', 'metrics.md', 'notes.json')
_WRITTEN += ('comparison.md', 'unpaired.csv', 'blind_key.json')
_WRITTEN += ('blind/index.html',)
_FOLDERS = ('measured', 'pictures', 'index.parts', 'blind', 'blind/clips')


OPTIONS = """
@out
--real DIR  real footage; it is cut to the length, rate and size of the clips
--blocks FIRST:PERIOD
  boundaries of clips that do not tell theirs, in frames (8:12)
--workers N:1=1  processes, at most one per core
@dry_run
""".strip()
KINDS: dict[str, Any] = {'FIRST:PERIOD': Blocks.parse}


def check(
  args: argparse.Namespace, eyebrow: str, folders: Iterable[Path]
) -> None:
  """Checks the options before anything is read."""
  for folder in folders:
    if folder.resolve() == args.out.resolve():
      raise UserError(
        f'--out={args.out} is where clips are read; choose another folder.'
      )
  files.check_no_links(args.out, _FOLDERS)
  pages.check_own(args.out / 'index.html', eyebrow, _WRITTEN)
  files.check_unchanged(args.out / files.HASHES)
