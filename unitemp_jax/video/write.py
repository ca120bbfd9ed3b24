"""Writes videos, GIFs and pictures; the project's only clip writer.

Video goes through PyAV, which brings its own codecs, pictures through Pillow.
Frames are uint8 RGB arrays [T, H, W, 3] everywhere.
"""

import contextlib
import fractions
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import (
  ColorPrimaries,
  ColorRange,
  Colorspace,
  ColorTrc,
  VideoReformatter,
)
from PIL import Image, ImageDraw

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.video.sound import RATE

Path = str | os.PathLike[str]
_SMALL = 128  # clips with a shorter side are written enlarged
_SHOWN = 256  # to about this size
_CODEC_THREADS = 4  # fixed: the encoder's bytes depend on their number
# Where a pixel fills a block of the codec, searching for motion costs time and
# gains nothing: files of digits are smaller and no worse without.
_BLOCK = 8
_SQUARES = {
  'preset': 'ultrafast',
  'x264-params': 'cabac=1:8x8dct=1:trellis=1:partitions=i4x4,i8x8',
  'threads': '1',
}
# Kind of file -> container, codecs of picture and sound, pixels, flags. Without
# the flag `bitexact` Matroska writes the time and a random number.
_BITEXACT = {'fflags': '+bitexact'}
_KINDS = {
  'mp4': ('mp4', 'libx264', 'aac', 'yuv420p', {'movflags': 'faststart'}),
  'webm': ('webm', 'libvpx-vp9', 'libopus', 'yuv420p', _BITEXACT),
  'mkv': ('matroska', 'ffv1', 'pcm_s16le', 'bgr0', _BITEXACT),
}
_HD = 720  # lines from which videos have the colours of BT.709
_SMPTE170M = 6  # matrix of BT.601


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[str]:
  """Yields a temporary name that becomes `path` when all went well."""
  with files.writing(path) as temporary:
    try:
      yield str(temporary)
    except av.FFmpegError as error:
      raise OSError(error.errno, error.strerror) from error


def _scale(frames: np.ndarray, scale: int | None) -> int:
  """How many times pixels are repeated, so that players show small clips."""
  side = min(frames.shape[-3:-1])
  if scale is None:
    scale = _SHOWN // side if side < _SMALL else 1
  return scale


def _enlarge(frames: np.ndarray, scale: int | None) -> np.ndarray:
  scale = _scale(frames, scale)
  return frames.repeat(scale, -2).repeat(scale, -3)


def _even(frames: np.ndarray) -> np.ndarray:
  """Repeats the last row or column where their number is odd."""
  odd = [side % 2 for side in frames.shape[1:3]]
  if not any(odd):
    return frames
  return np.pad(frames, [(0, 0), *((0, n) for n in odd), (0, 0)], mode='edge')


def _set_tags(out: Any, metadata: Mapping[str, Any]) -> None:
  """Tags that every player shows: the prompt as title, all as a comment."""
  if metadata:
    title = metadata.get('prompt') or metadata.get('title')
    if title:
      out.metadata['title'] = str(title)
    out.metadata['comment'] = json.dumps(dict(metadata))


@contextlib.contextmanager
def open_video(
  path: Path,
  fps: float,
  metadata: Mapping[str, Any] | None = None,
  *,
  scale: int | None = None,
  crf: int = 18,
  kind: str = 'mp4',
  sound: np.ndarray | None = None,
) -> Iterator[Callable[[np.ndarray], None]]:
  """Opens a video file that is written piece by piece, atomically.

  The file appears when the block ends without an exception. Its colours are
  coded as BT.709 from 720 lines on and as BT.601 below, as players take what is
  not tagged, and tagged so. The same frames give the same bytes, however they
  are cut into pieces. (Where a side is odd, the colour converter may differ in
  the last bit from run to run.)

  Args:
    path: file to write; an existing one is replaced.
    fps: frames per second.
    metadata: JSON values by name, see `read_metadata`.
    scale: whole number by which pixels are repeated; None enlarges clips below
      128 pixels to about 256. The file says so in its tag `scale`.
    crf: quality, 0 is lossless but for the colour conversion, 18 looks so. VP9,
      which counts to 63 and not to 51, gets what looks alike.
    kind: mp4 (H.264), webm (VP9), or mkv (FFV1): every pixel as it is, nothing
      enlarged.
    sound: `[2, n]`, see `sound.read_sound`, as long as the video.

  Yields:
    A function that appends frames, uint8 [n, H, W, 3]; an odd side grows by a
    repeated row or column, but not in mkv.

  Raises:
    UserError: there is no frame, or the file cannot be written.
  """
  lossless = kind == 'mkv'
  container, codec, sound_codec, pixels, flags = _KINDS[kind]
  with (
    _writing(path) as part,
    av.open(part, 'w', container, options=flags) as out,
  ):
    _set_tags(out, metadata or {})
    stream = _picture_stream(out, codec, fps, pixels)
    audio = None
    if sound is not None:
      audio = cast(av.AudioStream, out.add_stream(sound_codec, rate=RATE))
      audio.layout = 'stereo'
    sizes, converter = set(), VideoReformatter()

    def append(frames: np.ndarray) -> None:
      times = 1 if lossless else _scale(frames, scale)
      if not sizes:
        stream.codec_context.options = _quality(kind, crf, times)
        if times > 1:
          _set_tags(out, {**(metadata or {}), 'scale': times})
      if not lossless:
        frames = _even(_enlarge(frames, times))
      if not sizes:
        stream.height, stream.width = frames.shape[1:3]
        if not lossless:
          _tag_colours(stream)
        if audio is not None and sound is not None:
          _encode_sound(out, audio, sound)
      sizes.add(frames.shape[1:3])
      for frame in frames:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
        if not lossless and stream.height >= _HD:
          picture = _as_bt709(picture, converter)
        out.mux(stream.encode(picture))

    yield append
    if len(sizes) != 1:
      raise UserError(
        f'Cannot write {os.fspath(path)}: a video needs frames of one size, '
        f'got {len(sizes)} sizes.'
      )
    out.mux(stream.encode())


def _picture_stream(
  out: Any, codec: str, fps: float, pixels: str
) -> av.VideoStream:
  rate = fractions.Fraction(fps).limit_denominator(1001)
  stream = cast(av.VideoStream, out.add_stream(codec, rate=rate))
  stream.pix_fmt = pixels
  stream.codec_context.thread_count = _CODEC_THREADS
  return stream


def _quality(kind: str, crf: int, scale: int) -> dict[str, str]:
  """Options of the encoder of pictures, of pixels repeated `scale` times."""
  if kind == 'mp4' and scale >= _BLOCK:
    return {**_SQUARES, 'crf': str(max(crf - 2, 0))}
  if kind == 'mp4':
    # With its tree of macroblocks x264 is not the same from run to run when
    # many encoders work at once (1 clip in 50 of 64x64 pixels).
    return {'crf': str(crf), 'mbtree': '0'}
  if kind == 'webm':
    return {'crf': str(round(crf * 63 / 51)), 'b': '0', 'cpu-used': '4'}
  return {}


def _encode_sound(
  out: Any, stream: av.AudioStream, samples: np.ndarray
) -> None:
  """Adds the whole sound; the container puts it between the frames."""
  clipped = np.ascontiguousarray(samples.clip(-1, 1), np.float32)
  frame = av.AudioFrame.from_ndarray(clipped, 'fltp', 'stereo')
  frame.sample_rate, frame.time_base = RATE, fractions.Fraction(1, RATE)
  frame.pts = 0
  out.mux([*stream.encode(frame), *stream.encode(None)])


def _as_bt709(
  picture: av.VideoFrame, converter: VideoReformatter
) -> av.VideoFrame:
  """YUV of RGB; the encoder's own conversion is of BT.601 at any size."""
  return converter.reformat(
    picture,
    format='yuv420p',
    dst_colorspace=Colorspace.ITU709,
    dst_color_range=ColorRange.MPEG,
    threads=_CODEC_THREADS,
  )


def _tag_colours(stream: av.VideoStream) -> None:
  """Says how colours are coded: BT.709 at HD sizes and BT.601 below."""
  context = stream.codec_context
  hd = stream.height >= _HD
  context.colorspace = Colorspace.ITU709 if hd else _SMPTE170M
  context.color_range = ColorRange.MPEG
  # Of frames, which are sRGB.
  context.color_primaries = ColorPrimaries.BT709
  context.color_trc = ColorTrc.BT709


def write_video(
  path: Path,
  frames: np.ndarray,
  fps: float,
  metadata: Mapping[str, Any] | None = None,
  **settings,
) -> None:
  """Writes an H.264 mp4 that every browser plays, atomically.

  Args:
    path: file to write; an existing one is replaced.
    frames: uint8 [T, H, W, 3].
    fps: frames per second.
    metadata: tags, texts or JSON values, see `read_metadata`.
    **settings: as for `open_video`.

  Raises:
    UserError: there is no frame, or the file cannot be written.
  """
  if frames.ndim != 4 or 0 in frames.shape or fps <= 0:
    raise UserError(
      f'Cannot write {os.fspath(path)}: a video needs frames [T, H, W, 3] and '
      f'fps > 0, got {list(frames.shape)} and {fps}.'
    )
  with open_video(path, fps, metadata, **settings) as append:
    append(frames)


@contextlib.contextmanager
def open_gif(
  path: Path, fps: float, *, scale: int | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
  """Opens an endlessly repeating GIF; see `write_gif`.

  Frames wait in 256 colours each, a byte per pixel, until the block ends.
  """
  pictures: list[Image.Image] = []

  def append(frames: np.ndarray) -> None:
    for frame in _enlarge(frames, scale):
      image = Image.fromarray(frame)
      pictures.append(image.convert('P', palette=Image.Palette.ADAPTIVE))

  yield append
  ends = [round(100 * (t + 1) / fps) * 10 for t in range(len(pictures))]
  durations = [b - a for a, b in itertools.pairwise([0, *ends])]
  with _writing(path) as part:
    pictures[0].save(
      part,
      'GIF',
      save_all=True,
      append_images=pictures[1:],
      duration=durations,
      loop=0,
    )


def write_gif(
  path: Path, frames: np.ndarray, fps: float, *, scale: int | None = None
) -> None:
  """Writes an endlessly repeating GIF, atomically.

  Args:
    path: file to write.
    frames: uint8 [T, H, W, 3].
    fps: frames per second; GIF counts in hundredths of a second, so single
      frames may be off by as much, the whole is not.
    scale: as in `write_video`.

  Raises:
    UserError: the file cannot be written.
  """
  with open_gif(path, fps, scale=scale) as append:
    append(frames)


EDGE = 64  # grey around the pictures of a sheet


def write_image(path: Path, picture: np.ndarray) -> None:
  """Writes a picture uint8 [H, W, 3] as PNG, atomically."""
  with _writing(path) as part:
    Image.fromarray(picture).save(part, 'PNG')


def write_sheet(
  path: Path,
  clips: Sequence[np.ndarray],
  labels: Sequence[str] | None = None,
  *,
  columns: int = 12,
  scale: int = 3,
) -> None:
  """Writes a contact sheet as PNG, a row of evenly spaced frames per clip.

  Args:
    path: file to write.
    clips: n clips uint8 [T, H, W, 3] of one picture size; T may differ.
    labels: text above each row.
    columns: frames per row at most; the first and the last are always shown.
    scale: whole number by which pixels are repeated.

  Raises:
    UserError: there is no clip, or the file cannot be written.
  """
  if not len(clips):
    raise UserError(f'Cannot write {os.fspath(path)}: there is no clip.')
  gap, text = 2, 14 if labels is not None else 0
  height, width = (side * scale for side in clips[0].shape[1:3])
  columns = min(columns, max(len(clip) for clip in clips))
  size = (
    columns * (width + gap) + gap,
    len(clips) * (height + gap + text) + gap,
  )
  sheet = Image.new('RGB', size, (EDGE, EDGE, EDGE))
  draw = ImageDraw.Draw(sheet)
  for row, clip in enumerate(clips):
    y = gap + row * (height + gap + text)
    if labels is not None:
      draw.text((gap, y), labels[row], fill=(255, 255, 255))
    shown = min(columns, len(clip))
    for column, t in enumerate(np.linspace(0, len(clip) - 1, shown)):
      frame = _enlarge(clip[round(t)], scale)
      sheet.paste(
        Image.fromarray(frame), (gap + column * (width + gap), y + text)
      )
  with _writing(path) as part:
    sheet.save(part, 'PNG')
