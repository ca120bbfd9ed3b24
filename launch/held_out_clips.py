"""Writes held-out clips of falling digits as a folder of captioned videos.

usage: python launch/held_out_clips.py FOLDER NUMBER

Clips that are there already stay. It is what `unitemp evaluate generate
--suite=inbetween --manifest=FOLDER` and `unitemp evaluate folder --real=FOLDER`
want of the user's own footage.
"""

import sys
from pathlib import Path

from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.write import write_video

_AT_ONCE = 64


def write_clips(folder: Path, number: int) -> None:
  """Writes `NUMBER.mp4` with `NUMBER.txt`, in the form of the tiny model."""
  card = model_folder.read_card(model_folder.TINY)
  spec = FallingDigitsSpec(
    num_frames=card.frames, size=card.height, split='test'
  )
  missing = [i for i in range(number) if not _is_there(folder, i)]
  for first in range(0, len(missing), _AT_ONCE):
    indices = missing[first : first + _AT_ONCE]
    clips = sample_clips(spec, indices)
    pairs = zip(clips['video'], clips['caption'], strict=True)
    for i, (video, caption) in zip(indices, pairs, strict=True):
      path = _path(folder, i)
      write_video(path, video, card.fps)
      path.with_suffix('.txt').write_text(caption + '\n')


def _path(folder: Path, number: int) -> Path:
  return folder / f'{number:04d}.mp4'


def _is_there(folder: Path, number: int) -> bool:
  """Whether the clip is whole: its caption is written last."""
  path = _path(folder, number)
  return path.is_file() and path.with_suffix('.txt').is_file()


if __name__ == '__main__':
  if len(sys.argv) != 3:
    sys.exit('usage: python launch/held_out_clips.py FOLDER NUMBER')
  write_clips(Path(sys.argv[1]), int(sys.argv[2]))
