"""The files that one video is written to, beside its mp4."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.video import write

FORMATS = ('mp4', 'gif', 'webm', 'png', 'mkv')
Append = Callable[[np.ndarray], None]
_WORST = 51  # quality of H.264
_FASTEST = 240  # frames per second


@dataclasses.dataclass(frozen=True)
class Output:
  """How a video is written.

  Attributes:
    formats: beside the mp4, which is always there: gif, webm, mkv (lossless),
      png (a folder of numbered pictures).
    frame: 'first' or 'last', written as a picture by itself; None for none.
    playback_fps: frames per second of the files; None for the model's.
    crf: quality of mp4 and webm, 0 (best) to 51.
    repeat: turns of a loop in a file of its own; 0 for none.
  """

  formats: tuple[str, ...] = ()
  frame: str | None = None
  playback_fps: float | None = None
  crf: int = 18
  repeat: int = 0

  @classmethod
  def parse(cls, formats: str, **settings) -> 'Output':
    """Reads names of formats with commas, and checks the other settings.

    Raises:
      UserError: a format or a setting is none that can be.
    """
    names = dict.fromkeys(name.strip() for name in formats.split(','))
    for name in names:
      if name not in FORMATS:
        raise UserError(
          f'--format names {name!r}; use some of {", ".join(FORMATS)}.'
        )
    made = cls(tuple(name for name in names if name != 'mp4'), **settings)
    if not 0 <= made.crf <= _WORST:
      raise UserError(f'--crf={made.crf} must lie in 0 (best) .. {_WORST}.')
    fps = made.playback_fps
    if fps is not None and not 0.1 <= fps <= _FASTEST:
      raise UserError(f'--playback_fps={fps:g} must lie in 0.1..{_FASTEST}.')
    if not 0 <= made.repeat <= 100:
      raise UserError(f'--repeat={made.repeat} must lie in 0..100.')
    return made

  def endings(self, loops: bool) -> list[str]:
    """What the names of the further files end with."""
    names = {'png': '.frames'}
    found = [names.get(name, f'.{name}') for name in self.formats]
    found += [f'.{self.frame}.png'] if self.frame else []
    return found + (['.loop.mp4'] if self.repeat and loops else [])


MP4 = Output()  # nothing else


@contextlib.contextmanager
def open_others(
  output: Output,
  path: Path,
  fps: float,
  frames: int,
  loops: bool,
  metadata: Mapping[str, Any] | None = None,
  sound: np.ndarray | None = None,
) -> Iterator[list[Append]]:
  """Opens all files of a video but its mp4; each appears when it is whole.

  Players show a loop's last frame and then its first, which are the same: gif,
  webm, the pictures and the file of `repeat` leave the last one out.

  Args:
    output: which.
    path: of the mp4; the others lie beside it.
    fps: frames per second.
    frames: of the video.
    loops: whether its last frame is its first.
    metadata: tags.
    sound: see `write.open_video`.

  Raises:
    UserError: a file cannot be written.
  """
  turn = frames - loops
  with contextlib.ExitStack() as stack:
    appends = []
    for name in output.formats:
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
          crf=output.crf,
          kind='webm',
          sound=sound,
        )
      else:
        opened = _pictures(path.with_suffix('.frames'))
      appends.append(_first(turn, stack.enter_context(opened)))
    if output.frame:
      place = 0 if output.frame == 'first' else frames - 1
      one = _one(path.with_suffix(f'.{output.frame}.png'), place)
      appends.append(stack.enter_context(one))
    if output.repeat and loops:
      opened = write.open_video(
        path.with_suffix('.loop.mp4'), fps, metadata, crf=output.crf
      )
      again = _turns(stack.enter_context(opened), output.repeat)
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
  """A folder of pictures 00000.png and so on, replaced as a whole."""
  if folder.is_dir() and not all(p.suffix == '.png' for p in folder.iterdir()):
    raise UserError(f'{folder} holds other files; choose another --out.')
  with files.writing(folder, folder=True) as temporary:
    count = 0

    def append(frames: np.ndarray) -> None:
      nonlocal count
      for frame in frames:
        write.write_image(temporary / f'{count:05d}.png', frame)
        count += 1

    yield append
    for path in folder.iterdir() if folder.is_dir() else ():
      path.unlink()


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
