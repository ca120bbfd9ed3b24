"""Folders of any number of clips: one clip under many names, by hard links.

`python tests/helpers/linked_clips.py set DIR 50000` makes an evaluation set,
`folder` in place of `set` clips with records beside them; `peak COMMAND...`
runs a command of unitemp and says what it took.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from unitemp_jax import files
from unitemp_jax.video.write import write_image, write_video

ORDERS = ('forward', 'backward')
FRAMES, SIDE = 33, 32


def make(root, count, is_set=True, orders=ORDERS):
  """Writes so many clips as a set or a plain folder; returns its path."""
  import moving_clips

  root = Path(root)
  video, poster = root / 'one.mp4', root / 'one.png'
  clip = moving_clips.drifting_texture(FRAMES, SIDE)
  write_video(video, clip, 8, scale=1)
  write_image(poster, clip[0])
  about = {
    'boundary_frames': [8, 20],
    'generation_order': [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
    'frames': FRAMES,
    'fps': 8,
    'height': SIDE,
    'width': SIDE,
    'brightness': 120.0,
    'contrast': 40.0,
    'frame_difference': [0.0625 + t / 4096 for t in range(FRAMES - 1)],
    'checkpoint': 'sha256:0123abcd',
    'version': '0.1.0',
    'bytes': video.stat().st_size,
    'sha256': files.file_sha256(video),
  }
  lines = []
  for number in range(count):
    order = orders[number % len(orders)]
    row = number // len(orders)
    name = f'prompt number {row} of what falls, bounces and rolls away'
    # A file system holds some 65,000 names of one file at most.
    path = f'{order}/{row // 1000}/{name}-0'
    line = {
      'video': f'videos/{path}.mp4',
      'record': f'records/{path}.json',
      'order': order,
      'key': f'{number:016x}',
    }
    record = {**about, 'name': name, 'prompt': name, 'order': order}
    record |= {'sample': 0, 'seed': number, 'key': line['key']}
    for folder, ending in (
      ('videos', '.mp4'),
      ('records', '.json'),
      ('posters', '.png'),
    ):
      place = root / (folder if is_set else '') / f'{path}{ending}'
      place.parent.mkdir(parents=True, exist_ok=True)
      if ending == '.json':
        place.write_text(json.dumps(record))
      else:
        os.link(video if ending == '.mp4' else poster, place)
    lines.append(json.dumps(line) + '\n')
  video.unlink()
  poster.unlink()
  if is_set:
    (root / 'clips.jsonl').write_text(''.join(lines))
    settings = {'frames': FRAMES, 'fps': 8, 'height': SIDE, 'width': SIDE}
    (root / 'set.json').write_text(json.dumps(settings))
  return root


def peak(argv):
  """Runs a command of unitemp; prints seconds and MB of its processes."""
  began = time.monotonic()
  code = subprocess.call([sys.executable, '-m', 'unitemp_jax.cli.main', *argv])
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  took = time.monotonic() - began
  cpu = usage.ru_utime + usage.ru_stime
  print(
    f'code {code}, {took:.1f} s, {cpu:.1f} s of processors, '
    f'{usage.ru_maxrss / 1024:.0f} MB'
  )


if __name__ == '__main__':
  if sys.argv[1] == 'peak':
    peak(sys.argv[2:])
  else:
    make(sys.argv[2], int(sys.argv[3]), is_set=sys.argv[1] == 'set')
