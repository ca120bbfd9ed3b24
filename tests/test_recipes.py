"""The commands of `configs/own_videos.md`, read from the page and run.

The config files are the full-size ones; networks have one narrow layer, frames
32x32 pixels, and every training one step.
"""

import os
import pathlib
import re
import shlex
import shutil
import sys

import numpy as np
import published_names
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.data import latents, prompt_embeddings
from unitemp_jax.models import weights
from unitemp_jax.sampling.teacher import WAN_NEGATIVE_PROMPT
from unitemp_jax.video.write import write_video

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / 'configs' / 'own_videos.md'
ROUTES = ('From videos', 'From prompts')
SMALL = {
  'model.dit.dim': 48,
  'model.dit.ffn_dim': 64,
  'model.dit.num_heads': 2,
  'model.dit.num_layers': 1,
  'model.dit.text_dim': 32,
  'model.dit.freq_dim': 16,
  'model.vae.base_dim': 8,
  'model.text.vocab': 68,
  'model.text.dim': 32,
  'model.text.num_heads': 2,
  'model.text.head_dim': 16,
  'model.text.ffn_dim': 64,
  'model.text.num_layers': 1,
  'model.text.length': 32,
}
CLIPS = {
  'data.height': 32,
  'data.width': 32,
  'data.num_frames': 33,
  'num_steps': 1,
  'batch_size': 1,
  'accumulate': 1,
  'mesh.context': 1,
}
WORDS = ('zero', 'one', 'two')


def commands(heading):
  """The commands of the section of a page, one string each."""
  section = PAGE.read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
  blocks = re.findall(r'```bash\n(.*?)```', section, re.DOTALL)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [line for line in lines if line and not line.startswith('#')]


def test_the_page_has_both_routes():
  for heading in ('Weights', *ROUTES):
    assert any('unitemp' in line for line in commands(heading))
  verbs = [line.split()[1] for route in ROUTES for line in commands(route)]
  assert {'data', 'encode', 'train', 'ode_pairs', 'export'} <= set(verbs)
  assert set(verbs) <= set(cli.VERBS)


def published(folder):
  """Checkpoints under the names and in the layout of Wan's own files."""
  sizes = {
    'Wan2.1-T2V-1.3B/diffusion_pytorch_model': published_names.dit(
      'wan', d=48, ffn=64, layers=1, text=32, freq=16
    ),
    'Wan2.1_VAE': published_names.vae('wan', base=8),
    'models_t5_umt5-xxl-enc-bf16': published_names.umt5(
      'wan', vocab=68, d=32, ffn=64, layers=1, heads=2, k=16
    ),
  }
  rng = np.random.default_rng(0)
  for name, shapes in sizes.items():
    path = folder / f'{name}.safetensors'
    path.parent.mkdir(exist_ok=True)
    tensors = {
      key: 0.1 * rng.standard_normal(shape, np.float32)
      for key, shape in shapes.items()
    }
    weights.safetensors.numpy.save_file(tensors, path)
  (folder / 'google' / 'umt5-xxl').mkdir(parents=True)
  shutil.copy(
    ROOT / 'unitemp_jax/assets/tiny/tokenizer.json',
    folder / 'google/umt5-xxl/tokenizer.json',
  )


def videos(folder):
  """Three clips with captions."""
  rng = np.random.default_rng(1)
  for word in WORDS:
    frames = rng.integers(0, 256, (1, 32, 32, 3), np.uint8).repeat(40, 0)
    write_video(folder / f'{word}.mp4', frames, 16, scale=2)
    (folder / f'{word}.txt').write_text(f'a red {word} falls')


def run(line):
  """One command of the page, at the size of the test."""
  words = shlex.split(line)
  if words[0] == 'cp':
    shutil.copy(*words[1:])
    return
  assert words[0] == 'unitemp'
  # PyTorch's own files need PyTorch to be read.
  words = [word.replace('.pth', '.safetensors') for word in words[1:]]
  verb = words[0]
  sizes = dict(SMALL) if verb == 'convert' else {**SMALL, **CLIPS}
  if verb == 'data':
    own = ('--height=', '--width=', '--num_frames=')
    words = [word for word in words if not word.startswith(own)]
    words += ['--height=32', '--width=32', '--num_frames=33']
  elif not any(word.startswith('--config=') for word in words):
    words.append('--config=configs/wan_1p3b_distill.py')
  if verb != 'data':
    words += [f'--config.{name}={value}' for name, value in sizes.items()]
  assert cli.find_verb(verb)(words[1:]) == 0, line


@pytest.mark.slow
@pytest.mark.parametrize('route', ROUTES)
def test_the_recipe_runs_as_it_is_written(route, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(ROOT))
  os.symlink(ROOT / 'configs', tmp_path / 'configs')
  (tmp_path / 'weights').mkdir()
  published(tmp_path)
  videos(tmp_path / 'my_videos')
  lines = [f'a red {word} falls' for word in WORDS]
  (tmp_path / 'prompts.txt').write_text(
    '\n'.join([*lines, WAN_NEGATIVE_PROMPT]) + '\n'
  )
  for line in [*commands('Weights'), *commands(route)]:
    print('$', line, file=sys.stderr)
    run(line)
  made = 'wan_latents' if route == ROUTES[0] else 'wan_ode'
  assert len(latents.LatentSource(tmp_path / 'data' / made)) == 3
  folder = tmp_path / 'data' / 'wan_prompts'
  assert len(prompt_embeddings.PromptEmbeddings(folder)) == 4
  for name in ('student', 'teacher', 'vae'):
    assert (tmp_path / 'models' / 'mine' / f'{name}.safetensors').is_file()
  prompt = ['--embeddings=data/wan_prompts', f'--prompt={lines[0]}']
  out = ['--model=models/mine', '--out=out', '--length=9']
  assert cli.find_verb('generate')([*prompt, *out]) == 0
  assert list((tmp_path / 'out').rglob('*.mp4'))
