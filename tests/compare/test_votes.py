"""The blind page hides what it must, and votes come back as they were given."""

import dataclasses
import json
import re

import numpy as np
import pytest
from conftest import PROMPTS

from unitemp_jax import files as whole_files
from unitemp_jax.compare import blind, pairing
from unitemp_jax.compare.pairing import System
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.clips import folder
from unitemp_jax.video.read import read_metadata, read_video


def write_blind(out, *args, **options):
  texts = blind.make(out, *args, **options)
  whole_files.write_all(texts)
  return out / blind.PAGE


@pytest.fixture(scope='module')
def study(folders, tmp_path_factory):
  out = tmp_path_factory.mktemp('study')
  systems = [
    System(name, folder.list_clips(folders / name).clips)
    for name in ('ours', 'still')
  ]
  pairs = pairing.pair(systems).pairs
  names = ('ours', 'still')
  page = write_blind(out, names, pairs, count=4, question='Which is better?')
  return out, page, names, pairs


def data_of(page):
  text = page.read_text()
  return json.loads(re.search(r'id="data">(.*?)</script>', text)[1]), text


def test_the_page_does_not_tell_whose_a_clip_is(study):
  out, page, _, _ = study
  data, text = data_of(page)
  key = json.loads((out / blind.KEY).read_text())
  assert len(data['trials']) == len(key['trials']) == 4
  assert not (page.parent / blind.KEY).exists()
  for word in ('ours', 'still', '0000-x', 'backward', 'seed', 'folder'):
    assert word not in text
  for trial in data['trials']:
    for side in ('left', 'right'):
      path = page.parent / trial[side]
      tags = read_metadata(path)
      assert not {'prompt', 'seed', 'order', 'name'} & set(tags)
      assert b'generation_order' not in path.read_bytes()
  # Negative control: the clip itself does tell.
  source = key['trials'][data['trials'][0]['id']]
  side = 'left' if source['left'] == 'ours' else 'right'
  assert source[f'{side}_clip'].endswith('x.mp4')


def test_copies_show_what_the_clips_show(study, folders):
  out, page, _, _ = study
  data, _ = data_of(page)
  key = json.loads((out / blind.KEY).read_text())['trials']
  for trial in data['trials']:
    source = key[trial['id']]
    copied, _ = read_video(page.parent / trial['left'])
    path = folders / source['left'] / source['left_clip']
    np.testing.assert_array_equal(copied, read_video(path)[0])


def test_sides_are_even_and_the_same_each_time(study, tmp_path):
  out, page, names, pairs = study
  key = json.loads((out / blind.KEY).read_text())
  lefts = [trial['left'] for trial in key['trials'].values()]
  assert lefts.count('ours') == lefts.count('still') == 2
  again = write_blind(
    tmp_path, names, pairs, count=4, question='Which is better?'
  )
  assert again.read_bytes() == page.read_bytes()
  assert json.loads((tmp_path / blind.KEY).read_text()) == key
  other = write_blind(
    tmp_path, names, pairs, count=4, question='Which is better?', seed=1
  )
  assert other.read_bytes() != page.read_bytes()


def write_votes(path, key, rater, choose):
  """Votes for the system that `choose` names for each trial."""
  given = []
  for trial, about in key['trials'].items():
    system = choose(about)
    side = (
      'tie' if not system else ('left' if about['left'] == system else 'right')
    )
    given.append({'trial': trial, 'choice': side, 'seconds': 1})
  text = {
    'format': blind.VOTES_FORMAT,
    'study': key['study'],
    'rater': rater,
    'votes': given,
  }
  path.write_text(json.dumps(text))
  return path


def rows_of(paths, key):
  cast, problems = blind.read_votes(paths, key)
  rows = blind.score(cast, 'how')
  return {(r.metric, r.group): r for r in rows}, problems


def test_votes_make_a_round_trip(study, tmp_path):
  key = json.loads((study[0] / blind.KEY).read_text())
  ada = write_votes(tmp_path / 'a.json', key, 'Ada', lambda t: 'ours')
  bo = write_votes(
    tmp_path / 'b.json', key, 'Bo', lambda t: '' if t['number'] else 'still'
  )
  rows, problems = rows_of([ada, bo], key)
  assert not problems
  every = rows['preferred', 'ours over still, all raters']
  assert every.value == pytest.approx(80) and every.n == 5
  # Wilson's interval of 4 of 5.
  assert every.low == pytest.approx(37.55, abs=0.1)
  assert every.high == pytest.approx(96.38, abs=0.1)
  p = rows['p-value', 'ours over still, all raters'].value
  assert p == pytest.approx(0.375)
  assert rows['preferred', 'ours over still, Ada'].value == 100
  assert rows['preferred', 'ours over still, Bo'].value == 0
  assert rows['no difference', 'ours over still, Bo'].value == 75
  assert rows['raters agree', 'all raters'].value == 0
  assert rows['preferred', 'ours over still, pairs of videos'].value == 100


def test_one_side_always_is_seen(study, tmp_path):
  key = json.loads((study[0] / blind.KEY).read_text())
  path = write_votes(tmp_path / 'c.json', key, 'C', lambda t: t['left'])
  rows, _ = rows_of([path], key)
  assert rows['left side chosen', 'all raters'].value == 100
  assert rows['preferred', 'ours over still, all raters'].value == 50


def test_what_is_no_vote_is_named(study, tmp_path):
  key = json.loads((study[0] / blind.KEY).read_text())
  good = write_votes(tmp_path / 'a.json', key, 'Ada', lambda t: 'ours')
  again = write_votes(tmp_path / 'b.json', key, 'Ada', lambda t: 'still')
  foreign = tmp_path / 'c.json'
  foreign.write_text(good.read_text().replace(key['study'], 'another'))
  broken = tmp_path / 'd.json'
  broken.write_text('{')
  odd = tmp_path / 'e.json'
  text = json.loads(good.read_text())
  text['votes'] = [{'trial': 'nothing', 'choice': 'left'}, 3]
  odd.write_text(json.dumps(text))
  cast, problems = blind.read_votes([good, again, foreign, broken, odd], key)
  assert {vote.choice for vote in cast} == {'still'}  # The last ones count.
  said = ' '.join(problems)
  for word in ('before', 'another comparison', 'd.json', 'nothing', '3 is no'):
    assert word in said
  with pytest.raises(UserError, match='no vote'):
    blind.read_votes([broken], key)
  with pytest.raises(UserError, match='as a key'):
    blind.read_key(good)
  with pytest.raises(UserError, match=r'--key'):
    blind.find_key([good])


def test_prompts_cannot_break_the_page(study, folders, tmp_path):
  _, _, names, pairs = study
  nasty = '</script><script>alert(1)</script>'
  bad = [dataclasses.replace(pair, prompt=nasty) for pair in pairs[:1]]
  page = write_blind(tmp_path, names, bad, count=1, question=nasty)
  data, text = data_of(page)
  assert nasty not in text
  assert data['trials'][0]['prompt'] == nasty
  assert len(PROMPTS) == len(pairs)
