"""Storyboard files: what they say, and which line is at fault."""

import json
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitemp_jax import timeline
from unitemp_jax.errors import UserError
from unitemp_jax.generate import storyboard_file

GOOD = """\
size: 32x48
seed: 7
loop: true
window: 12
scenes:
  - name: fall
    prompt: a red seven falls
    length: 2s
    first: start.png
    at: {16: middle.png, 1.5s: clip.mp4}
  - name: bounce
    prompt: a red two bounces
    length: 32
    last: end.png
transitions:
  - from: fall
    to: bounce
    length: 12
    prompt: a red seven turns into a two
"""
FILES = ('start.png', 'middle.png', 'clip.mp4', 'end.png')


@pytest.fixture
def folder(tmp_path):
  for name in FILES:
    (tmp_path / name).write_bytes(b'')
  return tmp_path


def write(folder, text, name='board.yaml'):
  path = folder / name
  path.write_text(text)
  return path


def complaint(folder, text, name='board.yaml'):
  """Returns the line at fault and the sentence."""
  path = write(folder, text, name)
  with pytest.raises(UserError) as caught:
    storyboard_file.read(path)
  sentence = str(caught.value)
  assert sentence.startswith(f'{path}:'), sentence
  line, message = sentence[len(str(path)) + 1 :].split(': ', 1)
  return int(line), message


def test_a_good_one_says_what_it_says(folder):
  board = storyboard_file.read(write(folder, GOOD))
  assert (board.size, board.seed, board.loop) == ((32, 48), 7, True)
  assert (board.window, board.anchors) == (12, None)
  fall, bounce = board.scenes
  assert (fall.name, fall.prompt) == ('fall', 'a red seven falls')
  assert fall.length.written == timeline.parse('2s', 'it')
  assert [given.path.name for given in fall.conditioning] == [
    *('start.png', 'middle.png', 'clip.mp4')
  ]
  assert fall.conditioning[0].at == 'first'
  assert fall.conditioning[2].at.written == timeline.parse('1.5s', 'it')
  assert bounce.conditioning[0].at == 'last'
  there, back = board.transitions
  assert there.prompt == 'a red seven turns into a two'
  assert (back.source, back.target, back.length) == ('bounce', 'fall', None)
  assert back.prompt is None


def test_json_is_read_as_well_and_tabs_do_not_hurt(folder):
  plain = yaml.safe_load(GOOD)
  text = json.dumps(plain, indent='\t')
  board = storyboard_file.read(write(folder, text, 'board.json'))
  assert [scene.name for scene in board.scenes] == ['fall', 'bounce']
  # Its lines are its own.
  broken = text.replace('"fall"', '"bounce"', 1)
  line, message = complaint(folder, broken, 'board.json')
  assert 'taken by the scene' in message
  assert '"name": "bounce"' in broken.splitlines()[line - 1]


# (what is replaced, by what, part of the complaint, text of the line at fault)
BROKEN = [
  ('window: 12', 'windows: 12', "did you mean 'window'", 'windows: 12'),
  ('window: 12', 'window: 0', 'must lie in 1..', 'window: 0'),
  ('seed: 7', 'seed: seven', 'a whole number', 'seed: seven'),
  ('seed: 7', 'seed: -1', 'must lie in 0..', 'seed: -1'),
  ('seed: 7', 'seed: true', 'a whole number', 'seed: true'),
  ('seed: 7', 'seed: 7\nseed: 8', 'again after line 2', 'seed: 8'),
  ('loop: true', 'loop: 1', 'true or false', 'loop: 1'),
  ('loop: true', 'loop:', 'not empty', 'loop:'),
  ('size: 32x48', 'size: 32', 'height x width', 'size: 32'),
  ('size: 32x48', 'size: big', 'height x width', 'size: big'),
  ('length: 32', 'length: 0', 'must be longer', 'length: 0'),
  ('length: 32', 'length: 1.5', 'frames, such as 32', 'length: 1.5'),
  ('length: 32', 'length: -4', 'frames, such as 32', 'length: -4'),
  ('length: 32', 'length: 1:30', 'read as 90', 'length: 1:30'),
  ('length: 32', 'length: 030', 'read as 24', 'length: 030'),
  ('seed: 7', 'seed: 0x10', 'read as 16', 'seed: 0x10'),
  ('end.png', 'http://x/y.png', 'http://x/y.png: web addresses', 'http'),
  ('length: 32', 'length: [32]', 'not a list', 'length: [32]'),
  ('    length: 32\n', '', "lacks 'length'", 'name: bounce'),
  ('prompt: a red two bounces', 'prompt: ""', 'is empty', 'prompt: ""'),
  ('name: bounce', 'name: on', 'quotes', 'name: on'),
  ('name: bounce', 'name: fall', 'line 6', 'name: fall'),
  ('to: bounce', 'to: bunce', "did you mean 'bounce'", 'to: bunce'),
  ('to: bounce', 'to: fall', "'fall' leads to 'bounce'", 'from: fall'),
  ('to: bounce', 'too: bounce', "did you mean 'to'", 'too: bounce'),
  ('end.png', 'and.png', 'no file', 'and.png'),
  ('{16:', '{soon:', 'frames such as 24', '{soon:'),
  ('at: {16: middle.png, 1.5s: clip.mp4}', 'at: 16', 'a mapping', 'at: 16'),
  ('  - name: fall', '  - [', 'no valid YAML', ''),
  ('loop: true', 'loop: true: false', 'no valid YAML', 'loop: true: false'),
]


@pytest.mark.parametrize(('old', 'new', 'part', 'at'), BROKEN)
def test_what_is_wrong_is_named_with_its_line(folder, old, new, part, at):
  assert old in GOOD
  text = GOOD.replace(old, new, 1)
  line, message = complaint(folder, text)
  assert part in message
  assert at in text.splitlines()[line - 1]


def test_transitions_follow_the_order_of_play(folder):
  again = '  - {from: fall, to: bounce}\n'
  line, message = complaint(folder, GOOD + again)
  assert line == len(GOOD.splitlines()) + 1 and 'already' in message
  back = GOOD + '  - {from: bounce, to: fall, length: 24}\n'
  assert storyboard_file.read(write(folder, back)).transitions[1].length
  # Only a loop leads back.
  line, message = complaint(folder, back.replace('loop: true\n', ''))
  assert 'loop: true' in message
  board = storyboard_file.read(write(folder, GOOD.replace('loop: true\n', '')))
  assert len(board.transitions) == 1


def test_one_scene_is_a_story_only_in_a_loop(folder):
  text = 'scenes:\n  - {name: a, prompt: b, length: 8}\n'
  assert 'loop: true' in complaint(folder, text)[1]
  assert storyboard_file.read(write(folder, f'loop: true\n{text}')).loop


def test_files_that_are_no_storyboard(folder):
  assert complaint(folder, '')[1].startswith('the file is empty')
  assert 'must be a mapping' in complaint(folder, '- 1')[1]
  assert 'add one' in complaint(folder, 'scenes: []')[1]
  assert 'must be a list' in complaint(folder, 'scenes: {}')[1]
  assert 'nested' in complaint(folder, 'scenes: &a [*a]')[1]
  assert 'must be a word' in complaint(folder, '? [a]\n: 1')[1]
  with pytest.raises(UserError, match='There is no file'):
    storyboard_file.read(folder / 'none.yaml')
  (folder / 'binary.yaml').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(UserError, match='no text in UTF-8'):
    storyboard_file.read(folder / 'binary.yaml')
  with pytest.raises(UserError):
    storyboard_file.read(folder)


def test_only_whole_latents_are_a_length(folder):
  node = storyboard_file.Node(folder / 'a.yaml', 5, None)

  def frames(text, fps=16):
    time = storyboard_file.Time(timeline.parse(text, 'it'), node)
    return time.frames(fps, 'it')

  assert frames('0.5s') == 8
  assert frames('12') == 12
  for text, near in (
    ('30', r'use 28 \(1.75s\) or 32 \(2.00s\)'),
    ('3', r'use 0 .* or 4 \(0.25s\)\.'),
    ('1.9s', 'use 28 .* or 32'),
  ):
    with pytest.raises(UserError, match=rf'a.yaml:5: .*{near}'):
      frames(text)
  # 30000/1001 frames per second: 1.001 s are 30 frames, 1 s is not.
  assert frames('4.004s', 30000 / 1001) == 120


NAMES = st.text(string.ascii_letters + ' é', min_size=1, max_size=8).filter(
  lambda name: name.strip()
)
TIMES = st.one_of(
  st.integers(1, 400), st.integers(1, 90).map(lambda n: f'{n / 4:g}s')
)


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
  names=st.lists(NAMES, min_size=1, max_size=5, unique_by=str.strip),
  data=st.data(),
)
def test_any_lawful_storyboard_is_read_as_it_was_written(folder, names, data):
  loop = len(names) == 1 or data.draw(st.booleans())
  scenes = [
    {'name': name, 'prompt': f'p {name}', 'length': data.draw(TIMES)}
    for name in names
  ]
  links = list(zip(names, names[1:] + names[:1], strict=True))
  links = links if loop else links[:-1]
  listed = [link for link in links if data.draw(st.booleans())]
  board = {
    'loop': loop,
    'scenes': scenes,
    'transitions': [
      {'from': a, 'to': b, 'length': data.draw(TIMES)} for a, b in listed
    ],
  }
  write_as = data.draw(st.sampled_from([yaml.safe_dump, json.dumps]))
  path = write(folder, write_as(board), 'any.yaml')
  read = storyboard_file.read(path)
  assert [scene.name for scene in read.scenes] == [n.strip() for n in names]
  for scene, wanted in zip(read.scenes, scenes, strict=True):
    text = str(scene.length.written)
    assert text == str(wanted['length'])
  assert [(t.source, t.target) for t in read.transitions] == [
    (a.strip(), b.strip()) for a, b in links
  ]
  given_length = [t.length is not None for t in read.transitions]
  assert given_length == [link in listed for link in links]
