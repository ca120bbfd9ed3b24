"""Synthetic prompt lists with the awkward names of the real ones."""

import json

FLICKER = 75
STARTS = ('A tranquil tableau of', 'In a still frame,', 'a person is', 'The')
STYLES = (
  'in super slow motion',
  'zoom in',
  'by Hokusai, in the style of Ukiyo',
)


def vbench_records(count=946):
  """As many records as VBench's, two of them with the prompts of others."""
  records = []
  for i in range(count - 2):
    prompt = f'{STARTS[i % 4]} thing {i}, {STYLES[i % 3]}'
    if i % 20 == 3:
      prompt += '.'
    if i % 97 == 5:
      prompt += '...'
    if 100 <= i < 172:
      # More than 100 characters, the first 100 of which they share.
      prompt = (
        'Snow rocky mountains peaks canyon. snow blanketed rocky mountains '
        'surround and shadow deep canyons, with the canyons twisting, view '
        f'number {i}' + ' and more' * (i % 8)
      )
    if i == 300:
      prompt = 'A dog\'s "café" & 50% off: what? <no> | 4*4 \\ ünïcode 東京'
    dimensions = ['subject_consistency', 'motion_smoothness']
    if i < FLICKER:
      dimensions = ['temporal_flickering']
    records.append({'prompt_en': prompt, 'dimension': dimensions})
  for i in (10, count // 2):  # in another suite too
    twin = {'prompt_en': records[i]['prompt_en'], 'dimension': ['human_action']}
    records.append(twin)
  return records


def vbench2_records():
  """Prompts beyond 180 characters, some in two dimensions."""
  records = []
  for dimension in ('Diversity', 'Human_Anatomy', 'Multi-View_Consistency'):
    for i in range(4):
      start = f'Scene {i} of {dimension}. ' if i else 'A man plays basketball. '
      prompt = start + 'He runs, jumps and lands. ' * (12 if i % 2 else 1)
      records.append({'prompt_en': prompt, 'dimension': [dimension]})
  return records


def write_json(path, records):
  path.write_text(json.dumps(records), encoding='utf-8')
  return path


def touch(store_root, clips):
  """Empty files under the names of clips."""
  for clip in clips:
    path = store_root / f'{clip.path}.mp4'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
