"""Seeds, names and shards of a set's clips."""

import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips
from unitemp_jax.evaluation_sets.clips import SUITES
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.parallel import processes


def make(names, suite='vbench', orders=('forward',), **more):
  prompts = [Prompt(name, name, name) for name in names]
  return clips.list_clips(SUITES[suite], prompts, orders, **more)


def test_a_seed_depends_on_four_things_only():
  alone = {c.path: c.seed for c in make(['b'], seed=3)}
  among = {c.path: c.seed for c in make(['a', 'b', 'c'], seed=3, samples=9)}
  assert alone.items() <= among.items()
  both = make(['b'], orders=['loop', 'forward'], seed=3)
  both = {clip.path: clip.seed for clip in both}
  assert alone.items() <= both.items()
  # Each of them matters.
  seeds = {
    clips.clip_seed(seed, name, sample, order)
    for seed in (0, 1)
    for name in ('a', 'b')
    for sample in (0, 1)
    for order in ('forward', 'backward')
  }
  assert len(seeds) == 16
  # And no version may change it, or old sets could not be continued.
  assert clips.clip_seed(0, 'a dog', 1, 'forward') == 4222743813


@pytest.mark.parametrize('text', ['2/2', '-1/2', '1', 'a/b', '0/0', '1/2/3'])
def test_a_bad_shard_is_refused(text):
  with pytest.raises(UserError, match='is not I/N'):
    processes.part_of(text)
  assert processes.part_of('1/2') == (1, 2)


@pytest.mark.parametrize(
  'name, reason',
  [
    ('a/b', 'must not contain'),
    ('a\nb', 'must not contain'),
    ('.hidden', 'begin with a dot'),
    ('x' * 249, '255 bytes'),
    ('東' * 83, '255 bytes'),
  ],
)
def test_names_that_cannot_be_files_are_refused(name, reason):
  with pytest.raises(UserError, match=reason):
    make(['a fine name', name])
  assert len(make(['a fine name', name], 'plain')) == 2


def test_the_longest_names_fit(tmp_path):
  for clip in make(['x' * 248, '東' * 82]):
    for ending in ('.mp4', '.json'):
      path = tmp_path / f'{clip.path}{ending}'
      path.parent.mkdir(exist_ok=True)
      path.touch()


def test_every_collision_is_counted():
  with pytest.raises(UserError, match=r"^1 file name.*'0-0.mp4'"):
    prompts = [Prompt('0', text, text) for text in ('a', 'b')]
    clips.list_clips(SUITES['vbench'], prompts, ['forward'], samples=1)


def test_content_keys_tell_everything_apart():
  assert clips.content_key('a', 'b') != clips.content_key('ab', '')
  assert clips.content_key(1) == clips.content_key(1)
