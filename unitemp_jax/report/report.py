"""The report: a static page and a contact sheet of a folder of clips."""

import collections
import os
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.report import measurements, pages, read
from unitemp_jax.report.read import Clip, Contents
from unitemp_jax.video import write as video_write
from unitemp_jax.video.read import read_image, read_video

SHEET, PAGE, EYEBROW = 'sheet.png', 'index.html', 'unitemp report'


def write_report(folder: str | os.PathLike[str]) -> pathlib.Path:
  """Writes `folder/index.html` and returns its path.

  UserError if there is no such folder or not one usable clip in it.
  """
  return write_page(read.read_folder(pathlib.Path(folder)))


def write_page(contents: Contents) -> pathlib.Path:
  """Writes the page of what was read, and returns its path.

  UserError if it cannot be written, or another page is there.
  """
  page = contents.folder / PAGE
  pages.check_own(page, EYEBROW, (SHEET,))
  sheet = contents.folder / SHEET
  if (
    os.path.lexists(sheet) and (read_image(sheet)[:2] != video_write.EDGE).any()
  ):
    raise UserError(
      f'{sheet} is there already and was not written by this command; move it '
      'away.'
    )
  clips, cards = contents.clips, orders(contents)
  gallery = pages.write_gallery(page, rows(contents), contents.orders)
  text = pages.render(
    'report.html',
    title=contents.folder.resolve().name,
    eyebrow=EYEBROW,
    problems=contents.problems,
    contents=contents,
    prompts=len({clip.prompt for clip in clips}),
    gallery=gallery,
    orders=cards,
    top=max(max(card['mean'], default=0.0) for card in cards),
    measured=measurements.tables(contents.results),
    checkpoints=counted(clip.checkpoint for clip in clips),
    versions=counted(clip.version for clip in clips),
    shapes=counted(clip.shape for clip in clips),
    timings=timings(clips),
  )
  files.write(page, text)
  pages.remove_parts(page, gallery)
  return page


def rows(contents: Contents) -> list[pages.Row]:
  """Returns (prompt, seed or sample, clips in the order of orders)."""

  def which(clip: Clip) -> str:
    # Clips of a set have seeds of their own in every order.
    if clip.sample is not None:
      return f'sample {clip.sample}'
    return f'seed {clip.seed}'

  by_name = sorted(contents.clips, key=lambda c: c.name)
  found = pages.grouped(((c.prompt, which(c)), c) for c in by_name)
  place = {order: i for i, order in enumerate(contents.orders)}
  return [
    (*key, sorted(clips, key=lambda c: (place[c.order], c.name)))
    for key, clips in found.items()
  ]


def orders(contents: Contents) -> list[dict[str, Any]]:
  """Returns what is common to all clips of each order."""
  cards = []
  grouped = pages.grouped((clip.order, clip) for clip in contents.clips)
  for order in contents.orders:
    clips = grouped[order]
    mean = mean_difference(clips)
    edges = [j for j in clips[0].boundary_frames if 0 <= j < len(mean)]
    inside = [v for j, v in enumerate(mean) if j not in edges]
    means = ()
    if edges and inside:
      at = statistics.fmean(mean[j] for j in edges)
      means = (at, statistics.fmean(inside))
    plans = dict.fromkeys(c.plan_image for c in clips if c.plan_image)
    cards.append(
      dict(order=order, clips=clips, mean=mean, edges=edges)
      | dict(means=means, plans=list(plans))
    )
  return cards


def mean_difference(clips: Sequence[Clip]) -> list[float]:
  """Averages over the clips that have the most common length."""
  curves = [clip.frame_difference for clip in clips]
  length = statistics.mode(map(len, curves))
  same = [curve for curve in curves if len(curve) == length]
  return np.mean(same, axis=0).tolist()


def counted(values: Iterable[str]) -> list[tuple[str, int]]:
  """Lists different values with their counts; 0 for one that all have."""
  counts = collections.Counter(values)
  if len(counts) == 1 and '' not in counts:
    return [(value, 0) for value in counts]
  return [(value, count) for value, count in counts.items() if value]


def timings(clips: Sequence[Clip]) -> list[tuple[str, float]]:
  """Returns the mean of each recorded time in seconds."""
  times = pages.grouped(pair for c in clips for pair in c.timings.items())
  return [(name, statistics.fmean(found)) for name, found in times.items()]


def write_sheet(contents: Contents) -> pathlib.Path:
  """Writes `folder/sheet.png`: a row of frames of each order's first clip.

  A sheet has one picture size: clips of another one than the first are left
  out of it.
  """
  size = contents.clips[0].height, contents.clips[0].width
  first: dict[str, Clip] = {}
  for clip in contents.clips:
    if (clip.height, clip.width) == size:
      first.setdefault(clip.order, clip)
  videos = [
    read_video(contents.folder / clip.video)[0] for clip in first.values()
  ]
  labels = [f'{order}: {clip.prompt}' for order, clip in first.items()]
  # Small clips are written enlarged; undo that, the sheet enlarges by itself.
  shrink = max(max(videos[0].shape[1:3]) // 64, 1)
  videos = [video[:, ::shrink, ::shrink] for video in videos]
  path = contents.folder / SHEET
  video_write.write_sheet(path, videos, labels, columns=11, scale=1)
  return path
