"""Reads video files, their tags, and pictures, as uint8 RGB; resizes frames.

What changes how the pixels of a file are meant is heeded. Of videos, colours
are read by the matrix and the range that a file names; what is not tagged is
BT.709 at HD sizes and BT.601 below, as players take it. They are turned and
mirrored as phones ask for, pixels that are not square are stretched, and what
is transparent lies on black. HDR and wide colours are refused.
"""

import contextlib
import fractions
import functools
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import av
import numpy as np
from av.video.reformatter import (
  ColorPrimaries,
  Colorspace,
  ColorTrc,
  Interpolation,
  VideoReformatter,
)
from PIL import Image

from unitemp_jax import files, timeline
from unitemp_jax.errors import UserError
from unitemp_jax.video import pictures
from unitemp_jax.video.container import (
  check_complete,
  stream_rate,
  video_stream,
)

Path = str | os.PathLike[str]
Source = Path | Image.Image | np.ndarray  # a picture or a clip
# Decoders of the transparency that WebM holds beside the pictures.
_CLEAR = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}
Item = TypeVar('Item')
# Threads cost more than they save on pictures of fewer pixels.
_THREADED = 256 * 1024
# What HEVC says of an alpha layer (ITU-T H.265, F.14.2.8, payload 165).
_ALPHA = re.compile(rb'\x4e[\x01\x09]\xa5')
_UNTAGGED = 2  # matrix of a file that names none
# What is meant by pixels of these is not what a screen shows of them as sRGB.
_UNREAD: dict[str, dict[int, str]] = {
  'color_trc': {
    ColorTrc.LINEAR: 'linear light',
    ColorTrc.LOG: 'a logarithmic curve',
    ColorTrc.LOG_SQRT: 'a logarithmic curve',
    ColorTrc.SMPTE2084: 'HDR (PQ)',
    ColorTrc.SMPTE428: 'the curve of digital cinema',
    ColorTrc.ARIB_STD_B67: 'HDR (HLG)',
  },
  'color_primaries': {
    ColorPrimaries.BT2020: 'wide colours (BT.2020)',
    ColorPrimaries.SMPTE428: 'the colours of digital cinema',
    ColorPrimaries.SMPTE431: 'wide colours (DCI-P3)',
    ColorPrimaries.SMPTE432: 'wide colours (Display P3)',
  },
}
_MOST_BYTES = 2**32  # of a clip that is held in memory
# What PyAV and Pillow raise on damaged files.
_READ_ERRORS = (
  *(av.FFmpegError, Image.DecompressionBombError),
  *(OSError, SyntaxError, ValueError),
)


@contextlib.contextmanager
def reading(path: Path, file: Any = None) -> Iterator[None]:
  """Turns what the libraries raise on bad files into a UserError."""
  if file is None and not os.path.isfile(path):
    raise files.no_file(path)
  try:
    yield
  except _READ_ERRORS as e:
    reason = getattr(e, 'strerror', None) or str(e) or type(e).__name__
    raise UserError(
      f'Cannot read {os.fspath(path)}: {reason}; copy it again, or save it '
      'anew as mp4 or png.'
    ) from e


def _is_hd(frame: av.VideoFrame) -> bool:
  """Whether players take a file without tags as BT.709."""
  return frame.width >= 1280 or frame.height > 576


def _shown_size(
  frame: av.VideoFrame, ratio: fractions.Fraction | None
) -> tuple[int, int]:
  """Height and width in square pixels, none fewer than there are."""
  if not ratio or ratio <= 0:
    return frame.height, frame.width
  if ratio > 1:
    return frame.height, round(frame.width * ratio)
  return round(frame.height / ratio), frame.width


def _check_meant(
  path: Path, stream: av.VideoStream, frame: av.VideoFrame
) -> None:
  clear = any(part.is_alpha for part in frame.format.components)
  about = stream.codec_context.extradata or b''
  if stream.codec_context.name == 'hevc' and not clear and _ALPHA.search(about):
    raise UserError(
      f'{os.fspath(path)} is transparent, which this PyAV does not decode; '
      'save it on black, as mp4.'
    )
  for name, kinds in _UNREAD.items():
    if getattr(frame, name) in kinds:
      raise UserError(
        f'{os.fspath(path)} is in {kinds[getattr(frame, name)]}; convert it to '
        'SDR (BT.709) first, as ffmpeg does with zscale and tonemap.'
      )


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
  """Pixels turned and mirrored by the display matrix of a frame.

  x of the screen is a x + c y, y is b x + d y (ISO/IEC 14496-12, 6.2.2).
  """
  matrix: Any = frame.side_data.get('DISPLAYMATRIX')
  if matrix is None:
    return pixels
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
  if abs(b) > abs(a):
    pixels, a, d = pixels.swapaxes(0, 1), c, b
  return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _decoder(path: Path, stream: av.VideoStream) -> av.VideoCodecContext:
  """The decoder of all that is shown of a stream, transparency too."""
  context = stream.codec_context
  if stream.metadata.get('alpha_mode') != '1' or context.name not in _CLEAR:
    return context
  try:
    clear: Any = av.VideoCodecContext.create(_CLEAR[context.name], 'r')
    return clear
  except ValueError as error:
    raise UserError(
      f'{os.fspath(path)} is transparent, which needs PyAV with libvpx; save '
      'it on black, as mp4.'
    ) from error


def decode(
  path: Path,
  *,
  file: BinaryIO | None = None,
  start: float = 0.0,
  size: tuple[int, int] | None = None,
) -> Iterator[tuple[float, float, np.ndarray]]:
  """Decodes a video file frame by frame, in little memory.

  Args:
    path: mp4, mov, webm, gif or whatever else PyAV reads.
    file: its content, where it is no file of its own; `path` then names it.
    start: seconds after the first frame; begins at the last frame before it
      that stands alone, if the file allows it, else with the first.
    size: height and width that whole pictures are averaged to, unturned.

  Yields:
    The time since the first frame in seconds, the file's frames per second, and
    the frame, uint8 [H, W, 3].
  """
  opened: Any = os.fspath(path) if file is None else file
  with reading(path, file), av.open(opened) as container:
    if file is None:
      check_complete(path)
    stream = video_stream(path, container)
    context, decoder = stream.codec_context, _decoder(path, stream)
    large = context.width * context.height >= _THREADED
    decoder.thread_type = 'AUTO' if large else 'NONE'
    # One for all frames: setting it up takes as long as using it.
    converter, threads = VideoReformatter(), 0 if large else 1
    rate, first = float(stream_rate(stream)), None
    for number, frame in enumerate(_frames(container, stream, decoder, start)):
      time = number / rate if frame.time is None else frame.time
      if first is None:
        first = time
        _check_meant(path, stream, frame)
      height, width = size or _shown_size(frame, context.sample_aspect_ratio)
      settings: dict[str, Any] = {'height': height, 'width': width}
      if size:
        settings['interpolation'] = Interpolation.AREA
      if frame.colorspace == _UNTAGGED and _is_hd(frame):
        settings['src_colorspace'] = Colorspace.ITU709
      clear = any(part.is_alpha for part in frame.format.components)
      settings['format'] = 'rgba' if clear else 'rgb24'
      pixels = converter.reformat(frame, threads=threads, **settings)
      shown = pictures.on_black(pixels.to_ndarray())
      yield time - first, rate, shown if size else _upright(shown, frame)
    if first is None:
      raise UserError(f'{os.fspath(path)} holds no frame that can be decoded.')


def _frames(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  decoder: av.VideoCodecContext,
  start: float,
) -> Iterator[av.VideoFrame]:
  """The first frame, and those from shortly before `start` on."""

  def decoded():
    return (f for part in container.demux(stream) for f in decoder.decode(part))

  frames = decoded()
  for first in frames:
    yield first
    break
  else:
    return
  if not start or first.time is None or not stream.time_base:
    yield from frames
    return
  with contextlib.suppress(av.FFmpegError):  # Then from where it is.
    container.seek(int((first.time + start) / stream.time_base), stream=stream)
    decoder.flush_buffers()
    frames = decoded()
  for frame in frames:
    if frame.time is None or frame.time > first.time:
      yield frame


def resample(
  frames: Iterable[tuple[float, float, Item]], fps: float
) -> Iterator[Item]:
  """Yields for each time k / fps the item that is nearest in time.

  Args:
    frames: time, frames per second and an item, in order of time.
    fps: frames per second of the result, positive.
  """
  count, last, step, end = 0, None, 0.0, 0.0
  for time, rate, item in frames:
    if last is not None:
      step = time - end
      while count / fps < end + step / 2:
        yield last[0]
        count += 1
    last, end, step = (item,), time, step or 1 / rate
  # The last frame is shown as long as the one before it; one always is.
  until = max((end + step) * fps + 1e-6, 0.5)
  while last is not None and count + 0.5 <= until:
    yield last[0]
    count += 1


def video_fps(path: Path) -> float:
  """Reads the average frames per second of a video file."""
  with reading(path), av.open(os.fspath(path)) as container:
    return float(stream_rate(video_stream(path, container)))


def read_video(
  path: Path, fps: float | None = None, most: int = _MOST_BYTES
) -> tuple[np.ndarray, float]:
  """Reads a whole video file.

  Args:
    path: mp4, mov, webm, gif or whatever else PyAV reads.
    fps: frames per second to resample to, by nearest time; None keeps all.
    most: bytes of its pixels.

  Returns:
    uint8 [T, H, W, 3] and its frames per second.
  """
  if fps is not None and fps <= 0:
    raise UserError(f'fps must be positive, got {fps}.')
  decoded: Iterable[Any] = decode(path)
  decoded = (
    (frame for _, _, frame in decoded)
    if fps is None
    else resample(decoded, fps)
  )
  frames, size = [], 0
  for frame in decoded:
    frames.append(frame)
    size += frame.nbytes
    if len(frames) > timeline.MOST_FRAMES:
      raise UserError(f'{os.fspath(path)} has too many frames; cut it first.')
    if size > most:
      raise UserError(
        f'{os.fspath(path)} takes more than {most / 2**30:.2g} GiB as pixels; '
        'cut it to the part that is needed, or make it smaller.'
      )
  if not frames:  # Shorter than half a frame at this rate.
    frames.append(next(decode(path))[2])
  if len({frame.shape for frame in frames}) > 1:
    raise UserError(f'The picture size changes within {os.fspath(path)}.')
  video = np.empty((len(frames), *frames[0].shape), np.uint8)
  for row in video[::-1]:  # Freed one by one: it is held once.
    row[...] = frames.pop()
  return video, float(fps or video_fps(path))


def read_metadata(path: Path) -> dict[str, Any]:
  """Reads the tags of a video file; JSON values come back as such."""
  with reading(path), av.open(os.fspath(path)) as container:
    return parse_tags(container.metadata)


def parse_tags(raw: Mapping[str, str]) -> dict[str, Any]:
  """Tags by name: those of a comment in JSON, and those that are so by name."""
  tags: dict[str, Any] = {name.lower(): text for name, text in raw.items()}
  for name, text in tags.items():
    with contextlib.suppress(ValueError, RecursionError):
      tags[name] = files.parse_json(text)
  comment = tags.pop('comment', None)
  if isinstance(comment, dict):
    return tags | comment
  return tags if comment is None else {**tags, 'comment': comment}


def _check_picture(path: Path, kind: str | None) -> None:
  """Refuses the colours that `decode` refuses; Pillow passes over them."""
  with open(path, 'rb') as file:
    head = file.read(2**20).partition(b'IDAT')[0]
  if kind == 'AVIF' or (kind == 'PNG' and b'cICP' in head):
    next(decode(path))


def read_image(path: Path) -> np.ndarray:
  """Reads a PNG, JPEG or other image file.

  Returns:
    uint8 [H, W, 3]; turned as the camera says, in sRGB, transparency on black.
  """
  # Pillow warns of large pictures, and refuses those twice as large.
  quiet = warnings.catch_warnings(action='ignore')
  with reading(path), quiet, Image.open(path) as image:
    if image.format != 'MPO' and getattr(image, 'n_frames', 1) > 1:
      raise ValueError('it is an animation, which is read of gif and mp4')
    _check_picture(path, image.format)
    return pictures.pixels(image)


def read_frames(source: Source, fps: float) -> np.ndarray:
  """Frames of an image or a clip, uint8 `[n, H, W, 3]`.

  Args:
    source: a path of an image or video file, a PIL image, or an array
      `[H, W, 3]` or `[n, H, W, 3]`, uint8 or floats in [0, 1].
    fps: frames per second that video files are resampled to.

  Raises:
    UserError: unreadable, or no picture at all.
  """
  if isinstance(source, str | os.PathLike):
    if pictures.is_picture(source):
      return read_image(source)[None]
    return read_video(source, fps)[0]
  if isinstance(source, Image.Image):
    with reading('the given picture', source):
      return pictures.pixels(source)[None]
  frames = np.asarray(source)
  if frames.dtype.kind == 'f' and frames.size:
    if not (frames.min() >= 0 and frames.max() <= 1):
      raise UserError('frames given as floats must lie in [0, 1].')
    frames = np.round(frames * 255).astype(np.uint8)
  frames = frames[None] if frames.ndim == 3 else frames
  if frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] != 3:
    raise UserError(
      'given frames must be an image [H, W, 3] or a clip [n, H, W, 3], not '
      f'an array of shape {list(frames.shape)}.'
    )
  if frames.dtype != np.uint8:
    raise UserError(
      f'given frames must be uint8 or floats in [0, 1], not {frames.dtype}.'
    )
  return frames


def read_once(source: Source, fps: float) -> np.ndarray:
  """`read_frames`; of a file, requests that follow each other share them."""
  if not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
    return read_frames(source, fps)
  return _read_file(os.fspath(source), os.stat(source).st_mtime_ns, fps)


@functools.lru_cache(2)
def _read_file(path: str, changed: int, fps: float) -> np.ndarray:
  del changed  # another file of this name
  frames = read_frames(path, fps)
  frames.flags.writeable = False
  return frames


def has_sound(path: Path) -> bool:
  """Whether a file that can be read holds sound."""
  if pictures.is_picture(path):
    return False
  with av.open(os.fspath(path)) as container:
    return bool(container.streams.audio)


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes to cover height x width and crops the centre.

  Sizes that are a multiple of the target by a whole number are averaged, which
  is exactly the inverse of the enlarging `write_video` does.

  Args:
    frames: uint8 [..., H, W, 3].
    height: pixels.
    width: pixels.

  Returns:
    uint8 [..., height, width, 3].
  """
  h, w = frames.shape[-3:-1]
  if (h, w) == (height, width):
    return frames
  scale = max(height / h, width / w)
  box_h, box_w = min(h, height / scale), min(w, width / scale)
  top, left = (h - box_h) / 2, (w - box_w) / 2
  whole = h % height == 0 and h * width == w * height
  how = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
  fitted = [
    np.asarray(
      Image.fromarray(frame).resize(
        (width, height), how, box=(left, top, left + box_w, top + box_h)
      )
    )
    for frame in np.ascontiguousarray(frames).reshape(-1, h, w, 3)
  ]
  return np.stack(fitted).reshape(*frames.shape[:-3], height, width, 3)


_fitted: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}


def fit_once(frames: np.ndarray, height: int, width: int) -> np.ndarray:
  """`fit`; what `read_once` shares is fitted once."""
  if frames.flags.writeable:
    return fit(frames, height, width)
  # The frames are kept, so that no others have their address.
  key = (frames.ctypes.data, frames.shape, frames.strides, height, width)
  if key not in _fitted:
    while len(_fitted) > 3:
      _fitted.pop(next(iter(_fitted)), None)
    _fitted[key] = frames, fit(frames, height, width)
  return _fitted[key][1]
