"""Prompt suites in every format, and what is wrong with bad ones."""

import json

import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips, manifests
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.video.write import write_video


def write(path, text):
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return path


def test_every_format_reads_the_same_prompts(tmp_path):
  want = [('a dog.', ('scene',)), ('a "cat", and more', ('scene', 'color'))]
  rows = [
    {'prompt': name, 'dimension': ';'.join(dims), 'other': 1}
    for name, dims in want
  ]
  sources = {
    'a.csv': 'prompt,dimension\r\na dog.,scene\r\n"a ""cat"", and more",'
    'scene;color\r\n',
    'a.jsonl': '\n\n'.join(json.dumps(row) for row in rows) + '\n',
    'a.json': json.dumps(
      [{'prompt_en': name, 'dimension': list(dims)} for name, dims in want]
    ),
  }
  for name, text in sources.items():
    found = manifests.read(write(tmp_path / name, text))
    assert [(p.name, p.dimensions) for p in found] == want, name
    assert all(p.text == p.name == p.id for p in found)
  text = '\ufeffa dog.\r\n\r\n  a "cat", and more \n'
  found = manifests.read(write(tmp_path / 'a.txt', text))
  assert [p.name for p in found] == [name for name, _ in want]
  # Lines end at line feeds only, as in the benchmarks' own readers.
  found = manifests.read(write(tmp_path / 'b.txt', 'a\u2028b\x0cc\nd'))
  assert len(found) == 2


def test_long_prompts_are_aligned_line_by_line(tmp_path):
  short = write(tmp_path / 'short.txt', 'a dog\na cat\n')
  long = write(tmp_path / 'long.txt', 'a big brown dog\na small grey cat\n')
  found = manifests.read(short, long)
  assert found == [
    Prompt('a dog', 'a big brown dog', 'a dog'),
    Prompt('a cat', 'a small grey cat', 'a cat'),
  ]
  for text, reason in {
    'one\n': 'has 1 lines, but .* has 2 prompts',
    'one\ntwo\nthree\n': 'has 3 lines',
    'one\n\n': 'has 1 lines',
    '\ntwo\n': 'line 1 is empty',
  }.items():
    with pytest.raises(UserError, match=reason):
      manifests.read(short, write(tmp_path / 'bad.txt', text))


def test_ids_names_and_images_can_be_given(tmp_path):
  row = {'prompt': 'long', 'name': 'short', 'id': 7, 'image': 'a.png'}
  path = write(tmp_path / 'a.jsonl', json.dumps(row))
  (found,) = manifests.read(path)
  assert (found.name, found.text, found.id) == ('short', 'long', '7')
  assert found.image.name == 'a.png'


@pytest.mark.parametrize(
  'name, text, reason',
  [
    ('a.txt', '\n \n', 'holds no prompt'),
    ('a.json', '[]', 'holds no prompt'),
    ('a.csv', 'prompt\n', 'holds no prompt'),
    ('a.csv', 'text\na dog\n', 'no column "prompt"'),
    ('a.csv', 'prompt\na dog\n"a cat\na cow\n', 'is no CSV'),
    (
      'a.json',
      '[{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}]',
      "id '1'",
    ),
    ('a.json', '[' * 20_000, 'nested too deep'),
    ('a.csv', 'prompt,name\n,\n', 'line 2 has no prompt'),
    ('a.jsonl', '{"prompt": "a"}\n{"prompt"', 'line 2 is not JSON'),
    ('a.jsonl', '3\n', 'line 1 is neither'),
    ('a.jsonl', '{"caption": "a"}\n', 'line 1 has no prompt'),
    ('a.json', '{"a": 1}', 'as a list of prompts'),
    ('a.json', '[{"prompt_en": 3}]', 'entry 1 has no prompt'),
    ('a.txt', b'\xff\xfe\x00', 'is no text in UTF-8'),
    ('a.xlsx', 'x', 'unknown kind'),
  ],
)
def test_bad_manifests_are_refused(tmp_path, name, text, reason):
  with pytest.raises(UserError, match=reason):
    manifests.read(write(tmp_path / name, text))


def test_missing_files_are_named(tmp_path):
  with pytest.raises(UserError, match=r'There is no file .*no\.txt'):
    manifests.read(tmp_path / 'no.txt')
  with pytest.raises(UserError, match=r'one \.txt file per dimension'):
    manifests.read(tmp_path)
  with pytest.raises(UserError, match='is not a folder; this suite'):
    manifests.read_clips(tmp_path / 'no')
  with pytest.raises(UserError, match='holds no video'):
    manifests.read_clips(tmp_path)


def test_real_clips_and_their_captions(tmp_path):
  frames = np.zeros((5, 32, 32, 3), 'uint8')
  for name in ('a.mp4', 'more/b.mp4'):
    write_video(tmp_path / name, frames, 8)
  write(tmp_path / 'a.txt', 'a red\n seven ')
  with pytest.raises(UserError, match=r'b\.mp4 has no caption; write b.txt'):
    manifests.read_clips(tmp_path)
  found = manifests.read_clips(tmp_path, prompt='a digit')
  assert [(p.name, p.text, p.id) for p in found] == [
    ('a', 'a red seven', 'a.mp4'),
    ('more_b', 'a digit', 'more/b.mp4'),
  ]
  table = write(tmp_path / 'c.csv', 'file,caption\nmore/b.mp4,a blue two\n')
  found = manifests.read_clips(tmp_path, table)
  assert [p.text for p in found] == ['a red seven', 'a blue two']
  bad = write(tmp_path / 'd.csv', 'name,caption\na,b\n')
  with pytest.raises(UserError, match='lacks "file"'):
    manifests.read_clips(tmp_path, bad)


def test_twins_and_missing_dimensions_are_said(tmp_path):
  path = write(tmp_path / 'a.txt', 'a dog\na cat\na dog\n')
  said = []
  found = clips.find('vbench', path, say=said.append)
  assert [prompt.name for prompt in found] == ['a dog', 'a cat']
  assert said[0].startswith('the manifest repeats 1 of its 3 entries')
  assert "'a dog' (2 times)" in said[0]
  assert '5 samples for every prompt' in said[1]
  with pytest.raises(UserError, match='has no use for --images'):
    clips.find('vbench', path, images=tmp_path)
  with pytest.raises(UserError, match='has no use for --long_prompts'):
    clips.find('inbetween', tmp_path, long_prompts=path)
