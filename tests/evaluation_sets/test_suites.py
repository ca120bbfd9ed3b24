"""Every suite's folder is read by the rules of its benchmark."""

import pytest
import readers
from prompt_lists import (
  FLICKER,
  touch,
  vbench2_records,
  vbench_records,
  write_json,
)

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import clips, manifests
from unitemp_jax.evaluation_sets.clips import SUITES


def listed(name, prompts, orders=('forward',), **more):
  found, _ = clips.arrange(SUITES[name], prompts)
  return clips.list_clips(SUITES[name], found, orders, **more)


def test_the_whole_vbench_set_resolves(tmp_path):
  records = vbench_records()
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  assert len(prompts) == 946
  found, joined = clips.arrange(SUITES['vbench'], prompts)
  assert (len(found), joined) == (944, 2)
  wanted = clips.list_clips(SUITES['vbench'], found, ['forward', 'backward'])
  assert len(wanted) == 2 * (5 * 944 + 20 * FLICKER)
  touch(tmp_path / 'videos', wanted)
  for order in ('forward', 'backward'):
    folder = tmp_path / 'videos' / order
    resolved, missing = readers.read_vbench(folder, records)
    assert not missing
    assert sum(map(len, resolved.values())) == 5 * 946  # two are read twice
    static = readers.filter_static(folder, records)
    assert len(static) == FLICKER
    assert {len(paths) for paths in static.values()} == {25}


def test_names_cut_at_100_characters_lose_clips(tmp_path):
  """Negative control: the reader misses what other tools write."""
  records = vbench_records()
  prompts = [record['prompt_en'] for record in records]
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name in readers.read_self_forcing(folder, prompts, 5):
    (folder / name).touch()
  _, missing = readers.read_vbench(folder, records)
  long = [prompt for prompt in prompts if len(prompt) > 100]
  assert len(long) == 72
  assert len(missing) == 5 * 72


def test_a_record_beside_the_clips_would_break_the_benchmark(tmp_path):
  """Negative control: why `videos/` holds nothing but clips."""
  (tmp_path / 'a-0.mp4').touch()
  assert readers.ending(tmp_path) == '.mp4'
  (tmp_path / 'a-0.json').touch()
  with pytest.raises(AssertionError, match='any may come first'):
    readers.ending(tmp_path)


def test_vbench2_resolves_in_folders_per_dimension(tmp_path):
  records = vbench2_records()
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  wanted = listed('vbench2', prompts)
  touch(tmp_path, wanted)
  found = readers.read_vbench2(tmp_path / 'forward', records)
  assert sum(map(len, found.values())) == len(wanted) == 4 * (20 + 3 + 3)
  # The same words in two dimensions are two clips, with seeds of their own.
  twins = [c for c in wanted if c.prompt.name.startswith('A man plays')]
  assert len({clip.seed for clip in twins}) == len(twins) == 26
  next(iter((tmp_path / 'forward' / 'Diversity').iterdir())).unlink()
  with pytest.raises(AssertionError, match='required video'):
    readers.read_vbench2(tmp_path / 'forward', records)


def test_vbench2_needs_dimensions(tmp_path):
  (tmp_path / 'a.txt').write_text('one\ntwo\n')
  with pytest.raises(UserError, match="'one' has no dimension"):
    listed('vbench2', manifests.read(tmp_path / 'a.txt'))
  folder = tmp_path / 'prompt'
  folder.mkdir()
  (folder / 'Diversity.txt').write_text('one\ntwo\n')
  (folder / 'Material.txt').write_text('one\n')
  wanted = listed('vbench2', manifests.read(folder))
  assert [clip.path for clip in wanted[:2]] == [
    'forward/Diversity/one-0',
    'forward/Diversity/one-1',
  ]
  assert len(wanted) == 43


def test_vbench2_names_that_share_180_characters_are_refused(tmp_path):
  start = 'x' * 180
  records = [
    {'prompt_en': start + end, 'dimension': ['Material']} for end in 'ab'
  ]
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  with pytest.raises(UserError, match='more than one prompt'):
    listed('vbench2', prompts)
  records[1]['dimension'] = ['Diversity']
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  assert len(listed('vbench2', prompts)) == 23


def test_vbench_long_finds_the_pieces(tmp_path):
  records = vbench_records(120)
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  touch(tmp_path, listed('vbench_long', prompts))
  _, missing = readers.read_vbench_long(tmp_path / 'forward', records)
  assert not missing


def test_vbench_long_refuses_what_it_would_not_find(tmp_path):
  records = [{'prompt_en': 'a snake_case word', 'dimension': ['scene']}]
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  with pytest.raises(UserError, match="contains '_', and VBench-Long"):
    listed('vbench_long', prompts)
  # It is right to: the reader loses the clip.
  touch(tmp_path, listed('vbench', prompts))
  _, missing = readers.read_vbench_long(tmp_path / 'forward', records)
  assert len(missing) == 5


def test_moviegen_numbers_every_line(tmp_path):
  lines = ['a dog', 'a cat / a mouse', 'a dog', 'x' * 1085]
  (tmp_path / 'prompts.txt').write_text('\n'.join(lines) + '\n')
  wanted = listed('moviegen', manifests.read(tmp_path / 'prompts.txt'))
  touch(tmp_path, wanted)
  found = readers.read_numbers(tmp_path / 'forward', lines)
  assert all(found.values()) and len(found) == 4
  # The same words again are another clip.
  assert wanted[0].seed != wanted[2].seed
  assert wanted[2].prompt.id == 'a dog#2'


def test_images_are_found_and_must_be_there(tmp_path):
  records = [
    {'prompt_en': 'a dog, zoom in', 'dimension': [], 'image_name': 'a dog.jpg'},
    {'prompt_en': 'a cat.', 'dimension': []},
  ]
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  (tmp_path / 'a dog.jpg').touch()
  with pytest.raises(UserError, match=r'no image .*a cat\..png'):
    manifests.with_images(prompts, tmp_path)
  (tmp_path / 'a cat..webp').touch()
  prompts = manifests.with_images(prompts, tmp_path)
  assert [prompt.image.name for prompt in prompts] == [
    'a dog.jpg',
    'a cat..webp',
  ]
  wanted = listed('i2v', prompts)
  assert [clip.path for clip in wanted[4:6]] == [
    'forward/a dog, zoom in-4',
    'forward/a cat.-0',
  ]


def test_two_images_under_one_name_are_refused(tmp_path):
  records = [{'prompt_en': 'a dog', 'image_name': f'{i}.jpg'} for i in range(2)]
  prompts = manifests.read(write_json(tmp_path / 'info.json', records))
  for i in range(2):
    (tmp_path / f'{i}.jpg').touch()
  with pytest.raises(UserError, match='more than one prompt'):
    listed('i2v', manifests.with_images(prompts, tmp_path))
