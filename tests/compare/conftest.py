"""Folders as several systems write them, small."""

import numpy as np
import pytest

from unitemp_jax.video.read import read_metadata

PROMPTS = [
  'a red seven falls.',
  'snow rocky mountains peaks canyon, ' * 3 + 'in spring',
  'snow rocky mountains peaks canyon, ' * 3 + 'in autumn',
  'a cat / a dog',
  'a blue two',
  'a green one',
]


@pytest.fixture(scope='session')
def folders(tmp_path_factory):
  """ours (records in the tags), sf, causvid, longlive, and stills."""
  import moving_clips

  root = tmp_path_factory.mktemp('systems')
  for number, prompt in enumerate(PROMPTS):
    clip = moving_clips.drifting_texture(33, 32, seed=number)
    about = {
      'prompt': f'{prompt} In great detail.',
      'name': prompt,
      'sample': 0,
      'seed': 7,
      'order': 'backward',
      'boundary_frames': [8, 20],
      'generation_order': [[6, 7, 8], [3, 4, 5], [0, 1, 2]],
    }
    safe = prompt.replace('/', '_')
    moving_clips.write(root / 'ours' / f'{number:04d}-x.mp4', clip, **about)
    worse = moving_clips.with_gain(clip, 0.08)
    moving_clips.write(root / 'sf' / f'{safe[:100]}-0.mp4', worse, 16)
    moving_clips.write(root / 'causvid' / f'output_{number:03d}.mp4', worse)
    name = f'rank{number % 2}-{safe[:100]}-0_lora.mp4'
    moving_clips.write(root / 'longlive' / name, worse)
    still = np.repeat(clip[:1], 33, axis=0)
    moving_clips.write(root / 'still' / f'{safe}-0.mp4', still)
  (root / 'prompts.txt').write_text('\n'.join(PROMPTS) + '\n')
  assert read_metadata(root / 'ours/0000-x.mp4')['sample'] == 0
  return root
