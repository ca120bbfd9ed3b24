"""Whatever options are given, a command works or says one sentence."""

import time

import hypothesis
import pytest
import user_files
from hypothesis import strategies as st

from unitemp_jax.cli import main as cli

SECONDS = 30
FILES = (
  *('a.png', 'clip.mp4', 'clip35.mp4', 'loud.mp4', 'not.pt', 'empty.json'),
  *('deep.json', 'list.json', 'bom.txt', 'open.csv', 'twice.json', 'A', 'none'),
  *('deep.yaml', 'huge.yaml', 'model', 'narrow', 'huge.npy', 'dangling', 'own'),
)
JUNK = st.text(
  st.characters(codec='utf-8', exclude_characters='/\0'), max_size=9
)


def mostly(values):
  """One in eight values is anything."""
  anything = JUNK | st.integers(-(10**30), 10**30).map(str)
  return st.integers(0, 7).flatmap(lambda n: values if n else anything)


WHOLE = mostly(st.integers(0, 36).map(str) | st.integers(-3, 140).map(str))
FLAG = st.none()
FILE = mostly(st.sampled_from(FILES))
SEVERAL = st.lists(WHOLE, max_size=4).map(','.join)
LENGTH = mostly(
  st.integers(0, 25).map(lambda k: f'{4 * k + 1}')
  | st.integers(0, 25).map(lambda k: f'{4 * k}')
  | st.floats(0, 99).map(lambda s: f'{s:.3g}s')
  | st.floats().map(str)
)


def pairs(left, right):
  return st.tuples(left, right).map(':'.join)


def one_of(*names):
  return mostly(st.sampled_from(names))


ORDER = one_of(
  'forward', 'backward', 'inbetween', 'loop', 'all', 'loop,forward'
)
SIDE = one_of('past', 'future', 'outside_in', 'middle_out')
SINKS = one_of('none', 'past', 'future', 'both')
STATES = {'anchors': WHOLE, 'start_level': WHOLE, 'window': WHOLE}
# Lawful by themselves; the options come on top of one of them.
BASES = {
  'generate': (
    *('', '--orders=backward,loop', '--image=clip.mp4 --length=65', '--loop'),
    *('--extend=clip.mp4 --after=8', '--keyframe=16:a.png', '--long=61'),
    *('--regenerate=clip.mp4 --span=9:19', '--storyboard=story.yaml'),
    '--transition --first=a.png --last=clip.mp4 --length=65',
  ),
  'plan': (
    *('--order=forward', '--order=inbetween', '--order=loop', '--order=long'),
    *('--order=extend --after=24', '--order=keyframes --given=0,20'),
    *('--order=transition --first=9 --last=1', '--order=story --scenes=24,36'),
    *('--order=regenerate --replace=9:19', '--plan=plan.json'),
  ),
  'evaluate generate': (
    *('--suite=plain --manifest=bom.txt', '--suite=vbench --manifest=bom.txt'),
    *('--suite=moviegen --manifest=many.txt', '--suite=inbetween --manifest=A'),
  ),
}
# Command -> (what it always has, option -> its values).
COMMANDS = {
  'generate': (
    ['--out=o', '--dry_run'],
    {
      **{'orders': ORDER, 'image': FILE, 'extend': FILE, 'loop': FLAG},
      **{'keyframe': pairs(LENGTH, FILE), 'transition': FLAG, 'long': LENGTH},
      **{'regenerate': FILE, 'storyboard': FILE, 'at': LENGTH},
      **{'before': LENGTH, 'after': LENGTH, 'trim': FLAG, 'sinks': SINKS},
      **{'sides': one_of('past', 'future', 'alternate'), 'side': SIDE},
      **{'span': pairs(WHOLE, WHOLE), 'direction': one_of('backward')},
      **{'prompt': JUNK, 'prompts': FILE, 'prompt_at': pairs(LENGTH, JUNK)},
      **{'num_prompts': st.integers(-2, 9).map(str) | JUNK, 'seed': WHOLE},
      **{'length': LENGTH, 'height': WHOLE, 'width': WHOLE, 'first': FILE},
      **{'last': FILE, 'model': FILE, 'embeddings': FILE, 'lossless': FLAG},
      **{'decode': one_of('stream', 'lag'), 'batch_size': WHOLE},
      **{'format': one_of('gif', 'mp4,png'), 'crf': WHOLE, 'repeat': WHOLE},
      **{'playback_fps': LENGTH, 'noise': FILE, 'plan': FILE, 'block': WHOLE},
      **{'local_attn_size': WHOLE, 'sink_latents': WHOLE, 'frame': JUNK},
      **{'draw': JUNK, 'out': JUNK, **STATES},
    },
  ),
  'plan': (
    ['--dry_run'],
    {
      'order': st.sampled_from(
        ('forward', 'backward', 'inbetween', 'inbetween_outside_in', 'loop')
        + ('extend', 'keyframes', 'transition', 'regenerate', 'story', 'long')
      ),
      **{'plan': FILE, 'block': WHOLE, **STATES, 'span': WHOLE, 'rows': WHOLE},
      **{'prompts': st.lists(pairs(WHOLE, WHOLE)).map(','.join)},
      **{'frames': LENGTH, 'first': LENGTH, 'last': LENGTH, 'side': SIDE},
      **{'given': SEVERAL | pairs(WHOLE, WHOLE), 'clip': LENGTH},
      **{'before': WHOLE, 'after': WHOLE, 'replace': pairs(WHOLE, WHOLE)},
      **{'sides': one_of('past', 'alternate'), 'scenes': SEVERAL},
      **{'connections': SEVERAL, 'direction': one_of('backward')},
      **{'sinks': SINKS, 'sink_latents': WHOLE, 'loop': FLAG},
      **{'local_attn_size': WHOLE, 'first_block': WHOLE},
      'out': one_of('p.json', 'p.svg', 'a.png/x.svg'),
    },
  ),
  'evaluate generate': (
    ['--out=o', '--dry_run'],
    {
      'suite': one_of('vbench', 'vbench2', 'moviegen', 'i2v', 'inbetween'),
      **{'manifest': FILE, 'long_prompts': FILE, 'images': FILE},
      **{'captions': FILE, 'prompt': JUNK, 'order': ORDER, 'out': JUNK},
      **{'model': FILE, 'samples': st.integers(-2, 9).map(str) | JUNK},
      **{'num_prompts': WHOLE, 'seed': WHOLE, 'frames': LENGTH, **STATES},
      **{'sinks': SINKS, 'decode': one_of('lag'), 'batch_size': WHOLE},
      **{'shard': WHOLE.map(lambda n: f'{n}/4'), 'hosts': WHOLE},
      **{'coordinator': JUNK, 'host_index': WHOLE},
    },
  ),
}


@st.composite
def commands(draw, verb):
  """The words of a command: a lawful one, and up to three options."""
  always, options = COMMANDS[verb]
  words = [*verb.split(), *always]
  words += draw(st.sampled_from(BASES[verb])).split()
  if verb == 'generate' and '--storyboard=story.yaml' not in words:
    words.append('--prompt=a red three falls')
  for name in draw(st.lists(st.sampled_from(sorted(options)), max_size=3)):
    value = draw(options[name])
    words.append(f'--{name}' + ('' if value is None else f'={value}'))
  return words


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return user_files.write(tmp_path_factory.mktemp('options'))


def snapshot(folder):
  """Size and time of all files, and all folders; drawings may come."""
  return {
    path: path.is_dir() or (path.lstat().st_size, path.lstat().st_mtime_ns)
    for path in folder.rglob('*')
    if path.suffix != '.svg'
  }


@pytest.mark.parametrize(
  'verb, count', [('generate', 120), ('plan', 150), ('evaluate generate', 60)]
)
def test_any_options(folder, monkeypatch, capsys, verb, count):
  monkeypatch.chdir(folder)
  before, codes = snapshot(folder), set()

  @hypothesis.settings(
    max_examples=count,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(commands(verb))
  def check(words):
    start = time.monotonic()
    try:
      code = cli.main(words)
    except SystemExit as error:
      code = error.code
    said = capsys.readouterr().err
    assert code in (0, 2)
    assert time.monotonic() - start < SECONDS
    if code:
      (line,) = (
        l for l in said.splitlines() if not l.startswith('unitemp: note')
      )
      assert line.startswith('unitemp: error: ')
    codes.add(code)

  check()
  assert codes == {0, 2}  # Neither is all lawful, nor all refused.
  assert snapshot(folder) == before
