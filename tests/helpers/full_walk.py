"""Peak memory of every command on checkpoints of the published sizes.

  python tests/helpers/full_walk.py DIR                     18 GB in DIR
  python tests/helpers/full_walk.py DIR --layers=2 --rows=2000   less of them
  python tests/helpers/full_walk.py DIR --only=convert,encode

Writes random weights under the names and in the layout of Self-Forcing's and
Wan's files, as PyTorch saves them, runs the commands one after the other, and
prints a table; each finished line is kept in DIR/walk.jsonl. Needs PyTorch.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import published_names

ROOT = pathlib.Path(__file__).parents[2]
TOKENIZER = ROOT / 'unitemp_jax' / 'assets' / 'tiny' / 'tokenizer.json'
LAYERS, ROWS = {'dit': 30, 'umt5': 24}, 256_384
STUDENT, VAE, TEXT = 'self_forcing_dmd.pt', 'vae.pth', 'umt5_bf16.pth'
PROMPT = 'a red three falls'


def checkpoints(folder, layers, rows, needed):
  """Writes the files that are needed, tensors as views of one random file."""
  import torch

  dit = published_names.dit('wan', d=1536, ffn=8960, layers=layers['dit'])
  umt5 = published_names.umt5(
    'wan', vocab=rows, d=4096, ffn=10240, layers=layers['umt5'], heads=64, k=64
  )
  wanted = {
    STUDENT: (dit, np.float32),
    VAE: (published_names.vae('wan'), np.float32),
    TEXT: (umt5, np.uint16),
  }
  drawn = np.random.default_rng(0).standard_normal(2**24, np.float32) / 50
  for name, (shapes, dtype) in wanted.items():
    if (folder / name).exists() or name not in needed:
      continue
    source = folder / 'random'
    bits = drawn if dtype == np.float32 else (drawn.view('u4') >> 16)
    largest = max(int(np.prod(shape)) for shape in shapes.values())
    with source.open('wb') as file:
      for _ in range(-(-largest // len(bits))):
        file.write(bits.astype(dtype).data)
    state = {}
    for key, shape in shapes.items():
      mapped = np.memmap(source, dtype, 'c', shape=shape)
      if key.endswith(('norm_q.weight', 'norm_k.weight', 'gamma')):
        mapped[:] = 1.0
      tensor = torch.from_numpy(mapped)
      state[key] = tensor.view(torch.bfloat16) if bits is not drawn else tensor
    if name == STUDENT:
      prefixed = {f'model.{key}': value for key, value in state.items()}
      state = {'generator_ema': prefixed}
    torch.save(state, folder / f'{name}.part')
    (folder / f'{name}.part').rename(folder / name)
    source.unlink()


def commands(folder, layers, rows):
  """Name -> words of each command, in their order."""
  reduced = layers != LAYERS or rows != ROWS
  config = []
  if reduced:
    config = [
      f'--config={ROOT}/configs/wan_1p3b_distill.py',
      f'--config.model.dit.num_layers={layers["dit"]}',
      f'--config.model.text.num_layers={layers["umt5"]}',
      f'--config.model.text.vocab={rows}',
    ]
  student, vae, text = (folder / name for name in (STUDENT, VAE, TEXT))
  model, prompts = folder / 'model', folder / 'prompts.txt'
  prompts.write_text(f'{PROMPT}\n')
  clip = ['--length=9', '--height=64', '--width=64', '--orders=forward']
  parity = ['parity', *config]
  return {
    'convert': [
      *('convert', *config, f'--student={student}', f'--vae={vae}'),
      *(f'--text={text}', f'--tokenizer={TOKENIZER}', f'--out={model}'),
    ],
    'encode prompts': [
      *('encode', str(prompts), f'--model={model}', '--batch_size=1'),
      f'--out={folder / "prompts"}',
    ],
    'encode prompts of a .pth': [
      *('encode', str(prompts), *config, f'--checkpoint={text}'),
      '--batch_size=1',
      *(f'--tokenizer={TOKENIZER}', f'--out={folder / "prompts_pth"}'),
    ],
    'generate from embeddings': [
      *('generate', f'--model={model}', f'--prompt={PROMPT}', *clip),
      *(f'--embeddings={folder / "prompts"}', f'--out={folder / "clips"}'),
    ],
    'generate with the text encoder': [
      *('generate', f'--model={model}', f'--prompt={PROMPT}', *clip),
      f'--out={folder / "clips_text"}',
    ],
    'parity of the transformer': [*parity, f'--checkpoint={student}'],
    'parity of the VAE': [
      *(*parity, f'--checkpoint={vae}', '--frames=2', '--height=8'),
      '--width=8',
    ],
    'parity of the text encoder': [
      *(*parity, f'--checkpoint={text}', '--tokens=32')
    ],
    'convert --to=self_forcing': [
      *('convert', f'--model={model}', '--to=self_forcing'),
      f'--out={folder / "back.pt"}',
    ],
  }


def measured(words, log):
  """Runs a command; (code, seconds, peak GB, peak GB that is not a file)."""
  words = [sys.executable, '-m', 'unitemp_jax.cli.main', *map(str, words)]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  began, own = time.monotonic(), 0.0
  with log.open('a') as file:
    process = subprocess.Popen(
      words, cwd=ROOT, env=environment, stdout=file, stderr=file
    )

  def watch():
    nonlocal own
    status = pathlib.Path(f'/proc/{process.pid}/status')
    while process.returncode is None:
      try:
        lines = status.read_text().splitlines()
      except OSError:
        return
      found = [line.split() for line in lines if line.startswith('RssAnon')]
      own = max(own, *(float(kb) / 1e6 for _, kb, _ in found), 0.0)
      time.sleep(0.02)

  thread = threading.Thread(target=watch)
  thread.start()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  thread.join()
  seconds = time.monotonic() - began
  return process.returncode, seconds, usage.ru_maxrss / 1e6, own


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--layers', type=int, help='of both transformers')
  parser.add_argument('--rows', type=int, default=ROWS)
  parser.add_argument('--only', default='', help='beginnings, with commas')
  args = parser.parse_args()
  folder = args.folder.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  layers = dict.fromkeys(LAYERS, args.layers) if args.layers else LAYERS
  chosen = {
    name: words
    for name, words in commands(folder, layers, args.rows).items()
    if name.startswith(tuple(args.only.split(',')))
  }
  needed = ' '.join(word for words in chosen.values() for word in words)
  checkpoints(folder, layers, args.rows, needed)
  lines = folder / 'walk.jsonl'
  for name, words in chosen.items():
    code, seconds, peak, own = measured(words, folder / 'walk.log')
    line = {'command': name, 'code': code, 'seconds': round(seconds)}
    line |= {'peak_gb': round(peak, 2), 'own_gb': round(own, 2)}
    with lines.open('a') as file:
      file.write(json.dumps(line) + '\n')
    print(line, flush=True)
  found = [json.loads(text) for text in lines.read_text().splitlines()]
  print(
    '| command | seconds | peak, GB | of it no file, GB |\n|---|---|---|---|'
  )
  for line in found:
    print(
      f'| {line["command"]} | {line["seconds"]} | {line["peak_gb"]:.1f} | '
      f'{line["own_gb"]:.1f} |'
    )
  return max(line['code'] != 0 for line in found)


if __name__ == '__main__':
  sys.exit(main())
