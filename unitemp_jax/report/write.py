"""Writes the report: one static page that shows a folder of generated clips."""

import os
import pathlib

from unitemp_jax.report import page, read, shell


def write_report(folder: str | os.PathLike[str]) -> pathlib.Path:
  """Writes `folder/index.html` and returns its path.

  Raises:
    UserError: there is no such folder or not one usable clip in it.
  """
  return write_page(read.read_folder(pathlib.Path(folder)))


def write_page(contents: read.Contents) -> pathlib.Path:
  """Writes the page of what was read, and returns its path.

  The page needs no server and no network: it opens from disk. An earlier page
  is replaced in one go, or kept if anything is wrong.
  """
  return shell.write(contents.folder / 'index.html', page.render(contents))
