"""Generation of an evaluation set: plans, batches, files and records."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import unitemp_jax
from unitemp_jax import files, orders, plans, progress, storage, timeline
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError, check_known
from unitemp_jax.evaluation_sets import clips as set_clips
from unitemp_jax.evaluation_sets.clips import SUITES, Clip
from unitemp_jax.evaluation_sets.manifests import Prompt
from unitemp_jax.evaluation_sets.store import Journal, Store, read_status
from unitemp_jax.generate import clip_file, clips, memory
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.generate.request import Conditioning, Draft, Request
from unitemp_jax.generate.text import read_ahead
from unitemp_jax.parallel import locks
from unitemp_jax.parallel.mesh import device_bytes, row_parts
from unitemp_jax.plans import Plan
from unitemp_jax.plans import text as plan_text
from unitemp_jax.sampling import model_folder
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.video import read
from unitemp_jax.video.read import fit, read_image
from unitemp_jax.video.write import write_image, write_video

_SMALL = 128  # clips with a shorter side are written enlarged to twice that
_POSTER = 160  # pixels, the longer side
_LOOK_AGAIN = 5.0  # seconds
_Tasks = Sequence[Callable[[], None]]


@dataclasses.dataclass(frozen=True)
class Work:
  """A whole set, before any of it is made."""

  model: Path  # its folder
  settings: dict[str, Any]  # what `set.json` says
  clips: list[Clip]  # all of them
  order_of: dict[str, Plan]  # plan of each order
  # what of a prompt the model does not see, by prompt
  remarks: dict[str, list[str]]


def order_names(text: str, given: str) -> list[str]:
  """Names with commas, or 'all' for every order that has what it wants."""
  return [
    name
    for name in orders.named(text)
    if text != 'all' or given == 'clip' or not name.startswith('inbetween')
  ]


def given_counts(order: str, given: str) -> tuple[int, int]:
  """Latents that an order is given at either end, see `Suite.conditioning`.

  An image starts every order. Of a real clip, its ends are given to the orders
  that fill between two; the others make what they can from its caption.
  """
  if given == 'clip':
    return (1, 1) if order.startswith('inbetween') else (0, 0)
  return int(given == 'image'), 0


def order_plans(
  card: ModelCard,
  names: Sequence[str],
  frames: int,
  given: str,
  sinks: str = 'none',
  **settings: Any,
) -> dict[str, Plan]:
  """The plan of each order, the one that `workflows` give it.

  Args:
    card: of the model.
    names: of `orders.ORDERS`.
    frames: of a clip, 1 + 4k.
    given: what there is for the orders that want it, see `Suite.conditioning`.
    sinks: of `orders.SINKS`, for forward and backward: ends that stay in view.
    **settings: anchors, start and window, see `workflows`.

  Raises:
    UserError: an unknown order, or one that wants other given frames.
  """
  if frames < 5 or frames % 4 != 1:
    raise UserError(f'--frames={frames} must be 1 + 4k, such as {card.frames}.')
  made = {}
  for name in names:
    check_known('--order names', name, orders.ORDERS, 'some')
    order, more = orders.ORDERS[name], {}
    if sinks != 'none':
      if name not in orders.DIRECTIONS:
        raise UserError(f'--sinks has no meaning for the order {name}.')
      span = timeline.num_latents(card.frames)
      order = orders.long
      more = {'direction': name, 'sinks': sinks, 'span': span}
    first, last = given_counts(name, given)
    more |= {'given_first': first, 'given_last': last}
    own = Draft(card, {**settings, 'bounded': False})
    made[name] = own.plan(frames, bool(first), order, **more)
  return made


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
    prompts: see `suites.find`.
    orders: names of temporal orders.
    seed: of the whole set.
    samples: per prompt; None = what the suite wants.
    frames: of a clip; None = the model's.
    decode: one of `plans.decoding.MODES`.
    **plan_settings: see `order_plans`.

  Raises:
    UserError: no model, an order that does not fit, or bad file names.
  """
  card = model_folder.read_card(model)
  frames = frames or card.frames
  order_of = order_plans(
    card, orders, frames, SUITES[suite].conditioning, **plan_settings
  )
  listed = set_clips.list_clips(
    SUITES[suite], prompts, list(order_of), seed=seed, samples=samples
  )
  fingerprint = model_folder.fingerprint(model)
  tables = {name: plan_text.to_json(plan) for name, plan in order_of.items()}
  listed = set_clips.with_keys(listed, tables, fingerprint, decode)
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
  tokenizer = Tokenizer.from_file(model / 'tokenizer.json')
  remarks = {
    text: said
    for text in dict.fromkeys(prompt.text for prompt in prompts)
    if (said := tokenizer.remarks(text, card.text.length))
  }
  return Work(model, settings, listed, order_of, remarks)


def run_work(
  work: Work,
  out: Path,
  shard: tuple[int, int],
  batch_size: int | None = None,
  mesh: Mapping[str, int] | None = None,
) -> tuple[int, int]:
  """Makes what is missing of a set.

  Args:
    work: from `plan_work`.
    out: folder of the set.
    shard: (i, n) makes the i-th of n parts only.
    batch_size: clips per batch; None = 8, or what fits on the devices.
    mesh: of the devices of this process, see `Pipeline.load`.

  Returns:
    How many clips were made, and how many were there already.

  Raises:
    UserError: the folder holds another set, or cannot be written, or another
      process makes the same shard.
  """
  store, reader = Store(out), Reader(work)
  if not (out / 'set.json').exists():
    reader.check()
  store.begin(work.settings, work.clips)
  journal = Journal(out, shard)
  with locks.lock(journal.folder):
    for name, plan in work.order_of.items():
      write_plan(store, name, plan)
    mine = work.clips[shard[0] :: shard[1]]
    todo = [clip for clip in mine if not store.is_finished(clip)]
    if todo:
      pipeline = Pipeline.load(work.model, many=True, mesh=mesh)
      # The same for any number of parts, so that they make the same bits.
      size = min(batch_size or _batch(work, pipeline), len(work.clips))
      texts = [clip.prompt.text for clip in todo]
      read_ahead(pipeline.text, pipeline.params, texts)
      maker = Maker(work, store, reader, size, pipeline)
      make_clips(todo, size, maker.make, maker.tasks, journal, print)
  store.leave(journal.folder)
  if jax.process_count() > 1:
    _wait_for_others(out)
  return len(todo), len(mine) - len(todo)


def _batch(work: Work, pipeline: Pipeline) -> int:
  """Clips that fit on all devices at a time."""
  if (limit := device_bytes()) is None:
    return memory.BATCH
  plans_ = work.order_of.values()
  fits = [memory.batch_that_fits(pipeline.card, p, limit) for p in plans_]
  return row_parts(pipeline.mesh) * min(fits)


def make_clips(
  todo: Sequence[Clip],
  size: int,
  make: Callable[[list[Clip]], Any],
  tasks: Callable[[list[Clip], Any], _Tasks],
  journal: Journal,
  report: Callable[[str], None],
  **more: Any,
) -> None:
  """Makes and writes clips, and keeps a journal; see `clips.produce`."""
  pace = progress.Pace(len(todo))

  def settled(group: list[Clip]) -> None:
    took = pace.step(len(group))
    journal.log('batch', clips=len(group), seconds=round(took, 3))
    report(
      f'{group[0].order}: {pace.done}/{len(todo)} clips, {60 * pace.rate:.1f} '
      f'per minute, {pace.left} left'
    )

  journal.log('start', clips=len(todo))
  clips.produce(batches(todo, size), make, tasks, settled, **more)
  journal.log('end')


def batches(listed: Sequence[Clip], size: int) -> Iterator[list[Clip]]:
  """Groups clips by their order; only each one's last is smaller."""
  found: dict[str, list[Clip]] = {}
  for clip in listed:
    found.setdefault(clip.order, []).append(clip)
  for own in found.values():
    for first in range(0, len(own), size):
      yield own[first : first + size]


def _wait_for_others(out: Path) -> None:
  """Stays until the other processes are done, or have given up.

  Processes that work together are ended together: jax would stop those that
  have more to do a few minutes after the first one left.
  """
  while True:
    storage.exchange(out / 'progress')
    seen = read_status(out)
    running = any(worker.state == 'running' for worker in seen.workers)
    if not seen.missing or not running:
      return
    time.sleep(_LOOK_AGAIN)


class Reader:
  """Reads the images and real clips of a set in its size, once in a while."""

  def __init__(self, work: Work):
    self.card = model_folder.read_card(work.model)
    self.frames: int = work.settings['frames']
    self.kind = SUITES[work.settings['suite']].conditioning
    self._prompts = {clip.prompt.id: clip.prompt for clip in work.clips}
    self.video = functools.lru_cache(16)(self._video)

  def check(self) -> None:
    """Reads all that will be given, before anything is made of it.

    UserError if some cannot be used; says how many, and why the first.
    """
    bad = []
    for prompt in self._prompts.values() if self.kind else ():
      try:
        self.video(prompt)
      except UserError as error:
        bad.append(str(error))
    if bad:
      raise UserError(f'{len(bad)} given file(s) cannot be used: {bad[0]}')

  def given(self, clip: Clip) -> tuple[Conditioning, ...]:
    """What a clip is conditioned on."""
    first, last = given_counts(clip.order, self.kind)
    if not first:
      return ()
    video = self.video(clip.prompt)
    ends = [Conditioning(0, video[:1])]
    return (
      (*ends, Conditioning(len(video) - 1, video[-1:])) if last else tuple(ends)
    )

  def _video(self, prompt: Prompt) -> np.ndarray:
    """The image, or the first frames of the clip at the set's rate."""
    height, width = self.card.height, self.card.width
    if self.kind == 'image' and prompt.image is not None:
      picture = read_image(prompt.image)
      return fit(picture[None], height, width)
    path, found = prompt.clip, []
    assert path is not None
    for picture in read.resample(read.decode(path), self.card.fps):
      found.append(fit(picture, height, width))
      if len(found) == self.frames:
        return np.stack(found)
    raise UserError(
      f'{path} has {len(found)} frames at {self.card.fps:g} per second and '
      f'{self.frames} are needed; remove it, or ask for shorter clips with '
      '--frames.'
    )


class Maker:
  """Makes and writes the clips of a set with a model.

  All plans get one shape, so that they share one compiled program, and every
  batch is filled up to one size, so that none is left out.
  """

  def __init__(
    self,
    work: Work,
    store: Store,
    reader: Reader,
    size: int,
    pipeline: Pipeline,
  ):
    self.pipeline = pipeline
    self._work, self._store, self._reader = work, store, reader
    self._size = size
    aligned = plans.align(*work.order_of.values())
    self._plans = dict(zip(work.order_of, aligned, strict=True))

  def request(self, clip: Clip) -> Request:
    """What is to be made for a clip."""
    card, text = self.pipeline.card, clip.prompt.text
    plan, given = self._plans[clip.order], self._reader.given(clip)
    return Request(
      *(clip.order, plan, (text,), clip.seed, card.height, card.width, given),
      remarks=tuple(self._work.remarks.get(text, ())),
    )

  def make(self, group: Sequence[Clip]):
    """Generates a batch."""
    requests = [self.request(clip) for clip in group]
    return requests, self.pipeline.batch(clips.filled(requests, self._size))

  def tasks(self, group: Sequence[Clip], result) -> _Tasks:
    """Decodes a batch; returns what writes each clip."""
    requests, made = result
    videos = self.pipeline.pixels(made, self._work.settings['decode'])
    return [
      functools.partial(self._write, *of_clip)
      for of_clip in zip(group, requests, videos, strict=False)
    ]

  def _write(self, clip: Clip, request: Request, video: np.ndarray) -> None:
    more: dict[str, Any] = {}
    if request.remarks:
      more['remarks'] = list(request.remarks)
    if self._reader.kind == 'clip':
      truth = self._reader.video(clip.prompt)
      path = self._store.root / 'real' / f'{clip.prompt.name}.mp4'
      settings = self._work.settings
      if not path.exists():
        with self._store.writing(path) as temporary:
          write_video(
            temporary, truth, settings['fps'], scale=settings['scale']
          )
      more['real'] = path.relative_to(self._store.root).as_posix()
    write_clip(self._store, clip, request, video, self._work.settings, more)


def write_clip(
  store: Store,
  clip: Clip,
  request: Request,
  video: np.ndarray,
  settings: dict[str, Any],
  more: dict[str, Any],
) -> None:
  """Writes mp4, poster, and last the record, each whole or not at all.

  Args:
    store: of the set.
    clip: what it is.
    request: what it was made from.
    video: uint8 `[T, H, W, 3]`, nothing pasted.
    settings: what `set.json` says.
    more: what else belongs in its record.
  """
  scale = settings['scale']
  about = {
    'name': clip.prompt.name,
    'id': clip.prompt.id,
    'sample': clip.sample,
    **clip_file.about(
      *(request, settings['fps'], settings['decode'], settings['model']),
      clip.key,
    ),
    **more,
  }
  path = store.video(clip)
  with store.writing(path) as temporary:
    watch = clip_file.write_video(
      temporary, request, [video], about, scale=scale
    )
    written: dict[str, Any] = {
      'bytes': temporary.stat().st_size,
      'sha256': files.file_sha256(temporary),
      clip_file.MARKS: {'.mp4': clip_file.mark(temporary)},
    }
  with store.writing(store.poster(clip)) as temporary:
    step = max(1, max(video.shape[1:3]) // _POSTER)
    write_image(temporary, watch.poster[::step, ::step])
    written[clip_file.MARKS]['.png'] = clip_file.mark(temporary)
  record = {
    **about,
    'dimension': list(clip.prompt.dimensions),
    'height': video.shape[1] * scale,
    'width': video.shape[2] * scale,
    'scale': scale,
    **watch.facts(),
    **written,
  }
  store.write_json(store.record(clip), record, indent=None)


def write_plan(store: Store, order: str, plan: Plan) -> None:
  """Writes the table of rows that an order runs."""
  path = store.root / 'plans' / f'{order}.json'
  store.write_json(path, json.loads(plan_text.to_json(plan)))
