"""A shard of a set in a process of its own, with noise instead of a model.

usage: python fake_worker.py OUT i/n
"""

import sys
import time
from pathlib import Path

import numpy as np

from unitemp_jax import orders
from unitemp_jax.evaluation_sets import clips, record
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.produce import Maker, produce
from unitemp_jax.evaluation_sets.progress import Journal
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.evaluation_sets.suites import SUITES

FRAMES, SIDE = 9, 32
NAMES = [f'thing {i}, seen from afar.' for i in range(6)]
ORDERS = ('forward', 'backward')
SETTINGS = {
  'suite': 'vbench',
  'frames': FRAMES,
  'fps': 8,
  'height': SIDE,
  'width': SIDE,
}
FORM = record.Form(fps=8, scale=1, decode='joint', checkpoint='none')
PLANS = {name: orders.ORDERS[name](3, block=3, anchors=3) for name in ORDERS}


def wanted(names=NAMES, samples=2, seed=0):
  prompts = [Prompt(name, name, name) for name in names]
  listed = clips.list_clips(
    SUITES['vbench'], prompts, ORDERS, seed=seed, samples=samples
  )
  key = clips.content_key
  return [
    clips.Clip(c.path, c.order, c.prompt, c.sample, c.seed, key(c.seed))
    for c in listed
  ]


def noise(clip):
  """A video that depends on the clip's seed alone; half of it stands still."""
  rng = np.random.default_rng(clip.seed)
  video = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
  video[:, : SIDE // 2] = video[:1, : SIDE // 2]
  return video


def fake_maker(size=4, seconds=0.0):
  def generate(group):
    time.sleep(seconds)
    return [clip.seed for clip in group]

  def decode(group, made):
    assert made == [clip.seed for clip in group]
    return [noise(clip) for clip in group]

  return Maker(lambda clip: clip.order, generate, decode, size)


def work(out, shard=(0, 1), listed=None, maker=None, **more):
  """Does what the command does; returns how many clips it made."""
  store = Store(Path(out))
  store.sweep()
  listed = wanted() if listed is None else listed
  store.begin(SETTINGS, listed)
  for name, plan in PLANS.items():
    record.write_plan(store, name, plan)
  facts = {name: record.order_facts(plan) for name, plan in PLANS.items()}
  todo = [c for c in clips.shard(listed, *shard) if not store.is_finished(c)]
  produce(
    todo,
    maker or fake_maker(),
    lambda clip, video: record.write_clip(
      store, clip, video, FORM, facts[clip.order]
    ),
    Journal(store.root, shard),
    report=lambda line: None,
    **more,
  )
  store.leave()
  return len(todo)


def files(root):
  """Content of all files that belong to the set."""
  root = Path(root)
  return {
    path.relative_to(root).as_posix(): path.read_bytes()
    for path in root.rglob('*')
    if path.is_file() and path.relative_to(root).parts[0] != 'progress'
  }


if __name__ == '__main__':
  made = work(
    sys.argv[1], clips.parse_shard(sys.argv[2]), maker=fake_maker(2, 0.05)
  )
  print(f'made {made}')
