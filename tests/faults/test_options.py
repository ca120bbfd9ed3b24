"""Whatever options are given, a command works or says one sentence.

The options are those that each verb's own parser has, so that a new one is
tried too.
"""

import argparse
import itertools
import resource
import shlex
import time
from pathlib import Path

import hypothesis
import pytest
import user_files
from hypothesis import strategies as st

from unitemp_jax.cli import main as cli
from unitemp_jax.cli.options import Parser
from unitemp_jax.training.config import flatten_config, load_config

SECONDS, BYTES = 30, 4 * 2**30
CONFIGS = Path(__file__).parents[2] / 'configs'
TINY_VAE = f'{CONFIGS}/tiny_vae.py:test'
FILES = (
  *('a.png', 'clip.mp4', 'clip35.mp4', 'loud.mp4', 'not.pt', 'empty.json'),
  *('deep.json', 'list.json', 'bom.txt', 'open.csv', 'twice.json', 'A', 'none'),
  *('deep.yaml', 'huge.yaml', 'model', 'narrow', 'huge.npy', 'dangling', 'own'),
  *('four.npy', 'K.json', 'v.json', 'dir', 'readme.md', 's3://bucket/x'),
  *('fifo', '/dev/zero', 'strange.mp4', 'half.json', 'more.csv', ''),
)
JUNK = st.text(
  st.characters(codec='utf-8', exclude_characters='/\0'), max_size=9
)


def mostly(values):
  """One in eight values is anything."""
  anything = JUNK | st.integers(-(10**30), 10**30).map(str)
  return st.integers(0, 7).flatmap(lambda n: values if n else anything)


WHOLE = mostly(st.integers(0, 36).map(str) | st.integers(-3, 140).map(str))
FILE = mostly(st.sampled_from(FILES))
LENGTH = mostly(
  st.integers(0, 25).map(lambda k: f'{4 * k + 1}')
  | st.integers(0, 25).map(lambda k: f'{4 * k}')
  | st.floats(0, 99).map(lambda s: f'{s:.3g}s')
  | st.floats().map(str)
)
NUMBER = mostly(st.floats().map(str) | st.floats(0, 9).map(str)) | WHOLE
PAIR = st.tuples(LENGTH, FILE | WHOLE | JUNK).map(':'.join)
WORDS = ('forward', 'backward', 'inbetween', 'loop', 'all', 'both', 'v5e:4x4')
TEXT = (
  mostly(st.lists(st.sampled_from(WORDS), max_size=3).map(','.join))
  | mostly(st.lists(WHOLE, max_size=4).map(','.join))
  | WHOLE.map(lambda n: f'{n}/4')
  | LENGTH
  | FILE
  | PAIR
)
# What no option expects, or few.
EXTREMES = (
  *('nan', 'inf', '-inf', '-1', '0', '1', f'{10**30}', f'-{10**30}', '1e999'),
  *('9' * 5000, '', ' ', '.', '..', '\ud800', 'a\nb', '\x7f', '%s', '{}'),
  *('~', '-', '--', '=', ':', ',', '0:0', '[]', '()', 'None', 'True', '0x10'),
  *('१', 'x' * 300, 'x/' * 2500, '/dev/null', '/proc/self/mem', '*', 'a/../b'),
)
# Verb -> (count of commands, ones that are lawful). Options come on top.
COMMANDS = {
  'generate': (
    100,
    [
      f'--out=o --dry_run "--prompt=a red three falls" {own}'
      for own in (
        *('', '--orders=backward,loop', '--image=clip.mp4 --length=65'),
        *('--loop', '--extend=clip.mp4 --after=8', '--keyframe=16:a.png'),
        *('--long=61', '--regenerate=clip.mp4 --span=9:19'),
        '--transition --first=a.png --last=clip.mp4 --length=65',
      )
    ]
    + ['--out=o --dry_run --storyboard=story.yaml'],
  ),
  'plan': (
    120,
    [
      *('--order=forward', '--order=inbetween', '--order=loop', '--order=long'),
      *('--order=extend --after=24', '--order=keyframes --given=0,20'),
      *('--order=transition --first=9 --last=1', '--order=story --scenes=8,8'),
      *('--order=regenerate --replace=9:19', '--plan=plan.json'),
    ],
  ),
  'evaluate generate': (
    60,
    [
      f'--out=o --dry_run --suite={own}'
      for own in (
        *('plain --manifest=bom.txt', 'vbench --manifest=bom.txt'),
        *('moviegen --manifest=many.txt', 'inbetween --manifest=A --prompt=x'),
      )
    ],
  ),
  'evaluate': (20, ['--out=o --dry_run']),
  'evaluate folder': (20, ['A --out=o --dry_run']),
  'evaluate verify': (20, ['A --suite=plain --manifest=bom.txt']),
  'evaluate status': (5, ['A']),
  'ablate': (
    5,
    [f'--config={CONFIGS}/ablations.py --out=o --results=empty --dry_run'],
  ),
  'compare': (20, ['A B --out=o --dry_run']),
  'compare votes': (20, ['v.json --key=K.json']),
  'compare numbers': (5, ['four.npy five.npy']),
  'train': (20, [f'--config={TINY_VAE} --workdir=new --dry_run']),
  'encode': (
    15,
    [
      '--out=o --dry_run bom.txt --model=model',
      f'--out=o --dry_run --config={CONFIGS}/tiny_teacher.py:test '
      '--config.latents.vae=model/vae.safetensors '
      '--config.latents.tokenizer=model/tokenizer.json',
    ],
  ),
  'ode_pairs': (
    10,
    [f'bom.txt --out=o --dry_run --config={CONFIGS}/tiny_student_init.py:test'],
  ),
  'convert': (20, ['--model=model --to=wan --out=o --dry_run']),
  'parity': (15, ['--checkpoint=model/student.safetensors --dry_run']),
  'teacher': (20, ['--model=model --prompt=x --out=o --dry_run']),
  'export': (
    10,
    [
      f'--config={CONFIGS}/tiny_distill.py:test --out=o '
      '--student=model/none.safetensors'
    ],
  ),
  'studio': (30, ['--out=o --dry_run']),
  'report': (5, ['A --dry_run']),
  'bench': (20, ['--out=o --dry_run']),
  'aot': (
    6,
    [
      f'--config={CONFIGS}/wan_1p3b_distill.py --topology=v5e:4x4 --fast '
      '--steps=encode --dry_run'
    ],
  ),
  'data falling_digits': (15, ['--num_clips=3 --out=o --dry_run']),
  'data video_folder': (
    15,
    [
      '--videos=dir --captions=captions.csv --fps=12 --height=16 --width=16 '
      '--num_frames=5 --out=o --dry_run'
    ],
  ),
}
ALWAYS_REFUSED = (
  *('export', 'compare numbers', 'evaluate status', 'ode_pairs', 'parity'),
  'report',
)


class Captured(Exception):
  """A parser, instead of what it would parse."""


def parser_of(verb):
  """The parser of a verb."""

  def stop(parser, *_, **__):
    raise Captured(parser)

  words = verb.split()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Parser, 'parse_known_args', stop)
    try:
      cli.main(words)
    except Captured as found:
      [parser] = found.args
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      return action.choices[words[-1]]
  return parser


def values_of(action):
  """What is given to an option: mostly of its kind, sometimes anything."""
  if action.nargs == 0:
    return st.none()
  if action.choices is not None:
    return mostly(st.sampled_from(sorted(action.choices)))
  kind = getattr(action.type, '__name__', 'str')
  return {'int': WHOLE, 'float': NUMBER, 'Path': FILE}.get(kind, TEXT)


def options_of(verb):
  """Option -> its values; those of a config too."""
  found = {
    action.option_strings[0]: values_of(action)
    for action in parser_of(verb)._actions
    if action.option_strings and action.dest != 'help'
  }
  if '--config' in found:
    for name in flatten_config(load_config(TINY_VAE)):
      found[f'--config.{name}'] = NUMBER | TEXT
  return found


@st.composite
def commands(draw, verb, options):
  """The words of a command: a lawful one, and up to three options."""
  words = [
    *verb.split(),
    *shlex.split(draw(st.sampled_from(COMMANDS[verb][1]))),
  ]
  some = st.sampled_from(sorted(options) or ['--none'])
  for name in draw(st.lists(some, max_size=3)):
    value = draw(options.get(name, TEXT))
    words.append(name if value is None else f'{name}={value}')
  return words


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return user_files.write(tmp_path_factory.mktemp('options'))


def snapshot(folder):
  """Size and time of all files, and all folders."""
  return {
    path: path.is_dir() or (path.lstat().st_size, path.lstat().st_mtime_ns)
    for path in folder.rglob('*')
  }


@pytest.fixture
def checked(folder, monkeypatch, capsys):
  """Runs a command, which must work or say one sentence, and touch nothing."""
  monkeypatch.chdir(folder)
  before = snapshot(folder)
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

  def run(words):
    start = time.monotonic()
    try:
      code = cli.main(words)
    except SystemExit as error:
      code = error.code
    said = capsys.readouterr().err
    assert code in (0, 2) or (code == 1 and 'verify' in words)
    assert time.monotonic() - start < SECONDS
    if code == 2:
      (line,) = (
        l for l in said.splitlines() if not l.startswith('unitemp: note')
      )
      assert line.startswith('unitemp: error: ')
    forget_new(folder, before)
    return code

  yield run
  assert snapshot(folder) == before
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
  assert used < BYTES / 2**10


def counts():
  for verb, (count, _) in COMMANDS.items():
    yield pytest.param(verb, count, id=verb)
    more = 100 if verb == 'aot' else 1000
    yield pytest.param(
      verb, more, id=f'{verb}, {more} times', marks=pytest.mark.slow
    )


@pytest.mark.parametrize('verb, count', counts())
def test_any_options(checked, verb, count):
  @hypothesis.settings(
    max_examples=count,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(commands(verb, options_of(verb)))
  def check(words):
    codes.add(checked(words))

  codes = set()
  check()
  # Neither is all lawful, nor all refused.
  assert 2 in codes and (len(codes) > 1 or verb in ALWAYS_REFUSED)


def extremes():
  for number, verb in enumerate(COMMANDS):
    yield pytest.param(verb, number, 397, id=verb)
    yield pytest.param(verb, 0, 1, id=f'{verb}, all', marks=pytest.mark.slow)


@pytest.mark.parametrize('verb, first, every', extremes())
def test_extreme_values_of_every_option(checked, verb, first, every):
  base = [*verb.split(), *shlex.split(COMMANDS[verb][1][0])]
  pairs = itertools.product(sorted(options_of(verb)), EXTREMES)
  for name, value in itertools.islice(pairs, first, None, every):
    checked([*base, f'{name}={value}'])


def forget_new(folder, before):
  """Removes what a command may write in a dry run: a drawing, a table."""
  for path in sorted(folder.rglob('*'), reverse=True):
    if path not in before:
      assert not path.is_symlink()
      path.rmdir() if path.is_dir() else path.unlink()


def test_every_verb_is_tried():
  tried = {verb.split()[0] for verb in COMMANDS}
  assert tried == set(cli.VERBS)
