"""Clips of a model depend on their own settings, and on nothing around them."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax import orders
from unitemp_jax.cli import main as cli
from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import verify
from unitemp_jax.evaluation_sets import work as set_work
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.evaluation_sets.work import plan_work
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.sampling import model_folder
from unitemp_jax.video.read import read_video
from unitemp_jax.video.write import write_image, write_video

LOAD = Pipeline.load
PROMPTS = ('a red seven falls', 'a blue one', 'a green two bounces')


def plan(names=('forward', 'backward'), **more):
  prompts = [Prompt(text, text, text) for text in PROMPTS]
  return plan_work(random_model(), 'plain', prompts, names, **more)


@functools.cache
def pipeline(devices):
  """The model, whose programs are compiled once for all tests of clips."""
  assert len(jax.devices()) == devices
  return LOAD(random_model(), many=True)


def make(work, size, wanted, devices=1):
  """Videos by clip."""
  reader = set_work.Reader(work)
  made = set_work.Maker(
    work, Store(work.model), reader, size, pipeline(devices)
  )
  videos = {}
  for first in range(0, len(wanted), size):
    group = wanted[first : first + size]
    _, result = made.make(group)
    decoded = pipeline(devices).pixels(result)[: len(group)]
    videos |= {
      clip.path: video for clip, video in zip(group, decoded, strict=True)
    }
  return videos


def difference(one, two):
  assert one.keys() & two.keys()
  return max(
    np.abs(one[path].astype(int) - two[path]).max()
    for path in one.keys() & two.keys()
  )


@pytest.fixture(scope='module')
def batch():
  """Two clips of two prompts on one device; commands below make two as well."""
  work = plan(['forward'], samples=2)
  clips = work.clips[1:3]
  videos = make(work, 2, clips)
  # The text encoder ran once per prompt.
  assert pipeline(1).text.encoded == 2
  return work, clips, videos


def test_batch_1_equals_batch_2(batch):
  """Up to one level of 255 where rounding falls the other way."""
  work, clips, videos = batch
  alone = make(work, 1, clips)
  assert difference(alone, videos) <= 1
  # Negative control: another seed is another clip.
  swapped = dict(zip(alone, reversed(alone.values()), strict=True))
  assert difference(swapped, videos) > 20


def test_a_part_of_a_batch_is_bit_for_bit_the_same(batch):
  """A killed shard makes its last clips in smaller company."""
  work, clips, videos = batch
  rest = make(work, 2, clips[1:])
  assert difference(rest, videos) == 0


def test_embedded_prompts_are_those_of_the_pipeline(batch):
  work, clips, videos = batch
  made = pipeline(1).generate(
    [clip.prompt.text for clip in clips],
    [clip.seed for clip in clips],
    work.order_of['forward'],
  )
  whole = pipeline(1).decode(made.timeline)
  plain = {c.path: video for c, video in zip(clips, whole, strict=True)}
  assert difference(plain, videos) <= 1


def test_keys_follow_everything_that_decides_a_clip(tmp_path):
  first = plan()
  same = plan(['loop', 'backward', 'forward'])
  keys = {clip.path: clip.key for clip in first.clips}
  assert keys.items() <= {c.path: c.key for c in same.clips}.items()
  for more in ({'anchors': 1}, {'seed': 1}, {'frames': 21}):
    other = plan(['backward'], **more)
    assert not {c.key for c in other.clips} & set(keys.values()), more
  other = plan(['backward'], decode='stream')
  assert not {clip.key for clip in other.clips} & set(keys.values())


def test_orders_that_do_not_fit_are_refused():
  with pytest.raises(UserError, match="'sideways'; use some of forward"):
    plan(['sideways'])
  with pytest.raises(UserError, match='two ends that are given'):
    plan(['inbetween'])
  with pytest.raises(UserError, match='--frames=30 must be 1'):
    plan(frames=30)


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
  """Commands find the model loaded, and its programs compiled."""
  monkeypatch.setattr(set_work.Pipeline, 'load', lambda *_, **__: pipeline(1))


def call(*words):
  return cli.main(['evaluate', *map(str, words)])


@pytest.fixture(scope='module')
def real_clips(tmp_path_factory):
  """Three captioned clips of falling digits, as the user would have them."""
  folder = tmp_path_factory.mktemp('real')
  card = model_folder.read_card(random_model())
  spec = FallingDigitsSpec(
    num_frames=card.frames, size=card.height, split='test'
  )
  made = sample_clips(spec, range(3))
  for i in range(3):
    path = folder / f'clip {i}.mp4'
    write_video(path, made['video'][i], card.fps)
    path.with_suffix('.txt').write_text(made['caption'][i])
  return folder


def test_between_the_ends_of_real_clips(real_clips, tmp_path, capsys):
  out = tmp_path / 'out'
  words = [
    *('generate', '--suite=inbetween', f'--manifest={real_clips}'),
    *(f'--model={random_model()}', f'--out={out}', '--batch_size=2'),
  ]
  assert call(*words, '--order=forward', '--dry_run') == 0
  assert not out.exists()
  assert call(*words, '--order=inbetween', '--shard=0/2') == 0
  assert 'made 2, 0 were there' in capsys.readouterr().out
  assert call('status', out) == 1
  assert '2 of 3 there, 1 missing' in capsys.readouterr().out
  assert call(*words, '--order=inbetween') == 0
  assert 'made 1, 2 were there' in capsys.readouterr().out
  assert call('status', out) == 0
  capsys.readouterr()
  assert call(*words, '--order=inbetween', '--dry_run') == 0
  assert '3 of them are there' in capsys.readouterr().out
  assert call(*words, '--order=inbetween', '--seed=5', '--dry_run') == 2
  assert 'choose another folder' in capsys.readouterr().err
  assert verify.verify_set(out) == (3, [])
  path = out / 'records' / 'inbetween' / 'clip 1-0.json'
  found = json.loads(path.read_text())
  assert found['given_frames'] == [1, 1]
  assert found['real'] == 'real/clip 1.mp4'
  truth, _ = read_video(out / found['real'])
  video, fps = read_video(out / 'videos/inbetween/clip 1-0.mp4')
  assert video.shape == truth.shape and fps == found['fps']
  # The ends are the clip's but for the coding, and the middle is not.
  gaps = np.abs(video.astype(int) - truth).mean((1, 2, 3))
  assert gaps[0] < 3 and gaps[-1] < 3 and gaps[16] > 6


def test_clips_that_cannot_be_given_are_refused(real_clips, tmp_path, capsys):
  """Before anything is made: a set that has begun cannot shrink."""
  folder, out = tmp_path / 'real', tmp_path / 'out'
  shutil.copytree(real_clips, folder)
  video, fps = read_video(folder / 'clip 0.mp4')
  write_video(folder / 'short.mp4', video[:9], fps)
  (folder / 'torn.mp4').write_bytes(b'no video')
  words = ['generate', '--suite=inbetween', f'--manifest={folder}']
  words += [f'--model={random_model()}', f'--out={out}', '--prompt=a digit']
  assert call(*words, '--order=inbetween') == 2
  error = capsys.readouterr().err
  assert '2 given file(s) cannot be used' in error
  assert 'short.mp4 has 9 frames at 12 per second and 33 are needed' in error
  assert not out.exists()


def test_starting_from_an_image(tmp_path, capsys):
  card = model_folder.read_card(random_model())
  picture = np.full((2 * card.height, 2 * card.width, 3), (200, 30, 90), 'u1')
  write_image(tmp_path / 'a red one.png', picture)
  manifest = tmp_path / 'info.json'
  manifest.write_text(json.dumps([{'prompt_en': 'a red one'}]))
  out = tmp_path / 'out'
  words = ['generate', '--suite=i2v', f'--model={random_model()}']
  words += [f'--manifest={manifest}', '--samples=2', f'--out={out}']
  assert call(*words, '--order=inbetween') == 2
  assert '--suite=inbetween' in capsys.readouterr().err
  assert call(*words, '--order=backward', '--batch_size=2') == 0
  video, _ = read_video(out / 'videos' / 'backward' / 'a red one-1.mp4')
  assert np.abs(video[0].astype(int) - (200, 30, 90)).max() < 12
  assert np.abs(video[5].astype(int) - (200, 30, 90)).max() > 12


@pytest.mark.parametrize(
  'words, reason',
  [
    (['--suite=vbench', '--manifest=no.txt'], 'There is no file no.txt'),
    (['--suite=vbench', '--manifest=a.txt', '--shard=3/2'], 'is not I/N'),
    (['--suite=vbench', '--manifest=a.txt', '--samples=0'], 'use 1 or more'),
    (['--suite=vbench', '--manifest=a.txt', '--order=up'], "names 'up'"),
    (['--suite=vbench', '--manifest=a.txt', '--model=no'], 'no is not a model'),
    (
      ['--suite=vbench', '--manifest=bad.txt'],
      'has "/" in it, which a file name must not',
    ),
    (['--suite=vbench2', '--manifest=a.txt'], 'has no dimension'),
    (['--suite=i2v', '--manifest=a.txt'], 'there is no image'),
    (['--suite=inbetween', '--manifest=a.txt'], 'is not a folder'),
    (['--suite=plain', '--manifest=a.txt', '--out=a.txt'], 'a.txt'),
  ],
)
def test_bad_input_writes_nothing(tmp_path, monkeypatch, capsys, words, reason):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'a.txt').write_text('a red one\n')
  (tmp_path / 'bad.txt').write_text('either/or\n')
  words = [f'--model={random_model()}', '--out=out', *words]
  assert call('generate', *words) == 2
  assert reason in capsys.readouterr().err
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.txt', 'bad.txt']


def test_all_orders_means_those_that_have_what_they_want():
  card = model_folder.read_card(random_model())
  assert set_work.order_names('all', 'clip') == list(orders.ORDERS)
  assert set_work.order_names('all', '') == ['forward', 'backward', 'loop']
  for given in ('clip', 'image', ''):
    names = set_work.order_names('all', given)
    made = set_work.order_plans(card, names, 33, given)
    for name, plan in made.items():
      wanted = set_work.given_counts(name, given)
      own = plan.preloaded()[0].tolist()
      # What a loop closes with is made, not given.
      assert own == [0][: wanted[0]] + [8][: wanted[1]], (given, name)


@pytest.mark.slow
@pytest.mark.devices(4)
def test_1_device_equals_4(batch):
  """Up to one level of 255; last, as it takes other devices."""
  work, _, videos = batch
  spread = make(work, 4, work.clips[:4], devices=4)
  assert pipeline(4).mesh.size == 4
  assert difference(spread, videos) <= 1
