"""One picture of a folder of clips: a row of frames per order."""

import pathlib

from unitemp_jax.report import read
from unitemp_jax.video import files

NAME = 'sheet.png'


def write_sheet(contents: read.Contents) -> pathlib.Path:
  """Writes `folder/sheet.png`: the first clip of every order.

  A sheet has one picture size: clips of another one than the first are left
  out of it.
  """
  first: dict[str, read.Clip] = {}
  for clip in contents.clips:
    if (clip.height, clip.width) == (
      contents.clips[0].height,
      contents.clips[0].width,
    ):
      first.setdefault(clip.order, clip)
  videos, labels = [], []
  for order, clip in first.items():
    frames, _ = files.read_video(contents.folder / clip.video)
    videos.append(frames)
    labels.append(f'{order}: {clip.prompt}')
  side = max(videos[0].shape[1:3])
  # Small clips are written enlarged; undo that, the sheet enlarges by itself.
  shrink = max(side // 64, 1)
  videos = [video[:, ::shrink, ::shrink] for video in videos]
  path = contents.folder / NAME
  files.write_sheet(path, videos, labels, columns=11, scale=1)
  return path
