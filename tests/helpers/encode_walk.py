"""A folder of large videos to latents: in killed parts, beside one plain run.

  python tests/helpers/encode_walk.py DIR --clips=300

Makes the videos (`many_clips.py`), and indexes and encodes them with the
full-size config and a small random VAE: once as a whole, and once as three
parts, each of which is killed with SIGKILL at a random moment and run again,
and then joined. Prints what each command took, and exits with 1 unless index
and latents are the same bytes. What is finished is kept in DIR/walk.jsonl.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import full_walk
import jax
import many_clips
import numpy as np

from unitemp_jax.models import sizes, weights
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

CONFIG = f'{full_walk.ROOT}/configs/wan_1p3b_student_init.py'
VAE = [
  '--config.model.vae.base_dim=4',
  '--config.model.vae.patch=8',
  '--config.model.vae.dim_mult=(1,1,1)',
  '--config.model.vae.temporal_down=(True,True)',
  '--config.model.vae.num_res_blocks=1',
]
PARTS = 3


def random_vae(path):
  """Writes random weights for the small VAE."""
  shapes = sizes.param_shapes(
    builders.vae_config(load_config(CONFIG, VAE).model)
  )
  rng = np.random.default_rng(0)
  weights.save(
    path,
    jax.tree.map(
      lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes
    ),
  )


def commands(folder, way):
  """Words of the index and of the latents of one way, `whole` or `parts`."""
  data, videos = folder / way / 'data', folder / 'videos'
  size = ['--height=480', '--width=832', '--num_frames=77']
  index = [*('data', 'video_folder', f'--videos={videos}', '--fps=16'), *size]
  fields = [f'--config.data.{word[2:]}' for word in size]
  clips = [
    *('encode', f'--config={CONFIG}', *VAE, *fields),
    *(f'--config.data.videos={videos}', f'--config.data.dir={data}'),
    f'--config.latents.vae={folder / "vae.safetensors"}',
    f'--config.latents.tokenizer={full_walk.TOKENIZER}',
    f'--out={folder / way / "latents"}',
  ]
  return {'index': [*index, f'--out={data}'], 'latents': clips}


def killed(words, log, after):
  """Runs a command and kills it; False if it was finished before."""
  environment = {**os.environ, 'PYTHONPATH': str(full_walk.ROOT)}
  with log.open('a') as file:
    process = subprocess.Popen(
      [sys.executable, '-m', 'unitemp_jax.cli.main', *map(str, words)],
      **{'stdout': file, 'stderr': file, 'env': environment},
    )
  try:
    process.wait(after)
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGKILL)
  return process.wait() == -signal.SIGKILL


def digest(folder):
  """{name: SHA-256} of the files of a folder that are no time or path."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file() and not path.name.startswith('.')
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--clips', type=int, default=300)
  args = parser.parse_args()
  folder = args.folder.absolute()
  (folder / 'videos').mkdir(parents=True, exist_ok=True)
  for number in range(args.clips):
    many_clips.make(folder / 'videos', number, 120, 24, 720, 1280)
  if not (folder / 'vae.safetensors').exists():
    random_vae(folder / 'vae.safetensors')

  lines, log = folder / 'walk.jsonl', folder / 'walk.log'
  done = {}
  if lines.exists():
    texts = lines.read_text().splitlines()
    done = {line['command']: line for line in map(json.loads, texts)}

  def run(name, words, before=None):
    """Runs to the end what is not done, after `before` seconds a kill."""
    if name in done:
      return
    kill = before is not None and killed(words, log, before)
    code, seconds, peak, own = full_walk.measured(words, log)
    if code:
      raise SystemExit(f'{name} ended with {code}; see {log}.')
    line = {'command': name, 'killed': kill, 'seconds': round(seconds)}
    line |= {'peak_gb': round(peak, 2), 'own_gb': round(own, 2)}
    with lines.open('a') as file:
      file.write(json.dumps(line) + '\n')
    done[name] = line
    print(line, flush=True)

  rng = random.Random(0)
  for what, words in commands(folder, 'whole').items():
    run(f'{what}, whole', words)
  for what, words in commands(folder, 'parts').items():
    share = done[f'{what}, whole']['seconds'] / PARTS
    for part in range(PARTS):
      run(
        f'{what}, part {part}',
        [*words, f'--shard={part}/{PARTS}'],
        before=rng.uniform(0.2, 0.8) * share,
      )
    run(f'{what}, joined', words)

  print('| command | killed once before | seconds | clips/min | peak, GB |')
  print('|---|---|---|---|---|')
  for name, line in done.items():
    clips = args.clips / (1 if name.endswith(('whole', 'joined')) else PARTS)
    rate = clips / max(line['seconds'], 1) * 60
    rate = '' if name.endswith('joined') else f'{rate:.0f}'
    print(
      f'| {name} | {"yes" if line["killed"] else "no"} | {line["seconds"]} | '
      f'{rate} | {line["peak_gb"]:.2f} |'
    )
  equal = True
  for what in ('data', 'latents'):
    whole, parts = (digest(folder / way / what) for way in ('whole', 'parts'))
    differing = sorted(
      name
      for name in whole.keys() | parts
      if whole.get(name) != parts.get(name)
    )
    equal &= not differing
    print(f'{what}: {len(whole)} files', differing or 'equal')
  return int(not equal)


if __name__ == '__main__':
  sys.exit(main())
