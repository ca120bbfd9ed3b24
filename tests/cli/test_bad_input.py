"""Bad input at every entry: one sentence, exit code 2, nothing written.

Every case is one command. They all share one folder, which must be the same
before and after, byte for byte.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax import orders
from unitemp_jax.cli import main as cli
from unitemp_jax.plans import text as plan_text
from unitemp_jax.video.write import write_image, write_video

pytestmark = pytest.mark.devices(8)

CONFIGS = Path(__file__).parents[2] / 'configs'

# Verb -> [(what is wrong, arguments, what the sentence must name)]. Paths are
# relative to the shared folder; {c} is the folder of configs.
TRAIN = '--config={c}/tiny_vae.py:test --workdir=new'
TEACHER = '--config={c}/tiny_teacher.py:test --workdir=new'
AOT = '--config={c}/wan_1p3b_distill.py'
ODE_PAIRS = '--config={c}/wan_1p3b_ode_init.py --out=new --config.mesh.fsdp=1'
STUDENT = '--config={c}/tiny_student_init.py:test --workdir=new'
ENCODE = (
  '--config={c}/tiny_teacher.py:test --out=new --config.latents.vae='
  'model/vae.safetensors --config.latents.tokenizer=model/tokenizer.json'
)
EXPORT = (
  '--config={c}/tiny_distill.py:test --out=new --config.latents.dir=latents '
  '--config.latents.tokenizer=model/tokenizer.json '
  '--config.latents.vae=model/vae.safetensors '
  '--config.teacher=teacher.safetensors'
)
STUDENT_FILE = '--student=model/student.safetensors'
GENERATE = '--model=model --out=new'
PROMPT = [*GENERATE.split(), '--prompt=a red one falls']
BETWEEN = [*PROMPT, '--orders=inbetween', '--last=image.png']
DATA = '--out=new --fps=8 --height=16 --width=16 --num_frames=9'

INDEX = {'shards': 1, 'latent_mean': [0.0] * 16, 'latent_std': [1.0] * 16}
CASES = {
  '': [
    ('unknown verb', ['generat'], "no verb 'generat'; did you mean 'generate'"),
  ],
  'train': [
    *(
      (f'data of {key}={value}', f'{TRAIN} --config.data.{key}={value}', key)
      for key, value in (
        ('num_frames', 0),
        ('num_frames', -5),
        ('num_frames', 32),
        ('num_frames', 10**9 + 1),
        ('size', 0),
        ('size', 10**6),
        ('num_clips', 10**11),
      )
    ),
    ('no config file', '--config={c}/tiny_va.py --workdir=new', 'tiny_vae.py'),
    ('config argument', TRAIN.replace(':test', ':huge'), "'huge'"),
    ('config key', f'{TRAIN} --config.num_stepz=3', 'num_steps'),
    ('type of a value', f'{TRAIN} --config.num_steps=many', 'num_steps=many'),
    ('unknown argument', f'{TRAIN} --steps=3', '--steps=3'),
    ('no workdir', '--config={c}/tiny_vae.py', '--workdir'),
    ('no objective', f'{TRAIN} --config.objective=gan', "'gan'"),
    ('batch on 8 devices', f'{TRAIN} --config.batch_size=3', '8 devices'),
    ('no latents', f'{TEACHER} --config.latents.dir=none', 'none'),
    ('broken latents', f'{TEACHER} --config.latents.dir=torn', 'torn'),
    ('no index', f'{TEACHER} --config.latents.dir=list --dry_run', 'a list'),
    ('no mean', f'{TEACHER} --config.latents.dir=bare --dry_run', 'lacks'),
    ('text', f'{TEACHER} --config.latents.dir=text --dry_run', 'no index'),
    ('short shard', f'{TEACHER} --config.latents.dir=short', 'short/latents-0'),
    ('no shard', f'{TEACHER} --config.latents.dir=latents', 'latents-00000'),
    ('no teacher', f'{STUDENT} --config.teacher=no.safetensors', 'no.safe'),
    (
      'teacher of another kind',
      f'{STUDENT} --config.teacher=model/student.safetensors',
      'model/student.safetensors does not fit',
    ),
    (
      'teacher of another size',
      f'{STUDENT} --config.teacher=teacher.safetensors '
      '--config.model.dit.dim=64',
      'teacher.safetensors does not fit',
    ),
    (
      'more anchors than a block has',
      f'{STUDENT} --config.teacher=teacher.safetensors '
      '--config.orders.anchors=5',
      'anchors is 5',
    ),
    (
      'workdir of another config',
      '--config={c}/tiny_vae.py:test --workdir=run',
      'run holds a run with another config',
    ),
    (
      'workdir whose config is damaged',
      '--config={c}/tiny_vae.py:test --workdir=torn_run',
      'torn_run/config.json cannot be read',
    ),
  ],
  'bench': [
    ('no model', '--model=nowhere --out=new', 'nowhere'),
    ('unknown benchmark', 'spede --out=new', 'spede'),
  ],
  'compare': [
    ('no folder', 'nowhere videos --out=new', 'nowhere'),
    ('no baseline', 'videos videos --baseline=none --out=new', 'none'),
  ],
  'convert': [
    (
      'a checkpoint that is none',
      '--student=corrupt.mp4 --out=new',
      'corrupt.mp4',
    ),
  ],
  'parity': [('no checkpoint', '--checkpoint=no.pt', 'no.pt')],
  'teacher': [
    (
      'no model',
      '--model=nowhere --prompts=videos/corrupt.txt --out=new',
      'nowhere',
    ),
    ('empty prompts', '--model=model --prompts=empty.txt --out=new', 'empty'),
  ],
  'encode': [
    ('config without latents', '--config={c}/tiny_vae.py', 'config.latents'),
    ('no weights', f'{ENCODE} --config.latents.vae=no.safetensors', 'no.safe'),
    (
      'truncated weights',
      f'{ENCODE} --config.latents.vae=truncated/vae.safetensors',
      'truncated/vae.safetensors',
    ),
    (
      'weights of another size',
      f'{ENCODE} --config.model.vae.base_dim=8',
      'model/vae.safetensors does not fit',
    ),
    ('latents of another VAE', f'{ENCODE} --out=latents', 'latents holds'),
    (
      'no tokenizer',
      f'{ENCODE} --config.latents.tokenizer=no.json',
      'no.json',
    ),
  ],
  'ablate': [
    ('no config', '--config=no.py --out=new', 'no.py'),
    ('config of another kind', '--config={c}/tiny_vae.py --out=new', 'seeds'),
  ],
  'studio': [
    ('no model', '--model=nowhere --out=new', 'nowhere'),
    ('a port that is none', '--out=new --port=99999999', '--port'),
  ],
  'export': [
    ('no latents', f'{EXPORT} {STUDENT_FILE} --config.latents.dir=no', 'no '),
    ('no student', f'{EXPORT} --student=no.safetensors', 'no.safetensors'),
    (
      'student of another kind',
      f'{EXPORT} --student=model/vae.safetensors',
      'model/vae.safetensors does not fit',
    ),
    (
      'no tokenizer',
      f'{EXPORT} {STUDENT_FILE} --config.latents.tokenizer=no.json',
      'no.json',
    ),
  ],
  'generate': [
    ('empty prompt', [*GENERATE.split(), '--prompt= '], 'prompt is empty'),
    ('no prompts file', f'{GENERATE} --prompts=no.txt', 'no.txt'),
    ('empty prompts file', f'{GENERATE} --prompts=empty.txt', 'empty'),
    (
      'prompts that are no text',
      f'{GENERATE} --prompts=corrupt.mp4',
      'corrupt',
    ),
    ('no prompt at all', f'{GENERATE} --num_prompts=0', '--num_prompts'),
    ('unknown order', [*PROMPT, '--orders=sideways'], "'sideways'"),
    ('batch of 0', [*PROMPT, '--batch_size=0'], '--batch_size'),
    ('more anchors than a block', [*PROMPT, '--anchors=9'], 'anchors is 9'),
    ('unknown decoding', [*PROMPT, '--decode=later'], 'later'),
    ('unknown argument', [*PROMPT, '--steps=4'], '--steps'),
    (
      'level that does not exist',
      [*PROMPT, '--orders=backward', '--start_level=9'],
      'start',
    ),
    ('ends that are not given', [*PROMPT, '--orders=inbetween'], '--first'),
    ('one end only', BETWEEN, '--first'),
    ('no image', [*BETWEEN, '--first=no.png'], 'no.png'),
    ('damaged image', [*BETWEEN, '--first=corrupt.png'], 'corrupt.png'),
    ('damaged video', [*BETWEEN, '--first=corrupt.mp4'], 'corrupt.mp4'),
    ('clip of 6 frames', [*BETWEEN, '--first=six.mp4'], 'six.mp4 has 6'),
    (
      'clips that leave nothing to make',
      [*PROMPT, '--orders=forward', '--first=long.mp4'],
      'leaves nothing to make',
    ),
    ('files of another run', [*PROMPT, '--out=other'], 'other/forward/0000'),
    (
      'a file in place of the folder',
      [*PROMPT, '--out=image.png'],
      'image.png',
    ),
    ('no model', [*PROMPT, '--model=nowhere'], 'nowhere'),
    ('a model that lacks a file', [*PROMPT, '--model=part'], 'vae.safetensors'),
    (
      'a model without tokenizer',
      [*PROMPT, '--model=wordless'],
      'tokenizer.json',
    ),
    ('truncated weights', [*PROMPT, '--model=truncated'], 'vae.safetensors'),
    ('weights of another size', [*PROMPT, '--model=resized'], 'does not fit'),
    ('a damaged card', [*PROMPT, '--model=torn_model'], 'model.json'),
    ('a card of another version', [*PROMPT, '--model=old'], 'model.json'),
    ('nothing said', f'{GENERATE} --loop', '--loop needs --prompt'),
    ('two workflows', [*PROMPT, '--loop', '--long=5s'], 'not allowed with'),
    ('length of two', [*PROMPT, '--long=5s', '--length=33'], '--length'),
    ('no length', [*PROMPT, '--long=for ever'], "'for ever'"),
    ('sinks too many', [*PROMPT, '--long=33', '--window=9'], 'window of 9'),
    (
      'option of another workflow',
      [*PROMPT, '--loop', '--before=4'],
      '--before belongs to --extend',
    ),
    ('clip of 6', [*PROMPT, '--extend=six.mp4', '--after=4'], 'six.mp4 has 6'),
    ('keyframe of nothing', [*PROMPT, '--keyframe=3'], 'T:FILE'),
    ('keyframe at 3', [*PROMPT, '--keyframe=3:image.png'], '0 (0.00s) or 4'),
    ('no span', [*PROMPT, '--regenerate=long.mp4'], '--span=A:B'),
    (
      'span at the end',
      [*PROMPT, '--regenerate=long.mp4', '--span=9:32'],
      '1..27 can be made anew',
    ),
    (
      'one end of two',
      [*PROMPT, '--transition', '--first=image.png'],
      '--last',
    ),
    ('no size', [*PROMPT, '--loop', '--height=40'], '40x32'),
    ('prompt at no time', [*PROMPT, '--loop', '--prompt_at=now'], 'T:TEXT'),
    ('prompt too late', [*PROMPT, '--loop', '--prompt_at=99:a'], '0..32'),
    ('no storyboard', f'{GENERATE} --storyboard=no.yaml', 'no.yaml'),
    ('drawing of no kind', [*PROMPT, '--loop', '--draw=new.png'], '.svg'),
  ],
  'evaluate': [
    ('no model', '--model=nowhere --out=new', 'nowhere'),
    ('unknown suite', '--model=model --out=new --only=beauty', "'beauty'"),
    ('one clip', '--model=model --out=new --num_clips=1', '--num_clips: 1'),
    ('batch of 0', '--model=model --out=new --batch_size=0', '--batch_size'),
  ],
  'plan': [
    ('impossible plan', '--plan=impossible.json --out=new.svg', 'row 1'),
    ('no JSON', '--plan=corrupt.mp4', 'corrupt.mp4'),
    ('no plan', '--plan=no.json', 'no.json'),
    ('neither', '--out=new.svg', '--order'),
    ('32 frames', '--order=forward --frames=32', '29 or 33'),
    ('unknown order', '--order=sideways', 'sideways'),
    ('a picture of another kind', '--order=loop --out=new.png', 'new.png'),
    ('no folder', '--order=loop --out=image.png/a.svg', 'image.png/a.svg'),
    ('nothing between', '--order=inbetween --frames=1', '5 frames or more'),
  ],
  'aot': [
    ('no topology', '--config={c}/wan_1p3b_distill.py', '--topology'),
    ('no config', '--topology=v5e:4x4', '--config'),
    ('a list and a config', '--table=t.yaml --config=a.py', 'leave one'),
    ('no list', '--table=none.yaml', 'none.yaml'),
    ('no such chip', f'{AOT} --topology=v9z:4x4', 'v9z'),
    ('no such shape', f'{AOT} --topology=v5e:five', 'five'),
  ],
  'ode_pairs': [
    ('no prompts', f'none.txt {ODE_PAIRS}', 'none.txt'),
    ('no tokenizer', f'videos/corrupt.txt {ODE_PAIRS}', 'tokenizer.json'),
  ],
  'report': [
    ('no folder', 'nowhere', 'nowhere'),
    ('no clips', 'latents', 'latents'),
  ],
  'data': [
    ('unknown kind', 'flying_digits --out=new', 'flying_digits'),
    ('no clips', 'falling_digits --num_clips=0 --out=new', '--num_clips: 0'),
    (
      'unknown split',
      'falling_digits --num_clips=1 --split=best --out=new',
      'best',
    ),
    ('no videos', f'video_folder --videos=nowhere {DATA}', 'nowhere'),
    (
      'damaged videos, strictly',
      f'video_folder --videos=videos --strict {DATA}',
      'corrupt.mp4',
    ),
    (
      'no captions',
      f'video_folder --videos=videos --captions=no.csv {DATA}',
      'no.csv',
    ),
  ],
}


def flat_cases():
  for verb, cases in CASES.items():
    for what, arguments, words in cases:
      yield pytest.param(verb, arguments, words, id=f'{verb}: {what}')


def damage(folder):
  """Model folders that are not whole, next to one that is."""
  shutil.copytree(random_model(), folder / 'model')
  for name in ('part', 'wordless', 'truncated', 'torn_model', 'old', 'resized'):
    shutil.copytree(folder / 'model', folder / name)
  (folder / 'part' / 'vae.safetensors').unlink()
  (folder / 'wordless' / 'tokenizer.json').unlink()
  weights = folder / 'truncated' / 'vae.safetensors'
  weights.write_bytes(weights.read_bytes()[:-100])
  (folder / 'torn_model' / 'model.json').write_text('{"vae": ')
  card = json.loads((folder / 'model' / 'model.json').read_text())
  del card['shift']
  (folder / 'old' / 'model.json').write_text(json.dumps(card))
  card = json.loads((folder / 'model' / 'model.json').read_text())
  card['dit']['dim'] *= 2
  (folder / 'resized' / 'model.json').write_text(json.dumps(card))


def teacher_weights(path):
  """The file that the teacher's training leaves, of the test size."""
  from unitemp_jax.models import weights
  from unitemp_jax.sampling import model_folder

  folder = random_model()
  shapes = model_folder.param_shapes(model_folder.read_card(folder))
  read = lambda name: weights.load(folder / f'{name}.safetensors', shapes[name])  # noqa: E731
  weights.save(path, {'dit': read('teacher'), 'text': read('text')})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Good and bad files, for all cases; none of them may change."""
  folder = tmp_path_factory.mktemp('bad_input')
  damage(folder)
  teacher_weights(folder / 'teacher.safetensors')
  frames = np.zeros((33, 16, 16, 3), np.uint8)
  write_image(folder / 'image.png', frames[0])
  write_video(folder / 'six.mp4', frames[:6], 12)
  write_video(folder / 'long.mp4', frames, 12)
  (folder / 'videos').mkdir()
  for name in ('corrupt.mp4', 'corrupt.png', 'videos/corrupt.mp4'):
    (folder / name).write_bytes(b'\x00\xff\xfe not what it says' * 20)
  (folder / 'videos' / 'corrupt.txt').write_text('nothing')
  (folder / 'empty.txt').write_text('\n\n')
  plan = orders.forward(9, anchors=3)
  text = plan_text.to_json(plan).replace('"visible": 3', '"visible": 5')
  (folder / 'impossible.json').write_text(text)
  for name, content in (
    ('run/config.json', '{"objective": "vae"}'),
    ('torn_run/config.json', '{'),
    ('torn/latents.json', '{'),
    ('list/latents.json', '[1]'),
    ('bare/latents.json', '{}'),
    ('text/latents.json', json.dumps({**INDEX, 'latent_mean': 'x'})),
    ('latents/latents.json', json.dumps(INDEX)),
    ('short/latents.json', json.dumps(INDEX)),
    ('short/latents-00000.array_record', 'short'),
    ('other/forward/0000-a-red-one-falls.json', '{"key": "another"}'),
  ):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
  return folder


def snapshot(folder):
  """Content of all files, and all folders."""
  return {
    path.relative_to(folder).as_posix(): (
      path.read_bytes() if path.is_file() else None
    )
    for path in folder.rglob('*')
  }


def call(verb, arguments):
  """Runs a command and returns its exit code."""
  if isinstance(arguments, str):
    arguments = arguments.split()
  words = [word.replace('{c}', str(CONFIGS)) for word in arguments]
  try:
    return cli.main([verb, *words] if verb else words)
  except SystemExit as error:  # From argparse.
    return error.code


@pytest.mark.parametrize('verb, arguments, words', flat_cases())
def test_bad_input_is_refused(
  folder, monkeypatch, capsys, verb, arguments, words
):
  monkeypatch.chdir(folder)
  before = snapshot(folder)
  code = call(verb, arguments)
  error = capsys.readouterr().err
  assert code == 2
  assert words in error
  assert 'Traceback' not in error
  sentence = error.strip().splitlines()[-1]
  assert 'error: ' in sentence
  if sentence.startswith('unitemp: error: '):  # Not from argparse.
    notes = [line for line in error.splitlines() if 'there again' in line]
    assert len(error.strip().splitlines()) == 1 + len(notes)
  after = snapshot(folder)
  assert sorted(after) == sorted(before)
  assert after == before


def test_good_input_is_not_refused_and_seen_by_the_snapshot(
  folder, monkeypatch, tmp_path
):
  """The control: what differs from the bad cases is what is bad in them."""
  shutil.copytree(folder / 'model', tmp_path / 'model')
  for name in ('image.png', 'long.mp4'):
    shutil.copy(folder / name, tmp_path)
  monkeypatch.chdir(tmp_path)
  before = snapshot(tmp_path)
  assert call('generate', [*BETWEEN, '--first=image.png', '--dry_run']) == 0
  assert call('generate', [*PROMPT, '--dry_run']) == 0
  assert call('train', f'{TRAIN} --dry_run') == 0
  assert call('evaluate', '--model=model --out=new --dry_run') == 0
  assert snapshot(tmp_path) == before
  assert call('plan', '--order=backward --out=new.json') == 0
  assert set(snapshot(tmp_path)) - set(before) == {'new.json'}
  assert call('plan', '--plan=new.json') == 0


def test_every_verb_has_cases():
  assert set(CASES) - {''} == set(cli.VERBS)
