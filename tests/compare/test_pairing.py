"""Clips are paired by prompt and sample, however their names were cut."""

import dataclasses
import json

from conftest import PROMPTS

from unitemp_jax.compare import pairing
from unitemp_jax.compare.pairing import System
from unitemp_jax.evaluation.clips import folder
from unitemp_jax.evaluation_sets import manifests


def systems(folders, *named):
  return [
    System(name, folder.list_clips(folders / name, kind).clips)
    for name, kind in named
  ]


def pairs_of(paired, name):
  return {p.prompt: p.clips[name].name for p in paired.pairs}


def test_names_cut_at_100_characters_find_their_prompt(folders):
  paired = pairing.pair(
    systems(folders, ('ours', 'folder'), ('sf', 'self_forcing'))
  )
  found = pairs_of(paired, 'sf')
  # Both of the snowy prompts begin alike, and Self-Forcing wrote one file.
  assert set(found) == {PROMPTS[0], *PROMPTS[3:]}
  (reason,) = {u.reason for u in paired.unpaired if u.system == 'sf'}
  assert reason.startswith('2 prompts begin with the 100 characters of its nam')
  assert [u.system for u in paired.unpaired].count('ours') == 2


def test_a_cut_name_that_is_unique_is_paired(folders):
  ours, sf = systems(folders, ('ours', 'folder'), ('sf', 'self_forcing'))
  one = System('ours', tuple(c for c in ours.clips if 'autumn' not in c.prompt))
  assert PROMPTS[1] in pairs_of(pairing.pair([one, sf]), 'sf')


def test_numbers_need_a_list_of_prompts_or_are_learned(folders):
  named = systems(folders, ('still', 'folder'), ('causvid', 'causvid'))
  prompts = manifests.read(folders / 'prompts.txt')
  paired = pairing.pair(named, prompts)
  assert pairs_of(paired, 'causvid')[PROMPTS[2]] == 'output_002.mp4'
  assert not paired.notes
  # Negative control: without the list nothing tells what number 2 is.
  assert not pairing.pair(named).pairs
  ours = systems(folders, ('ours', 'folder'), ('causvid', 'causvid'))
  learned = pairing.pair(ours)
  assert pairs_of(learned, 'causvid')[PROMPTS[2]] == 'output_002.mp4'
  assert 'place in the list' in learned.notes[0]


def test_longlive_names_with_ranks_and_models(folders):
  paired = pairing.pair(
    systems(folders, ('ours', 'folder'), ('longlive', 'longlive'))
  )
  assert PROMPTS[0] in pairs_of(paired, 'longlive')
  assert PROMPTS[3] in pairs_of(paired, 'longlive')


def test_long_prompts_belong_to_their_short_ones(folders, tmp_path):
  long = tmp_path / 'long.txt'
  long.write_text('\n'.join(f'{p} In great detail.' for p in PROMPTS))
  prompts = manifests.read(folders / 'prompts.txt', long)
  ours, still = systems(folders, ('ours', 'folder'), ('still', 'folder'))
  renamed = tuple(
    dataclasses.replace(c, prompt=f'{p} In great detail.')
    for c, p in zip(ours.clips, PROMPTS, strict=True)
  )
  paired = pairing.pair([System('ours', renamed), still], prompts)
  assert len(paired.pairs) == len(PROMPTS)
  assert len(pairing.pair([System('ours', renamed), still]).pairs) == 0


def test_samples_and_duplicates_are_told_apart(folders):
  ours, still = systems(folders, ('ours', 'folder'), ('still', 'folder'))
  first = ours.clips[0]
  more = (
    dataclasses.replace(first, name='twice.mp4'),
    dataclasses.replace(first, name='other.mp4', sample=1),
  )
  paired = pairing.pair([System('ours', ours.clips + more), still])
  reasons = {u.clip.name: u.reason for u in paired.unpaired}
  assert reasons['twice.mp4'] == 'it has the prompt and sample of 0000-x.mp4'
  assert reasons['other.mp4'] == 'no other system has its sample'


def test_records_of_longlive_beside_the_clip_are_read(folders, tmp_path):
  source = folders / 'still' / f'{PROMPTS[4]}-0.mp4'
  copy = tmp_path / 'rank0-0-0_lora_dp0_sp2.mp4'
  copy.write_bytes(source.read_bytes())
  copy.with_suffix('.txt').write_text(f'[0,1] {PROMPTS[2]}\n[2] then\n')
  (clip,) = folder.list_clips(tmp_path, 'longlive').clips
  assert clip.prompt == PROMPTS[2] and not clip.cut and clip.sample == 0


def test_other_and_broken_files_are_named(folders, tmp_path):
  source = folders / 'still' / f'{PROMPTS[4]}-0.mp4'
  (tmp_path / 'fine-0.mp4').write_bytes(source.read_bytes())
  (tmp_path / 'half-0.mp4').write_bytes(source.read_bytes()[:900])
  (tmp_path / 'empty-0.mp4').write_bytes(b'')
  (tmp_path / 'notes.txt').write_text('x')
  (tmp_path / '.hidden.mp4').write_bytes(b'x')
  (tmp_path / 'fine-0.json').write_text(json.dumps({'order': 'loop'}))
  listing = folder.list_clips(tmp_path)
  assert [clip.name for clip in listing.clips] == ['fine-0.mp4']
  assert listing.clips[0].order == 'loop'
  text = ' '.join(listing.problems)
  assert 'half-0.mp4' in text and 'empty-0.mp4' in text and 'notes.txt' in text
