"""A shard of a set in a process of its own, with noise instead of a model.

usage: python fake_worker.py OUT i/n
"""

import functools
import sys
import time
from pathlib import Path

import numpy as np

from unitemp_jax import orders
from unitemp_jax.evaluation_sets import clips
from unitemp_jax.evaluation_sets import work as set_work
from unitemp_jax.evaluation_sets.clips import SUITES
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.store import Journal, Store
from unitemp_jax.generate.request import Request
from unitemp_jax.parallel import locks, processes

FRAMES, SIDE = 9, 32
NAMES = [f'thing {i}, seen from afar.' for i in range(6)]
ORDERS = ('forward', 'backward')
SETTINGS = {
  'suite': 'vbench',
  'frames': FRAMES,
  'fps': 8,
  'height': SIDE,
  'width': SIDE,
  'scale': 1,
  'decode': 'joint',
  'model': 'none',
}
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


class FakeMaker:
  """Stands for a model: noise by the seed of each clip."""

  def __init__(self, size=4, seconds=0.0):
    self.size, self._seconds = size, seconds

  def step(self, name, clip=None):
    """Is called before each step; for faults."""

  def make(self, group):
    self.step('generate')
    time.sleep(self._seconds)
    return [clip.seed for clip in group]

  def tasks(self, store, group, made):
    self.step('decode')
    assert made == [clip.seed for clip in group]
    return [functools.partial(self.write, store, clip) for clip in group]

  def write(self, store, clip):
    self.step('write', clip)
    write(store, clip)


def write(store, clip, video=None):
  """Writes one clip of the set."""
  video = noise(clip) if video is None else video
  request = Request(
    clip.order, PLANS[clip.order], (clip.prompt.text,), clip.seed, SIDE, SIDE
  )
  set_work.write_clip(store, clip, request, video, SETTINGS, {})


def work(out, shard=(0, 1), listed=None, maker=None, **more):
  """Does what the command does; returns how many clips it made."""
  store, maker = Store(Path(out)), maker or FakeMaker()
  listed = wanted() if listed is None else listed
  store.begin({**SETTINGS, 'clips': len(listed)}, listed)
  for name, plan in PLANS.items():
    set_work.write_plan(store, name, plan)
  journal = Journal(store.root, shard)
  with locks.lock(journal.folder):
    mine = listed[shard[0] :: shard[1]]
    todo = [clip for clip in mine if not store.is_finished(clip)]
    set_work.make_clips(
      *(todo, maker.size, maker.make, functools.partial(maker.tasks, store)),
      *(journal, lambda line: None),
      **more,
    )
  store.leave(journal.folder)
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
    sys.argv[1], processes.part_of(sys.argv[2]), maker=FakeMaker(2, 0.05)
  )
  print(f'made {made}')
