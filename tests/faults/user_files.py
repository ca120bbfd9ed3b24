"""Good, bad and odd files that a user may name, in one folder."""

import json
import os
import shutil
from fractions import Fraction

import av
import numpy as np
from model_fixture import random_model
from PIL import Image
from safetensors.numpy import load_file, save_file
from votes import DEEP, KEY, VOTES

from unitemp_jax import TINY, orders
from unitemp_jax.plans import text as plan_text
from unitemp_jax.video.write import write_image, write_video

# Cards: the shipped model's, with one thing changed.
CARDS = {
  'fps_0': {'fps': 0},
  'narrow': {'dit': {'dim': 128}},
  'text_width': {'width': 'x'},
  'quoted_frames': {'frames': '33'},
  'low': {'height': -32},
  'letters': {'orders': 'forward'},
  'slow': {'fps': 1e-300},
}


def _aliases(width, depth):
  """YAML of a list of so many aliases of lists, and so on."""
  lines = ['a0: &a0 [x]']
  for level in range(1, depth + 1):
    inner = ', '.join([f'*a{level - 1}'] * width)
    lines.append(f'a{level}: &a{level} [{inner}]')
  return '\n'.join(lines)


TABLE = """growth: {}
tables:
  one:
  - {name: a, config: b, topology: v5e:1x1, steps: [x], """
STORY = """size: 32x32
scenes:
- name: one
  prompt: a red three falls
  length: {}
- name: two
  prompt: "a \\ud83d\\ude00 two falls"
  length: 24
"""


def write(folder):
  """Writes all of them, and returns the folder."""
  frames = np.zeros((36, 16, 16, 3), np.uint8)
  frames += np.arange(36, dtype=np.uint8)[:, None, None, None]
  write_image(folder / 'a.png', frames[0])
  Image.new('1', (14_000, 14_000)).save(folder / 'huge.png')
  write_video(folder / 'clip.mp4', frames[:33], 12)
  write_video(folder / 'one.mp4', frames[:1], 30)
  write_video(folder / 'clip35.mp4', frames[:35], 12)
  write_video(folder / 'loud.mp4', frames[:33], 12)
  _add_sound(folder / 'loud.mp4')
  for name in ('own/extend/0000-x.mp4', 'A/p-0.mp4', 'B/p-0.mp4', 'dir/x.mp4'):
    write_video(folder / name, frames[:33], 12)
  data = (folder / 'clip.mp4').read_bytes()
  (folder / 'strange.mp4').write_bytes(data.replace(b'avc', b'qqq'))
  (folder / 'dangling').symlink_to('nowhere/at/all')
  for name in ('linked', 'half'):
    (folder / name).mkdir()
  (folder / 'linked/measured').symlink_to(folder / 'A')
  (folder / 'half/forward').symlink_to('nowhere')
  (folder / 'half/backward').write_text('mine')
  (folder / 'empty').mkdir()
  os.mkfifo(folder / 'fifo')
  _write_texts(folder)
  _write_models(folder)
  return folder


def _add_sound(path):
  quiet = path.with_name('quiet.mp4')
  path.rename(quiet)
  with av.open(str(quiet)) as read, av.open(str(path), 'w') as out:
    picture = out.add_stream_from_template(read.streams.video[0])
    sound = out.add_stream('aac', rate=48000)
    for packet in read.demux(video=0):
      if packet.dts is not None:
        packet.stream = picture
        out.mux(packet)
    for start in range(0, 48000, 1024):
      frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), 'fltp', 'mono'
      )
      frame.sample_rate, frame.pts = 48000, start
      frame.time_base = Fraction(1, 48000)
      out.mux(sound.encode(frame))
    out.mux(sound.encode(None))
  quiet.unlink()


def _write_texts(folder):
  texts = {
    'empty.json': '',
    'garbage.json': '\x00\ufffd {',
    'list.json': '[1]',
    'deep.json': DEEP,
    'K.json': json.dumps(KEY),
    'v.json': json.dumps(VOTES),
    'five.json': json.dumps({**VOTES, 'votes': 5}),
    'trial.json': json.dumps({**KEY, 'trials': {'t': 3}}),
    'studyless.json': json.dumps({k: KEY[k] for k in KEY if k != 'study'}),
    'twice.json': json.dumps(
      [{'id': 1, 'prompt': 'a'}, {'id': 1, 'prompt': 'b'}]
    ),
    'open.csv': 'id,prompt\n1,"a red one\n2,a blue two\n3,a green three\n',
    'more.csv': 'id,prompt\n1,a red one, falls\n',
    'names.csv': 'id,prompt,prompt\n1,a red one,a blue two\n',
    'prompts.CSV': 'id,prompt\n1,"a red one, falls"\n',
    'images.csv': 'prompt,image\na red one,x.png\n',
    'seeds.jsonl': '{"prompt": "a red one", "seed": 7}\n',
    'blank.csv': 'prompt,seed\na red one,\n',
    'prompts.tsv': 'prompt\na red one\n',
    'keys.jsonl': '{"prompt": "a", "prompt": "b"}\n',
    'marks.txt': '\ufeff\n\u200b\n',
    'half.json': '[{"id": 1, "prompt": "a \\ud800 one"}]',
    'bom.txt': '\ufeffa red three falls\na blue two falls\n',
    'many.txt': '\n'.join(f'a red {i}' for i in range(3_000)),
    'aliases.yaml': _aliases(9, 7),
    'aliases30.yaml': _aliases(30, 6),
    'deep.yaml': '[' * 5000,
    'story.yaml': STORY.format(24),
    'half.yaml': STORY.format('"\\ud800"'),
    'wide.yaml': f'window: {10**9}\n' + STORY.format(24),
    'late.yaml': 'seed: 99999999999\n' + STORY.format(24),
    'cap.json': json.dumps([{'id': 1, 'prompt': 'a'}]),
    'bare.py': 'import ml_collections as m\nget_config = m.ConfigDict\n',
    'exit.py': 'import sys\nsys.exit(3)\n',
    'plan.json': plan_text.to_json(orders.forward(9, anchors=3)),
    'plan4.json': plan_text.to_json(orders.forward(9, block=4, anchors=0)),
    'given.json': plan_text.to_json(orders.forward(9, given_first=1)),
    'digits.yaml': STORY.format('9' * 400),
    'octal.yaml': TABLE + 'slices: 010}\n',
    'step.yaml': TABLE.replace('[x]', 'x') + '}\n',
    'axis.yaml': TABLE + 'mesh: {context: x}}\n',
    'less.yaml': TABLE.replace('topology: v5e:1x1, ', '') + '}\n',
    'twice.yaml': 'growth: {}\ntables: {}\ntables: {}\n',
    'huge.yaml': STORY.format('1000000000'),
    'readme.md': 'written by hand\n',
    'captions.csv': 'file,caption\nx.mp4,a red one\n',
    'not.pt': 'not a checkpoint',
  }
  for name, text in texts.items():
    (folder / name).write_text(text, encoding='utf-8')
  header = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8)}"
  )
  header = header.ljust(117) + b'\n'
  (folder / 'huge.npy').write_bytes(b'\x93NUMPY\x01\x00v\x00' + header)
  noise = np.zeros((4, 1, 4, 4, 8), np.float32)
  np.savez(folder / 'short.npz', noise=noise)
  np.savez(folder / 'axes.npz', noise=noise, axes=np.array(list('abcde')))
  np.save(folder / 'four.npy', np.zeros((3, 4)))
  np.save(folder / 'five.npy', np.zeros((3, 5)))
  np.save(folder / 'big.npy', np.full((3, 4), 1e200))


def _write_models(folder):
  for name in ('empty', 'garbage', 'list', 'deep'):
    _copy_model(TINY, folder / f'model_{name}', link=True)
    card = folder / f'model_{name}/model.json'
    card.write_bytes((folder / f'{name}.json').read_bytes())
  _copy_model(TINY, folder / 'model_dir', link=True)
  (folder / 'model_dir/model.json').unlink()
  (folder / 'model_dir/model.json').mkdir()
  for name, changes in CARDS.items():
    _copy_model(TINY, folder / name, link=True)
    card = json.loads((TINY / 'model.json').read_text())
    for key, value in changes.items():
      if isinstance(value, dict):
        card[key].update(value)
      else:
        card[key] = value
    (folder / name / 'model.json').write_text(json.dumps(card))
  _copy_model(random_model(), folder / 'model')
  for network in ('student', 'vae'):
    bad = folder / f'nan_{network}'
    _copy_model(random_model(), bad)
    _spoil(bad / f'{network}.safetensors')
  for network in ('text', 'vae'):
    path = folder / f'zero_{network}/{network}.safetensors'
    _copy_model(random_model(), path.parent)
    save_file({k: 0 * array for k, array in load_file(path).items()}, path)


def _copy_model(source, folder, link=False):
  folder.mkdir()
  for path in source.iterdir():
    if link and path.suffix == '.safetensors':
      (folder / path.name).symlink_to(path)
    else:
      shutil.copy(path, folder / path.name)


def _spoil(path):
  arrays = load_file(path)
  name = max(arrays, key=lambda k: arrays[k].size)
  array = arrays[name].copy()
  array.flat[array.size // 2] = np.nan
  save_file({**arrays, name: array}, path)
