"""Sound of a video file, and where it lies on another video's timeline."""

import os

import av
import numpy as np

from unitemp_jax.video.read import reading

RATE = 48_000  # samples per second; every sound is brought to it, in stereo
# Seconds without samples that are silence; more is a damaged time.
_GAPS = 0.05, 3600.0


def read_sound(path: str | os.PathLike[str]) -> np.ndarray | None:
  """Reads the sound of a video file from its first frame on.

  Returns:
    float32 `[2, n]` in [-1, 1] at `RATE`, None if the file has none.

  Raises:
    UserError: the file is missing or damaged.
  """
  with reading(path), av.open(os.fspath(path)) as container:
    if not container.streams.audio:
      return None
    start = 0.0
    if container.streams.video:
      video = container.streams.video[0]
      start = float((video.start_time or 0) * (video.time_base or 0))
    audio = container.streams.audio[0]
    # The library would make one channel quieter on its way to two.
    number = min(audio.channels, 2)
    kind = 'fltp', ('mono', 'stereo')[number - 1], RATE
    resampler = av.AudioResampler(*kind)
    pieces, begin, end = [], None, 0.0
    for frame in container.decode(audio):
      if begin is None:
        begin = end = frame.time or 0.0
      gap = (end if frame.time is None else frame.time) - end
      if _GAPS[0] < gap < _GAPS[1]:
        pieces += [part.to_ndarray() for part in resampler.resample(None)]
        pieces.append(np.zeros((number, round(gap * RATE)), np.float32))
        resampler = av.AudioResampler(*kind)
        end += gap
      end += frame.samples / frame.sample_rate
      pieces += [part.to_ndarray() for part in resampler.resample(frame)]
    if begin is None:
      return None
    pieces += [part.to_ndarray() for part in resampler.resample(None)]
    samples = np.concatenate(pieces, axis=1).repeat(2 // number, axis=0)
  ahead = round((begin - start) * RATE)
  if ahead < 0:
    return samples[:, -ahead:]
  return np.pad(samples, [(0, 0), (ahead, 0)])


def place(samples: np.ndarray, begin: float, seconds: float) -> np.ndarray:
  """Puts sound on a timeline, silent elsewhere.

  Args:
    samples: `[2, n]`.
    begin: where it starts, in seconds; before 0 its start is cut off.
    seconds: length of the timeline.

  Returns:
    float32 `[2, m]`, exactly so long.
  """
  out = np.zeros((2, round(seconds * RATE)), np.float32)
  first = round(begin * RATE)
  samples = samples[:, max(0, -first) :]
  first = max(first, 0)
  samples = samples[:, : max(0, out.shape[1] - first)]
  out[:, first : first + samples.shape[1]] = samples
  return out
