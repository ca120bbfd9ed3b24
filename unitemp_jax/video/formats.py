"""The files that one video is written to, beside its mp4."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.video import write

FORMATS = ('mp4', 'gif', 'webm', 'png', 'mkv')
Append = Callable[[np.ndarray], None]


@contextlib.contextmanager
def open_others(
  path: Path,
  formats: Sequence[str],
  fps: float,
  frames: int,
  loops: bool,
  metadata: Mapping[str, Any] | None = None,
  *,
  sound: np.ndarray | None = None,
  frame: str | None = None,
  crf: int = 18,
  repeat: int = 0,
) -> Iterator[list[Append]]:
  """Opens all files of a video but its mp4; each appears when it is whole.

  Players show a loop's last frame and then its first, which are the same: gif,
  webm, the pictures and the file of `repeat` leave the last one out.

  Args:
    path: of the mp4; the others lie beside it.
    formats: of `FORMATS`.
    fps: frames per second.
    frames: of the video.
    loops: whether its last frame is its first.
    metadata: tags.
    sound: see `write.open_video`.
    frame: 'first' or 'last', written as a picture by itself.
    crf: see `write.open_video`.
    repeat: turns of a loop in a file of its own.

  Raises:
    UserError: a file cannot be written.
  """
  turn = frames - loops
  with contextlib.ExitStack() as stack:
    appends = []
    for name in formats:
      if name == 'mkv':
        video = write.open_video(
          path.with_suffix('.mkv'), fps, kind='mkv', sound=sound
        )
        appends.append(stack.enter_context(video))
        continue
      if name == 'gif':
        opened = write.open_gif(path.with_suffix('.gif'), fps)
      elif name == 'webm':
        opened = write.open_video(
          *(path.with_suffix('.webm'), fps, metadata),
          crf=crf,
          kind='webm',
          sound=sound,
        )
      else:
        opened = _pictures(path.with_suffix('.frames'))
      appends.append(_first(turn, stack.enter_context(opened)))
    if frame:
      place = 0 if frame == 'first' else frames - 1
      one = _one(path.with_suffix(f'.{frame}.png'), place)
      appends.append(stack.enter_context(one))
    if repeat and loops:
      opened = write.open_video(
        path.with_suffix('.loop.mp4'), fps, metadata, crf=crf
      )
      again = _turns(stack.enter_context(opened), repeat)
      appends.append(_first(turn, stack.enter_context(again)))
    yield appends


def _first(count: int, append: Append) -> Append:
  """Passes on so many frames, and no more."""
  left = count

  def limited(frames: np.ndarray) -> None:
    nonlocal left
    if left:
      append(frames[:left])
    left -= min(left, len(frames))

  return limited


@contextlib.contextmanager
def _pictures(folder: Path) -> Iterator[Append]:
  """A new folder of pictures 00000.png and so on."""
  with files.writing(folder, folder=True) as temporary:
    count = 0

    def append(frames: np.ndarray) -> None:
      nonlocal count
      for frame in frames:
        write.write_image(temporary / f'{count:05d}.png', frame)
        count += 1

    yield append


@contextlib.contextmanager
def _one(path: Path, place: int) -> Iterator[Append]:
  """One frame as a picture."""
  kept: list[np.ndarray] = []
  count = 0

  def append(frames: np.ndarray) -> None:
    nonlocal count
    if count <= place < count + len(frames):
      kept.append(frames[place - count].copy())
    count += len(frames)

  yield append
  write.write_image(path, kept[0])


@contextlib.contextmanager
def _turns(append: Append, turns: int) -> Iterator[Append]:
  """Passes on everything so many times; it waits in memory."""
  kept: list[np.ndarray] = []
  yield lambda frames: kept.append(frames.copy())
  for _ in range(turns):
    for frames in kept:
      append(frames)
