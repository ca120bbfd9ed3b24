"""Containers: which video a file holds, at what rate, and whether all of it."""

import fractions
import os
from typing import Any

import av
from av.format import Flags

from unitemp_jax.errors import UserError

Path = str | os.PathLike[str]


def video_stream(path: Path, container: Any) -> Any:
  """The first video of an open file; UserError without one to decode.

  A stream without times would be read at a rate that nobody has chosen, and a
  list of other files would read them.
  """
  if container.format.flags & Flags.no_timestamps.value:
    raise UserError(
      f'{os.fspath(path)} does not say when its frames are shown; put it into '
      'an mp4, such as by ffmpeg -r RATE -i IT -c copy OUT.mp4.'
    )
  if container.format.name == 'concat':
    raise UserError(f'{os.fspath(path)} is a list of files; join them first.')
  streams = [s for s in container.streams.video if s.codec_context is not None]
  # Before an animation in AVIF lies its picture.
  for stream in [s for s in streams if s.frames != 1] + streams:
    return stream
  raise UserError(
    f'{os.fspath(path)} holds no video that can be decoded; convert it to '
    'H.264.'
  )


def stream_rate(stream: av.VideoStream) -> fractions.Fraction:
  """Frames per second of a stream; 10 where the file does not tell."""
  return stream.average_rate or stream.guessed_rate or fractions.Fraction(10)


def check_complete(path: Path) -> None:
  """Refuses an mp4, mov, mkv or webm file whose end is missing.

  The decoder would silently return the frames that are there. Such a file is a
  row of boxes, each of which begins with its length.
  """
  size, place = os.path.getsize(path), 0
  with open(path, 'rb') as file:
    while place < size:
      file.seek(place)
      head = file.read(16)
      if head[:4] in (b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'):
        # Matroska's lengths have a byte more for each 0 before their first 1.
        end = 13 - int.from_bytes(head[4:5], 'big').bit_length()
        unknown = (1 << 7 * (end - 4)) - 1
        length = int.from_bytes(head[4:end], 'big') & unknown
        if length == unknown:
          return
        place += end + length
        continue
      if place == 0 and head[4:8] != b'ftyp':
        return  # another kind of file
      if place == 0 and head[8:12] == b'avis':
        file.seek(0)
        if b'auxiliary:alpha' in file.read(2**20):
          raise ValueError('it is transparent, which is not read of AVIF')
      if place == 0 and head[8:11] == b'hei':  # Read would be one of its tiles.
        raise ValueError('it is a HEIC picture')
      length = int.from_bytes(head[:4], 'big')
      if length == 1:
        length = int.from_bytes(head[8:16], 'big')
      if length == 0:
        return  # the last box, up to the end
      place += max(length, 8)
  if place > size:
    raise ValueError('the end of the file is missing')
