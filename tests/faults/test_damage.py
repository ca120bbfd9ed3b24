"""Every file that is read, of random damage: read, or refused in a sentence.

So is one that stands in the place of another kind.

Checkpoints are in `tests/convert/test_mutated_files.py`.
"""

import csv
import dataclasses
import io
import json
import shutil
import warnings

import ended
import mutations
import numpy as np
import pytest
import user_files

from unitemp_jax import TINY, files, orders
from unitemp_jax.cli import main as cli
from unitemp_jax.compare import blind
from unitemp_jax.data import latents, video_folder
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.evaluation import ablation
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation.clips import measure
from unitemp_jax.evaluation.metrics import frechet
from unitemp_jax.evaluation.metrics.bootstrap import Interval
from unitemp_jax.evaluation.metrics.results import ResultTable, result
from unitemp_jax.evaluation_sets import manifests, store, verify
from unitemp_jax.generate import clips, storyboard
from unitemp_jax.generate.request import Model
from unitemp_jax.plans import text as plan_text
from unitemp_jax.report import read as report
from unitemp_jax.report import report as page
from unitemp_jax.sampling import model_folder
from unitemp_jax.studio.project import Project
from unitemp_jax.studio.timeline import Timeline
from unitemp_jax.studio.worker import Worker
from unitemp_jax.training import workdir
from unitemp_jax.video import read as video
from unitemp_jax.video.write import write_video

STORY = """size: 32x32
seed: 1
anchors: 3
scenes:
- name: one
  prompt: a red three falls
  length: 24
  first: a.png
- name: two
  prompt: a blue two falls
  length: 2s
transitions:
- from: one
  to: two
  length: 12
loop: true
"""
VALUES = {'sharpness': [1.0, 2.0], 'motion of the last third': [1.0, 2.0]}
SIZE = {'frames': 2, 'fps': 12.0, 'height': 16, 'width': 16}
ROWS = [
  {'id': 1, 'prompt': 'a red one', 'dimension': ['x', 'y']},
  {'prompt_en': 'a blue two', 'dimension': 'x;y', 'image': 'a.png'},
]


def sidecar(folder):
  """What generate writes beside `folder/forward/0000-x.mp4`."""
  plan = orders.forward(9, anchors=3)
  return {
    **{'prompt': 'x', 'seed': 0, 'order': 'forward', 'frames': 33, 'fps': 12.0},
    'generation_order': [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
    **{'boundary_frames': [8, 20], 'given_frames': [0, 1], 'decode': 'joint'},
    **{'checkpoint': 'abc', 'version': '1', 'key': 'k', 'scale': 1},
    'plan': json.loads(plan_text.to_json(plan)),
    'given': [{'frame': 0, 'frames': 1, 'psnr': 30.0}],
    'frame_difference': [0.1] * 32,
    **{'brightness': 9.0, 'contrast': 3.0, 'plan_svg': '<svg></svg>'},
    'timings': {'generation': 3.0},
  }


def text_of(rows):
  out = io.StringIO()
  writer = csv.writer(out)
  writer.writerow(['id', 'prompt', 'dimension'])
  writer.writerows([[1, 'a "red", one', 'x;y'], [2, 'a blue\ntwo', '']])
  return {
    'csv': out.getvalue(),
    'json': json.dumps(rows),
    'jsonl': '\n'.join(map(json.dumps, rows)),
    'txt': '\n'.join(row.get('prompt', 'b') for row in rows),
  }


def evaluation_set(folder):
  """A set of one clip, as `evaluate generate` leaves it."""
  path = folder / 'videos/x-0.mp4'
  write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 12, scale=1)
  line = {'video': 'videos/x-0.mp4', 'record': 'records/x-0.json', 'key': 'k'}
  record = {'name': 'x', 'key': 'k', 'sha256': files.file_sha256(path), **SIZE}
  record |= {'brightness': 9.0, 'contrast': 3.0, 'frame_difference': [0.1]}
  files.write_json(folder / 'set.json', {'suite': 'plain', **SIZE})
  line['order'] = 'forward'
  files.write(folder / 'clips.jsonl', json.dumps(line) + '\n')
  files.write_json(folder / 'records/x-0.json', record)
  log = store.Journal(folder, (0, 1))
  log.log('start', clips=1)
  log.log('batch', clips=1, seconds=2.0)
  log.log('end')
  return folder


def both(*reads):
  def read(path):
    for one in reads:
      one(path)

  return read


def readers(folder):
  """Name -> (path, whole file, what reads it, whether it is JSON)."""
  model = Model(model_folder.read_card(TINY))
  card = folder / 'card'
  shutil.copytree(TINY, card)
  key = blind.read_key(folder / 'K.json')
  clips = folder / 'clips/forward'
  clips.mkdir(parents=True)
  shutil.copy(folder / 'clip.mp4', clips / '0000-x.mp4')
  made = evaluation_set(folder / 'set')
  rows = text_of(ROWS)
  measured = result('m', 'g', Interval(1.0, 0.5, 1.5, 9), unit='%', how='how')
  ResultTable((measured,)).to_json(folder / 'metrics.json')
  (folder / 'run').mkdir()
  config = {'objective': 'vae', 'num_steps': 3, 'model': {'vae': {'dim': 4}}}
  index = {'shards': 1, 'latent_mean': [0.0] * 16, 'latent_std': [1.0] * 16}

  def votes(path):
    blind.score(blind.read_votes([path], key)[0], 'how')

  def keys(path):
    blind.read_votes([folder / 'v.json'], blind.read_key(path))

  def board(path):
    read = storyboard.read(path)
    storyboard.describe(read, model.card)
    storyboard.to_request(read, model)

  def pages(path):
    contents = report.read_folder(folder / 'clips')
    page.orders(contents)
    page.write_page(contents)

  def listed(path):
    clip_folder.list_clips(folder / 'clips')

  def status(path):
    store.to_text(store.read_status(made))
    verify.verify_set(made)

  studio = Project(folder / 'studio', TINY, model)
  line = Timeline(33).record()
  piece = {'file': 'a.png', 'name': 'a.png', 'frames': 1}
  piece |= {'width': 8, 'height': 8}
  version = {'clip': 'long/a.mp4', 'state': 'queued', 'since': 1.0}
  version |= {'timeline': line, 'words': ['--seed=1'], 'starts': 1}
  for name in ('0001', '0002'):
    files.write_json(studio.folder / name / 'studio.json', version)

  def projects(path):
    worker = Worker(TINY, lambda: [studio], lambda: None)
    assert worker._next()  # The other waits at least.
    list(map(studio.about, studio.versions().values()))
    studio.note('0001', state='queued')
    studio.undo()
    assert all(map(studio.strip, studio.given))
    return studio.steps(), studio.timeline

  files.write_json(
    folder / 'one-0.json', {'key': {}, 'values': {'a': VALUES, 'b': VALUES}}
  )

  def ablated(path):
    numbers = ablation.read(folder, ['one'], [0, 1])
    claims = {'c': ('one', 'a', 'one', 'b')}
    ablation.report(claims, {'one': ('arm',)}, numbers)

  def text(name, content, read, tree=False):
    if not isinstance(content, bytes | str):
      content, tree = json.dumps(content), True
    whole = content.encode() if isinstance(content, str) else content
    return folder / name, whole, read, tree

  def shard(path):
    source = latents.LatentSource(path.parent)
    list(map(source.__getitem__, range(len(source))))

  ended.write_latents(folder / 'latents', (4, 2, 2), 3)
  there = lambda name: (folder / name).read_bytes()  # noqa: E731
  plan = plan_text.to_json(orders.long(9, sinks='both', span=21))
  return {
    'card': text(
      'card/model.json',
      json.loads((TINY / 'model.json').read_text()),
      lambda _: model_folder.read_card(card),
    ),
    'tokenizer': text(
      'card/tokenizer.json',
      (TINY / 'tokenizer.json').read_text(),
      lambda path: Tokenizer.from_file(path).encode(['a red one'], 32),
      True,
    ),
    'storyboard': text('story.yaml', STORY, board),
    'plan': text('plan.json', plan, plan_text.load, True),
    **{
      f'manifest {kind}': text(f'm.{kind}', content, manifests.read)
      for kind, content in rows.items()
    },
    'manifest': text('m.json', ROWS, manifests.read),
    'votes': text('votes.json', user_files.VOTES, votes),
    'key': text('key.json', user_files.KEY, keys),
    'sidecar': text(
      'clips/forward/0000-x.json', sidecar(folder), both(pages, listed)
    ),
    'set': text('set/set.json', {'suite': 'plain', **SIZE}, status),
    'list of a set': text('set/clips.jsonl', there('set/clips.jsonl'), status),
    'record': text(
      'set/records/x-0.json', json.loads(there('set/records/x-0.json')), status
    ),
    'journal': text(
      next((folder / 'set').rglob('*0*1*.jsonl')).relative_to(folder),
      next((folder / 'set').rglob('*0*1*.jsonl')).read_bytes(),
      status,
    ),
    'results': text(
      'metrics.json',
      json.loads(there('metrics.json')),
      lambda path: ResultTable.from_json(path).to_markdown(),
    ),
    'config of a run': text(
      'run/config.json',
      config,
      lambda path: workdir.check_config(path.parent, config),
    ),
    'latents': text(
      'latents.json', index, lambda path: latents.read_index(path.parent)
    ),
    'shard': text(
      'latents/latents-00000.array_record',
      there('latents/latents-00000.array_record'),
      shard,
    ),
    'version': text('studio/0001/studio.json', version, projects),
    'project': text(
      'studio/studio.json',
      {'timeline': line, 'past': [line], 'future': [], 'given': {'x': piece}},
      projects,
    ),
    'ablation': text(
      'one-1.json',
      {'key': {'m': 1}, 'values': {'a': VALUES, 'b': VALUES}},
      ablated,
    ),
    'hashes': text(
      'written.json',
      {'clip.mp4': [files.file_sha256(folder / 'clip.mp4')]},
      files.check_unchanged,
    ),
    'features': text('four.npy', there('four.npy'), frechet.read_features),
    'picture': text('a.png', there('a.png'), video.read_image),
    'video': text('clip.mp4', there('clip.mp4'), video.read_video),
  }


NAMES = (
  *('card', 'tokenizer', 'storyboard', 'plan', 'manifest csv', 'manifest json'),
  *('manifest jsonl', 'manifest txt', 'manifest', 'votes', 'key', 'sidecar'),
  *('set', 'list of a set', 'record', 'journal', 'results', 'config of a run'),
  *('latents', 'shard', 'version', 'project', 'hashes', 'features'),
  'ablation',
  *('picture', 'video'),
)


@pytest.fixture(scope='module')
def table_of_readers(tmp_path_factory):
  return readers(user_files.write(tmp_path_factory.mktemp('damage')))


def test_the_table_is_whole(table_of_readers):
  assert set(table_of_readers) == set(NAMES)


@pytest.mark.parametrize(
  'rounds', [40, pytest.param(10_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('name', NAMES)
def test_damage(table_of_readers, monkeypatch, name, rounds):
  path, whole, read, tree = table_of_readers[name]
  monkeypatch.chdir(path.parent)
  before = path.read_bytes() if path.exists() else None
  rng = np.random.default_rng(NAMES.index(name))
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    others = [other[1] for other in table_of_readers.values()]
    refused = mutations.survive(
      rng, rounds, path, whole, read, tree=tree, others=others
    )
  path.unlink() if before is None else path.write_bytes(before)
  assert refused or name in ('manifest txt', 'video', 'record', 'journal')


def test_a_list_of_clips_names_nothing_beside_its_set(tmp_path, capsys):
  """What --repair deletes, so that it is made again, lies in the set."""
  (tmp_path / 'victim').write_text('mine')
  made = tmp_path / 'set'
  for name in ('../victim', 'records/../../victim', str(tmp_path / 'victim')):
    line = {'video': 'videos/x.mp4', 'record': name, 'order': 'f', 'key': 'k'}
    files.write_json(made / 'set.json', SIZE)
    files.write(made / 'clips.jsonl', json.dumps(line) + '\n')
    assert cli.main(['evaluate', 'verify', str(made), '--repair']) == 2
    assert 'is no record' in capsys.readouterr().err
    assert (tmp_path / 'victim').read_text() == 'mine'


def scans(folder):
  found = video_folder.Scan(
    np.arange(9) / 12, 12.0, np.array([3]), (8, 8), 'abc'
  )
  path = folder / 'scan.npz'
  np.savez(path, **dataclasses.asdict(found))

  def read():
    kept = video_folder._read_scan(path)
    return None if kept is None else kept.shown(12.0)

  return path, ('times', 'rate', 'cuts', 'size'), read


def measured(folder):
  rng = np.random.default_rng(0)
  video = folder / 'a.mp4'
  write_video(video, rng.integers(0, 255, (9, 16, 16, 3), np.uint8), 12)
  measurer, job = measure.Measurer(folder / 'kept'), measure.Job(video)
  measurer.one(job)

  def read():
    [one] = measurer.one(job).curves
    return one.course

  names = ('count', *(f'0 {name}' for name in ('steps', 'looks', 'thumbs')))
  return next((folder / 'kept').glob('*.npz')), names, read


def blocks(folder):
  path = folder / 'rows/row000000.npz'
  path.parent.mkdir()
  files.write_json(path.with_name('key.json'), 'k')
  shape = (1, 3, 2, 2, 16)
  np.savez(path, latents=np.ones(shape), anchors=np.ones(shape))

  def read():
    rows = clips.RowFolder(path.parent, 'k').load({0: shape}, lambda _: None)
    return rows[0].anchors + rows[0].latents if rows else None

  return path, ('latents', 'anchors'), read


@pytest.mark.parametrize('make', [scans, measured, blocks])
def test_kept_arrays_of_another_kind_are_made_again(tmp_path, make):
  path, names, read = make(tmp_path)
  whole, right = dict(np.load(path)), read()
  assert right is not None
  odd = ('x', ['a', 'b'], [], np.ones((2, 2, 1)), np.nan, None)
  for name in names:
    for value in odd:
      held = {k: v for k, v in whole.items() if k != name}
      with path.open('wb') as file:
        np.savez(file, **held, **({} if value is None else {name: value}))
      found = read()
      assert found is None or np.array_equal(found, right)
