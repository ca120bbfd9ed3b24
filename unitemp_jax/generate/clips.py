"""Clip generation that resumes: in batches, or one clip block by block.

The content of a clip depends on its own request only, never on the batch, so
that an interrupted command continues where it stopped and ends with the same
files. A clip is finished when all files are there that its sidecar tells of,
as they were written (`outputs`). What another command, another program or the
user wrote is never replaced. Generation, decoding and writing overlap.

Made block by block, each block is kept beside the clip as latents. The same
command continues after it: the blocks that exist are only stored in the cache,
by the same program. Interrupted by Ctrl-C, what is finished becomes a clip.
"""

import collections
import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from unitemp_jax import files, progress
from unitemp_jax.errors import UserError, foreign
from unitemp_jax.generate import clip_file
from unitemp_jax.generate.clip_file import Job
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.generate.request import Request
from unitemp_jax.plans import decoding
from unitemp_jax.sampling.stream import MadeRow
from unitemp_jax.video.write import open_video

_UNDER_WAY = 2  # batches that are decoded and written while one is generated
_ROOM = 2**20  # bytes for sidecars and pictures

Report = Callable[[str], None]
# Is given the first frame, uint8 `[n, H, W, 3]`, and whether these take the
# place of a preview.
Show = Callable[[int, np.ndarray, bool], None]


def unfinished(jobs: Sequence[Job], model: str | None) -> list[Job]:
  """Leaves out what is there already, whole; touches nothing.

  Without the hash of the model, each clip that is there is taken to be its.
  """
  owners: set[Path] = set()
  left = []
  for job in jobs:
    if job.path in owners:
      raise UserError(f'two clips would be written to {job.path}; rename one.')
    owners.add(job.path)
    sidecar, record = job.beside('.json'), {}
    there = os.path.lexists(sidecar)
    if there:
      mend = f'choose another --out, or delete {job.path.stem}.* there'
      record = files.read_json(sidecar, 'what a clip says', mend)
    hashed = model
    if hashed is None:
      told = record or clip_file.tags_of(job.path)
      hashed = str(told.get('checkpoint'))
    key = job.key(hashed)
    if there and record.get('key') != key:
      raise UserError(
        f'{job.path} was made with other settings or another model, as '
        f'{sidecar.name} says; choose another --out, or delete '
        f'{job.path.stem}.* there.'
      )
    if not clip_file.are_whole(job.path, job.endings, record, key):
      left.append(job)
  return left


def _key_in(path: Path) -> str | None:
  """The key of the request that kept blocks were made for, if it tells."""
  with contextlib.suppress(UserError):
    return files.read_json(path, kind=str)
  return None


def check_room(jobs: Sequence[Job]) -> None:
  """Raises UserError where the disk is too full for the clips."""
  need, folder = _ROOM, jobs[0].path.parent
  for job in jobs:
    request = job.request
    raw = 3 * request.num_frames * request.height * request.width
    need += int(
      raw * (0.05 + ('mkv' in job.output.formats) / 2 + (job.decode != 'joint'))
    )
  while not folder.is_dir():
    folder = folder.parent
  free = shutil.disk_usage(folder).free
  if free < need:
    raise UserError(
      f'{folder} has {free / 2**20:.1f} MiB of room, and the clips need about '
      f'{need / 2**20:.1f} MiB; make room or choose another --out.'
    )


class RowFolder:
  """Finished blocks on disk, each written atomically."""

  def __init__(self, path: Path, key: str):
    """Opens the folder of one clip, which is made at the first `save`."""
    self.path, self._record, self._key = path, path / 'key.json', key
    if path.is_symlink():
      raise foreign(path)
    if self._record.exists():
      if _key_in(self._record) != key:
        raise UserError(
          f'{path} was left by a command with other settings or another model; '
          'choose another --out, or delete it.'
        )
    elif os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
      raise foreign(path)

  def load(self, shapes: dict[int, tuple], report: Report = print):
    """Rows by number; one that is damaged is said, and will be made again."""
    rows = {}
    for path in sorted(self.path.glob('row*.npz')):
      with contextlib.suppress(*files.UNREADABLE):
        row = int(path.stem[3:])
        with np.load(path) as held:
          latents, anchors = held['latents'], held['anchors']
        finite = np.isfinite(latents).all() and np.isfinite(anchors).all()
        fit = anchors.shape[2:] == latents.shape[2:]
        if finite and fit and latents.shape == shapes.get(row):
          rows[row] = MadeRow(row, latents, anchors, 0.0, False)
          continue
      report(f'{path} is damaged; its block is made again')
    return rows

  def save(self, made: MadeRow) -> None:
    """Keeps a row."""
    if not self._record.exists():
      files.write_json(self._record, self._key)
    path = self.path / f'row{made.row:06d}.npz'
    with files.writing(path) as temporary, temporary.open('wb') as file:
      np.savez(file, latents=made.latents, anchors=made.anchors)

  def remove(self) -> None:
    """Deletes what was written here, once the clip is there."""
    for name in (f'row{"[0-9]" * 6}.npz', 'pixels', 'key.json'):
      for path in self.path.glob(name):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
      self.path.rmdir()


class _Run:
  """One clip that is made block by block."""

  def __init__(
    self, pipeline: Pipeline, job: Job, report: Report, show: Show | None
  ):
    self.pipeline, self.job, self.report = pipeline, job, report
    self.show = show
    self.key = job.key(pipeline.hash)
    self.folder = RowFolder(job.beside('.rows'), self.key)
    self.partial = job.beside('.partial.mp4')
    tags = clip_file.tags_of(self.partial)
    if os.path.lexists(self.partial) and tags.get('key') != self.key:
      raise foreign(self.partial)
    self.rows: list[MadeRow] = []
    self.timings: dict[str, float] = {}
    plan = job.request.plan
    self.total = int(np.count_nonzero(~plan.conditioning & (plan.count > 0)))

  def make(self) -> None:
    """Makes the blocks that are missing, keeping each of them."""
    try:
      self._make()
    except KeyboardInterrupt:
      self._keep_partial()
      raise

  def _make(self) -> None:
    request, began = self.job.request, time.monotonic()
    finished = self._finished()
    if finished:
      self.report(f'{len(finished)} of {self.total} blocks were there')
    pace = progress.Pace(self.total - len(finished))
    show = self.show
    mode = 'lag' if show else 'stream'
    schedule = decoding.schedule(request.plan, mode)
    decoder = self.pipeline.decoder(request.plan, schedule)
    for made in self.pipeline.rows(request, finished):
      self.rows.append(made)
      if made.fresh:
        self.folder.save(made)
      if show or 'first block' not in self.timings:
        # Else only until the first pixels: the file is decoded at the end.
        pieces = list(decoder(made))
        if show:
          for piece in pieces:
            frames = request.paste(piece.first, piece.frames[0])
            show(piece.first, frames, piece.refines)
        if made.fresh and pieces and 'first block' not in self.timings:
          seconds = time.monotonic() - began
          self.timings['first block'] = round(seconds, 3)
          first, last = pieces[0].first, pieces[0].last
          self.report(
            f'first block, frames {first}..{last}, after {seconds:.2f} s'
          )
      if made.fresh:
        pace.step()
        if len(pace.times) > 1:  # the first one's time is that of compiling
          done = len(finished) + pace.done
          self.report(f'{done} of {self.total} blocks, {pace.left} left')
    self.timings['generation'] = round(time.monotonic() - began, 3)

  def _finished(self) -> dict[int, MadeRow]:
    """Blocks on disk, by their row."""
    size = self.pipeline.latent_shape(self.job.request)
    counts = self.job.request.plan.count.tolist()
    shapes = {row: (1, count, *size) for row, count in enumerate(counts)}
    return self.folder.load(shapes, self.report)

  def write(self) -> None:
    """Decodes and writes the finished clip, and removes its blocks."""
    if self.job.decode == 'joint':
      pieces = self.pipeline.joint(self.job.request.plan, self.rows)
      frames = (frames for _, frames in pieces)
    else:
      frames = self._streamed()
    _write(self.job, self.pipeline, frames, self.timings, self._latents())
    self.partial.unlink(missing_ok=True)
    self.folder.remove()

  def _latents(self) -> np.ndarray | None:
    """All latents of the video by time, if they are asked for."""
    if not self.job.latents:
      return None
    plan = self.job.request.plan
    held = {
      entry: latents
      for made in self.rows
      for (_, entry), latents in zip(
        plan.entries(made.row), made.latents[0], strict=True
      )
    }
    return np.stack([held[int(entry)] for entry in plan.timeline()[1]])

  def _streamed(self) -> Iterator[np.ndarray]:
    """The finished video as a viewer of the stream saw it last.

    Blocks wait for their place in time in a file, not in memory.
    """
    request = self.job.request
    shape = (request.num_frames, request.height, request.width, 3)
    path = self.folder.path / 'pixels'
    with files.writing(path) as temporary, temporary.open('r+b') as file:
      os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
    pixels = np.memmap(path, np.uint8, 'r+', shape=shape)
    for _, piece in self.pipeline.decoded(
      request.plan, self.rows, self.job.decode
    ):
      pixels[piece.first : piece.last + 1] = piece.frames[0]
    for first in range(0, len(pixels), 32):
      yield np.asarray(pixels[first : first + 32])

  def _keep_partial(self) -> None:
    """Writes what is finished as a clip, and says how to go on."""
    request, finished = self.job.request, self._finished()
    kept = f'{len(finished)} of {self.total} blocks are kept in '
    kept += str(self.folder.path)
    path, tags = self.partial, {'key': self.key}
    if 0 < len(finished) < self.total:
      # Not those since the last that is kept, nor only those read again.
      given = [
        made for made in self.rows if request.plan.conditioning[made.row]
      ]
      rows = sorted([*given, *finished.values()], key=lambda made: made.row)
      with open_video(path, self.pipeline.card.fps, tags) as append:
        for first, frames in self.pipeline.joint(request.plan, rows):
          append(request.paste(first, frames))
      kept += f', and {path} shows them'
    self.report(f'interrupted: {kept}; the same command continues.')


def produce(
  groups: Iterable[Any],
  make: Callable[[Any], Any],
  tasks: Callable[[Any, Any], Sequence[Callable[[], None]]],
  settled: Callable[[Any], None],
  writers: int = 4,
) -> None:
  """Generation, decoding and writing overlap; few groups are under way.

  Args:
    groups: of clips that are made together.
    make: generates a group.
    tasks: (group, what was made) -> what is to be done to write each clip;
      called in one other thread, the tasks in several.
    settled: is told of each group that is written.
    writers: threads that write.
  """
  with (
    futures.ThreadPoolExecutor(writers, 'write') as pool,
    futures.ThreadPoolExecutor(1, 'decode') as decoder,
  ):

    def finish(group, made):
      return [pool.submit(task) for task in tasks(group, made)]

    def settle(group, decoding):
      for writing in decoding.result():
        writing.result()
      settled(group)

    waiting: collections.deque = collections.deque()
    for group in groups:
      waiting.append((group, decoder.submit(finish, group, make(group))))
      if len(waiting) > _UNDER_WAY:
        settle(*waiting.popleft())
    while waiting:
      settle(*waiting.popleft())


def batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
  """Groups jobs that run the same plan in the same way, in order."""
  group: list[Job] = []
  for job in jobs:
    if group and (len(group) == size or _kind(job) != _kind(group[0])):
      yield group
      group = []
    group.append(job)
  if group:
    yield group


def _kind(job: Job):
  """What jobs of one batch have in common."""
  request = job.request
  given = [(given.frame, len(given.video)) for given in request.conditioning]
  size = (request.height, request.width, len(request.prompts))
  return id(request.plan), job.decode, size, given


def filled(requests: Sequence[Request], size: int) -> list[Request]:
  """A batch filled up with repetitions, so that all run one program."""
  return [*requests, *[requests[-1]] * (size - len(requests))]


def run(
  pipeline: Pipeline,
  jobs: Sequence[Job],
  size: int | None = None,
  report: Report = print,
  show: Show | None = None,
) -> int:
  """Makes and writes what is not there yet; returns how many clips it made.

  Args:
    pipeline: of the model.
    jobs: all clips of the command.
    size: clips per batch; None makes one at a time, block by block.
    report: is given lines about the progress; may raise KeyboardInterrupt.
    show: is given frames as they are made, one clip at a time.

  Raises:
    UserError: a file that is there is not this command's, a disk is full, or
      the model made something that is no video.
    KeyboardInterrupt: after what is finished was written.
  """
  todo = unfinished(jobs, pipeline.hash)
  made = {id(job) for job in todo}
  for job in jobs:  # killed between its last file and its clean-up
    if id(job) not in made and _key_in(job.beside('.rows') / 'key.json'):
      key, partial = job.key(pipeline.hash), job.beside('.partial.mp4')
      RowFolder(job.beside('.rows'), key).remove()
      if clip_file.tags_of(partial).get('key') == key:
        partial.unlink()
  if not todo:
    return 0
  check_room(todo)
  pace = progress.Pace(len(todo))

  def settled(group):
    pace.step(len(group))
    workflow = group[0].request.workflow
    report(f'{workflow}: {pace.done}/{len(todo)} clips, {pace.left} left')

  if size is not None:
    tasks = functools.partial(_batch_tasks, pipeline)
    make = functools.partial(_make_batch, pipeline, size)
    produce(batches(todo, size), make, tasks, settled)
    return len(todo)
  runs = [_Run(pipeline, job, report, show) for job in todo]

  def make_one(group):
    [one] = group
    request = one.job.request
    report(
      f'clip {runs.index(one) + 1} of {len(todo)}: {request.workflow}, '
      f'{request.num_frames} frames, "{request.prompts[0]}"'
    )
    one.make()
    return one

  groups = ([one] for one in runs)
  produce(groups, make_one, lambda group, one: [one.write], lambda group: None)
  return len(todo)


def _make_batch(pipeline: Pipeline, size: int, group: Sequence[Job]):
  began = time.monotonic()
  made = pipeline.batch(filled([job.request for job in group], size))
  seconds = (time.monotonic() - began) / len(group)
  return made, {'seconds per clip in its batch': round(seconds, 3)}


def _batch_tasks(pipeline: Pipeline, group: Sequence[Job], result):
  made, timings = result
  videos = pipeline.pixels(made, group[0].decode)
  return [
    functools.partial(_write, job, pipeline, [video], timings, latents)
    for job, video, latents in zip(group, videos, made.timeline, strict=False)
  ]


def _write(job: Job, pipeline: Pipeline, decoded, timings, latents) -> None:
  """Writes all files of a clip, unless others came there meanwhile."""
  unfinished([job], pipeline.hash)
  fps, model = pipeline.card.fps, pipeline.hash
  about = clip_file.about(job.request, fps, job.decode, model, job.key(model))
  clip_file.write_all(
    *(job.path, job.request, decoded, about, timings),
    output=job.output,
    latents=latents if job.latents else None,
  )
