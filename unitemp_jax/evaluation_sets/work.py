"""All that one command makes: which clips, from which plans, in which form."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import unitemp_jax
from unitemp_jax.evaluation_sets import clips as set_clips
from unitemp_jax.evaluation_sets import generation, record
from unitemp_jax.evaluation_sets.bulk_pipeline import BulkPipeline
from unitemp_jax.evaluation_sets.clips import Clip
from unitemp_jax.evaluation_sets.given import GivenFrames
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.produce import produce
from unitemp_jax.evaluation_sets.progress import Journal
from unitemp_jax.evaluation_sets.status import read_status
from unitemp_jax.evaluation_sets.store import Store
from unitemp_jax.evaluation_sets.suites import SUITES
from unitemp_jax.generate.request import Given
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import model_folder

# Clips with a shorter side are written enlarged to about twice that.
_SMALL = 128
_LOOK_AGAIN = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Work:
  """A whole set, before any of it is made.

  Attributes:
    model: its folder.
    settings: what `set.json` says.
    clips: all of them.
    order_of: plan of each order.
    form: how they are written.
  """

  model: Path
  settings: dict[str, Any]
  clips: list[Clip]
  order_of: dict[str, Plan]
  form: record.Form


def plan_work(
  model: Path,
  suite: str,
  prompts: Sequence[Prompt],
  orders: Sequence[str],
  *,
  seed: int = 0,
  samples: int | None = None,
  frames: int | None = None,
  decode: str = 'joint',
  **plan_settings: Any,
) -> Work:
  """Lists the clips of a set and checks everything; writes nothing.

  Args:
    model: folder of the model.
    suite: of `suites.SUITES`.
    prompts: see `set_prompts.find`.
    orders: names of temporal orders.
    seed: of the whole set.
    samples: per prompt; None = what the suite wants.
    frames: of a clip; None = the model's.
    decode: one of `plans.decoding.MODES`.
    **plan_settings: see `generation.order_plans`.

  Raises:
    UserError: no model, an order that does not fit, or bad file names.
  """
  card = model_folder.read_card(model)
  frames = frames or card.frames
  order_of = generation.order_plans(
    card, orders, frames, SUITES[suite].given, **plan_settings
  )
  listed = set_clips.list_clips(
    SUITES[suite], prompts, list(order_of), seed=seed, samples=samples
  )
  fingerprint = model_folder.fingerprint(model)
  listed = generation.with_keys(listed, order_of, fingerprint, decode)
  side = min(card.height, card.width)
  scale = 1 if side >= _SMALL else 2 * _SMALL // side
  settings = {
    'suite': suite,
    'seed': seed,
    'model': fingerprint,
    'decode': decode,
    'orders': list(order_of),
    'prompts': len(prompts),
    'clips': len(listed),
    'samples': samples,
    'frames': frames,
    'fps': card.fps,
    'height': card.height * scale,
    'width': card.width * scale,
    'scale': scale,
    'version': unitemp_jax.__version__,
  }
  form = record.Form(card.fps, scale, decode, fingerprint)
  return Work(model, settings, listed, order_of, form)


def run_work(
  work: Work,
  out: Path,
  shard: tuple[int, int] | None = None,
  batch_size: int = 8,
  report: Callable[[str], None] = print,
) -> tuple[int, int]:
  """Makes what is missing of a set.

  Args:
    work: from `plan_work`.
    out: folder of the set.
    shard: (i, n) makes the i-th of n parts only; None makes the part of this
      process where several work together, and everything elsewhere.
    batch_size: clips per batch.
    report: is given lines about the progress.

  Returns:
    How many clips were made, and how many were there already.

  Raises:
    UserError: the folder holds another set, or cannot be written.
  """
  shard = shard or (jax.process_index(), jax.process_count())
  store = Store(out)
  store.sweep()
  if not (out / 'set.json').exists():
    _check_sources(work)
  store.begin(work.settings, work.clips)
  for name, plan in work.order_of.items():
    record.write_plan(store, name, plan)
  mine = set_clips.shard(work.clips, *shard)
  todo = [clip for clip in mine if not store.is_finished(clip)]
  if todo:
    size = min(batch_size, len(mine))
    maker, write = _connect(work, store, size)
    produce(todo, maker, write, Journal(out, shard), report=report)
  store.leave()
  if jax.process_count() > 1:
    _wait_for_others(out)
  return len(todo), len(mine) - len(todo)


def _reader(work: Work) -> GivenFrames:
  card, frames = model_folder.read_card(work.model), work.settings['frames']
  return GivenFrames(frames, card.height, card.width, card.fps)


def _check_sources(work: Work) -> None:
  """Raises UserError if an image or a real clip cannot be used."""
  reader = _reader(work)
  prompts = {clip.prompt.id: clip.prompt for clip in work.clips}.values()
  given = SUITES[work.settings['suite']].given
  if given == 'image':
    images = [prompt.image for prompt in prompts if prompt.image is not None]
    reader.check(images, reader.image)
  if given == 'clip':
    found = [prompt.clip for prompt in prompts if prompt.clip is not None]
    reader.check(found, reader.clip)


def _wait_for_others(out: Path) -> None:
  """Stays until the other processes are done, or have given up.

  Processes that work together are ended together: jax would stop those that
  have more to do a few minutes after the first one left.
  """
  while True:
    seen = read_status(out)
    running = any(worker.state == 'running' for worker in seen.workers)
    if not seen.missing or not running:
      return
    time.sleep(_LOOK_AGAIN)


def _connect(work: Work, store: Store, size: int):
  """Returns how clips are made and how they are written."""
  pipeline = BulkPipeline.load(work.model)
  reader, suite = _reader(work), SUITES[work.settings['suite']]

  def given(clip: Clip) -> tuple[Given, ...]:
    first, last = generation.given_counts(clip.order, suite.given)
    if last and clip.prompt.clip is not None:
      return reader.ends(clip.prompt.clip)
    if first and clip.prompt.image is not None:
      return reader.first(clip.prompt.image)
    return ()

  facts = {name: record.order_facts(p) for name, p in work.order_of.items()}

  def write(clip: Clip, video: np.ndarray) -> None:
    counts = generation.given_counts(clip.order, suite.given)
    more = {**facts[clip.order], 'given_frames': list(counts)}
    if suite.given == 'clip' and clip.prompt.clip is not None:
      truth = reader.clip(clip.prompt.clip)
      path = record.write_truth(store, clip.prompt.name, truth, work.form)
      more['real'] = path.relative_to(store.root).as_posix()
    record.write_clip(store, clip, video, work.form, more)

  maker = generation.model_maker(
    pipeline, work.order_of, given, size, work.settings['decode']
  )
  return maker, write
