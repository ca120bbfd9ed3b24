"""Helpers of workflows.sh: what is given, and small moving pictures.

  workflow_pictures.py given DIR --model=DIR   clips and pictures to start from;
                                               prints what names the model
  workflow_pictures.py picture DIR FILE.gif    of the clip in a folder

Below the clip a picture shows its timeline: the colour of a block tells when it
was generated, from blue (first) to orange (last); given frames are white; the
tick is the frame that is shown.
"""

import argparse
import colorsys
import json
import sys
from pathlib import Path

import numpy as np

from unitemp_jax.data.falling_digits import (
  COLOURS,
  FallingDigitsSpec,
  sample_clips,
  sample_states,
)
from unitemp_jax.errors import UserError
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.read import fit, read_video
from unitemp_jax.video.write import write_gif, write_image, write_video

# File, frames of a real clip, and which: a red seven that falls, or one that
# falls and turns into a blue two.
GIVEN = (
  ('start.png', slice(0, 1), 'fall'),
  ('middle.png', slice(16, 17), 'fall'),
  ('end.png', slice(32, 33), 'fall'),
  ('clip.mp4', slice(12, 21), 'fall'),
  ('whole.mp4', slice(0, 33), 'fall'),
  ('seven.png', slice(0, 1), 'turn'),
  ('two.png', slice(32, 33), 'turn'),
)
_RED, _BLUE = COLOURS.index('red'), COLOURS.index('blue')
_SEARCHED = 20_000  # clips; one in 3000 has these digits and colours
_SIDE = 96  # pixels of a picture, about
_BAR, _TICK = 6, 2  # height of the timeline and of the tick above it


def write_given(folder: Path, model: Path) -> None:
  """Writes the clips and pictures that the workflows are given."""
  card = model_folder.read_card(model)
  clips = {}
  for scene, share in (('fall', 0.0), ('turn', 1.0)):
    spec = FallingDigitsSpec(
      num_frames=33, size=card.height, split='test', turn_share=share
    )
    states = sample_states(spec, range(_SEARCHED))
    wanted = (states['digit'] == 7) & (states['colour'] == _RED)
    if scene == 'turn':
      wanted &= states['digit_after'] == 2
      wanted &= states['colour_after'] == _BLUE
    index = int(np.flatnonzero(wanted)[0])
    clips[scene] = sample_clips(spec, [index])['video'][0]
  for name, frames, scene in GIVEN:
    clip = clips[scene][frames]
    if name.endswith('.png'):
      write_image(folder / name, clip[0])
    else:
      write_video(folder / name, clip, card.fps)


def write_picture(folder: Path, path: Path, model: Path) -> None:
  """Writes the one clip of a folder with its timeline."""
  clips = sorted(folder.rglob('*.mp4'))
  if len(clips) != 1:
    raise UserError(f'{folder} holds {len(clips)} clips; it must be one.')
  about = json.loads(clips[0].with_suffix('.json').read_text())
  frames, fps = read_video(clips[0])
  # Small clips are written enlarged.
  card = model_folder.read_card(model)
  small = fit(frames, card.height, card.width)
  # 16 levels: the noise of the codec would make a GIF three times as large.
  small = ((small.astype(int) + 8) // 17 * 17).astype(np.uint8)
  scale = max(_SIDE // card.height, 1)
  shown = small.repeat(scale, axis=1).repeat(scale, axis=2)
  bars = timeline(about, shown.shape[2])
  write_gif(path, np.concatenate([shown, bars], axis=1), fps, scale=1)


def timeline(about: dict, width: int) -> np.ndarray:
  """The bar below every frame, uint8 [T, _TICK + _BAR, width, 3]."""
  count, blocks = about['frames'], about['generation_order']
  start = min(position for block in blocks for position in block)
  colour = np.zeros((count, 3), np.uint8)
  for step, block in enumerate(blocks):
    shade = _colour(step / max(len(blocks) - 1, 1))
    low = max(4 * (block[0] - start) - 3, 0)
    colour[low : 4 * (block[-1] - start) + 1] = shade
  for given in about['given']:
    colour[given['frame'] : given['frame'] + given['frames']] = 255
  # The frame that a column of pixels belongs to.
  owner = np.arange(width) * count // width
  bars = np.zeros((count, _TICK + _BAR, width, 3), np.uint8)
  bars[:, _TICK:] = colour[owner]
  for t in range(count):
    middle = round((t + 0.5) * width / count)
    bars[t, :, max(middle - 1, 0) : middle + 1] = 255
  return bars


def _colour(share: float) -> np.ndarray:
  """From blue to orange by way of violet, as plans are drawn."""
  rgb = colorsys.hls_to_rgb((0.60 + 0.45 * share) % 1, 0.50, 0.55)
  return np.rint(255 * np.array(rgb)).astype(np.uint8)


def main(argv: list[str]) -> int:
  """Runs one of the helpers and returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('what', choices=['given', 'picture'])
  parser.add_argument('folder', type=Path)
  parser.add_argument('path', type=Path, nargs='?')
  parser.add_argument('--model', type=Path, default=model_folder.TINY)
  args = parser.parse_args(argv)
  try:
    if args.what == 'given':
      write_given(args.folder, args.model)
      print(model_folder.fingerprint(args.model))
    elif args.path is None:
      raise UserError('picture needs the path of the GIF.')
    else:
      write_picture(args.folder, args.path, args.model)
  except UserError as error:
    print(f'workflow_pictures: error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
