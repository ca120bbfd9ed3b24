"""What the benchmarks find in a folder, by the rules in their own code.

Written from those rules alone; nothing here uses the package.
"""

import os
import re
from pathlib import Path


def ending(folder):
  """All of them take the ending of whatever file is listed first."""
  endings = {Path(name).suffix for name in os.listdir(folder)}
  assert endings == {'.mp4'}, f'{folder} holds {endings}: any may come first'
  return endings.pop()


def read_vbench(folder, records, samples=5):
  """VBench's standard mode: {prompt: paths}, and the names it warns about."""
  postfix, names = ending(folder), set(os.listdir(folder))
  found, missing = {}, []
  for record in records:
    prompt = record['prompt_en']
    for i in range(samples):
      name = f'{prompt}-{i}{postfix}'
      if name in names:
        found.setdefault(prompt, []).append(os.path.join(folder, name))
      else:
        missing.append(name)
  return found, missing


def filter_static(folder, records):
  """VBench's static filter: {flicker prompt: clips that it looks at}."""
  wanted = {
    record['prompt_en']: []
    for record in records
    if 'temporal_flickering' in record['dimension']
  }
  for path in sorted(Path(folder).glob('*.mp4')):
    prompt = re.sub(r'-\d+$', '', path.stem)
    if prompt in wanted:
      wanted[prompt].append(path)
  return wanted


def read_vbench2(root, records):
  """VBench 2.0, dimension by dimension; it stops at the first missing clip."""
  found = {}
  for dimension in sorted({record['dimension'][0] for record in records}):
    folder = os.path.join(root, dimension)
    postfix, names = ending(folder), set(os.listdir(folder))
    for record in records:
      if dimension not in record['dimension']:
        continue
      number = 20 if record['dimension'][0] == 'Diversity' else 3
      for i in range(number):
        name = f'{record["prompt_en"][:180]}-{i}{postfix}'
        assert name in names, f'required video is not found: {name}'
        found.setdefault((dimension, record['prompt_en']), []).append(name)
  return found


def read_vbench_long(folder, records, samples=5):
  """VBench-Long: cuts clips to pieces, then finds the pieces by their names."""
  postfix, names = ending(folder), os.listdir(folder)
  pieces = {}  # folder of pieces -> their names
  for name in names:
    video = name.split('.mp4')[0]
    pieces[video] = [f'{video}_{k:03d}.mp4' for k in range(2)]
  clips = [name.replace(postfix, '') for name in names]
  found, missing = {}, []
  for record in records:
    for i in range(samples):
      video = f'{record["prompt_en"]}-{i}'
      own = [
        piece for piece in pieces.get(video, []) if piece.split('_')[0] in clips
      ]
      if len(own) == 2:
        found.setdefault(record['prompt_en'], []).append(video)
      else:
        missing.append(video)
  return found, missing


def read_numbers(folder, prompts):
  """MovieGen's prompts by their line: number -> file."""
  found = {}
  for name in os.listdir(folder):
    number, sample = re.fullmatch(r'(\d+)-(\d+)\.mp4', name).groups()
    found[int(number), int(sample)] = name
  return {(i, 0): found.get((i, 0)) for i in range(len(prompts))}


def read_self_forcing(folder, prompts, samples):
  """Names that another tool writes: the first 100 characters."""
  return {f'{p[:100]}-{i}.mp4' for p in prompts for i in range(samples)}
