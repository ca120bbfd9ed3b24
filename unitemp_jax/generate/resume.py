"""Makes one clip row by row, and loses no row when it is interrupted.

Every finished row is a file of latents in a folder beside the clip. The same
command continues after it; the rows that exist are only stored in the cache, by
the same program, so that the clip is the same bit for bit. Interrupted by
Ctrl-C, what is finished is written as a clip of its own.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.generate import jobs
from unitemp_jax.generate.jobs import Job
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.plans import decoding
from unitemp_jax.sampling import decode
from unitemp_jax.sampling.stream import MadeRow
from unitemp_jax.video.write import open_video

_KEY = 'key.json'


class RowFolder:
  """Finished rows on disk, each written atomically."""

  def __init__(self, path: Path, key: str):
    """Opens the folder of one clip.

    Args:
      path: of the folder; made if it does not exist.
      key: of the clip, see `Job.key`.

    Raises:
      UserError: it belongs to another clip.
    """
    self.path = path
    path.mkdir(parents=True, exist_ok=True)
    record = path / _KEY
    if record.exists():
      if files.read_json(record, kind=object) != key:
        raise UserError(
          f'{path} was left by another command or model; choose another --out '
          'or delete it.'
        )
    else:
      files.write_json(record, key)

  def load(self) -> dict[int, MadeRow]:
    """Rows by number; a file that cannot be read is a row to be made again."""
    rows = {}
    for path in self.path.glob('row*.npz'):
      with contextlib.suppress(*files.UNREADABLE, KeyError):
        row = int(path.stem[3:])
        with np.load(path) as held:
          latents, anchors = held['latents'], held['anchors']
        rows[row] = MadeRow(row, latents, anchors, 0.0, False)
    return rows

  def save(self, made: MadeRow) -> None:
    """Keeps a row."""
    path = self.path / f'row{made.row:06d}.npz'
    with files.writing(path) as temporary, temporary.open('wb') as file:
      np.savez(file, latents=made.latents, anchors=made.anchors)

  def remove(self) -> None:
    """Deletes the folder once the clip is there."""
    shutil.rmtree(self.path, ignore_errors=True)


class _Run:
  """One clip on its way."""

  def __init__(self, pipeline: Pipeline, job: Job, report):
    self.pipeline, self.job, self.report = pipeline, job, report
    self.folder = RowFolder(rows_path(job), job.key(pipeline.hash))
    self.rows: list[MadeRow] = []
    self.first_block: float | None = None  # seconds to the first pixels
    plan = job.request.plan
    self.total = int(np.count_nonzero(~plan.given & (plan.count > 0)))

  def make(self) -> None:
    """Makes the rows that are missing, keeping each of them."""
    request, began = self.job.request, time.monotonic()
    schedule = decoding.schedule(request.plan, 'stream')
    decoder = decode.Decoder(self.pipeline.decode_chunk, request.plan, schedule)
    finished = self.folder.load()
    if finished:
      self.report(f'{len(finished)} of {self.total} blocks were there')
    times: list[float] = []  # when each block was kept
    for made in self.pipeline.rows(request, finished):
      self.rows.append(made)
      if made.fresh:
        self.folder.save(made)
      if self.first_block is None:
        # Only until the first pixels: the file is decoded once, at the end.
        pieces = list(decoder.add(made.row, made.latents, made.anchors))
        if made.fresh and pieces:
          self.first_block = time.monotonic() - began
          first, last = pieces[0].first, pieces[0].last
          self.report(
            f'first block, frames {first}..{last}, after '
            f'{self.first_block:.2f} s'
          )
      if made.fresh:
        times.append(time.monotonic())
        self._report_progress(len(finished) + len(times), times)

  def _report_progress(self, done: int, times: list[float]) -> None:
    if len(times) > 1:  # the first block's time is that of compiling
      each = (times[-1] - times[0]) / (len(times) - 1)
      left = each * (self.total - done)
      self.report(f'{done} of {self.total} blocks, {left:.0f} s left')

  def frames(self) -> Iterator[np.ndarray]:
    """The finished video, decoded jointly."""
    pieces = self.pipeline.joint(self.job.request.plan, self.rows)
    return (frames for _, frames in pieces)

  def streamed(self) -> Iterator[np.ndarray]:
    """The finished video as a viewer of the stream saw it last.

    Blocks wait for their place in time in a file, not in memory.
    """
    request = self.job.request
    shape = (request.num_frames, request.height, request.width, 3)
    path = self.folder.path / 'pixels'
    pixels = np.memmap(path, np.uint8, 'w+', shape=shape)
    decoded = self.pipeline.decoded(request.plan, self.rows, self.job.decode)
    for _, piece in decoded:
      pixels[piece.first : piece.last + 1] = piece.frames[0]
    for first in range(0, len(pixels), 32):
      yield np.asarray(pixels[first : first + 32])

  def keep_partial(self) -> None:
    """Writes what is finished as a clip, and says how to go on."""
    request = self.job.request
    fresh = sum(not request.plan.given[made.row] for made in self.rows)
    kept = f'{fresh} of {self.total} blocks are kept in {self.folder.path}'
    path = partial_path(self.job)
    if 0 < fresh < self.total:
      with open_video(path, self.pipeline.card.fps) as append:
        for first, frames in self.pipeline.joint(request.plan, self.rows):
          append(request.paste(first, frames))
      kept += f', and {path} shows them'
    self.report(f'interrupted: {kept}; the same command continues.')


def rows_path(job: Job) -> Path:
  """The folder that keeps a clip's rows until it is finished."""
  return job.path.with_suffix('.rows')


def partial_path(job: Job) -> Path:
  """The clip of what was finished when the command was interrupted."""
  return job.path.with_suffix('.partial.mp4')


def make(
  pipeline: Pipeline, job: Job, report: Callable[[str], None] = print
) -> None:
  """Makes and writes one clip, continuing where it was interrupted.

  Args:
    pipeline: of the model.
    job: what to make.
    report: is given lines about the progress.

  Raises:
    UserError: the files beside the clip belong to another one.
    KeyboardInterrupt: after what is finished was written.
  """
  began = time.monotonic()
  run = _Run(pipeline, job, report)
  try:
    run.make()
    made = time.monotonic()
    timings = {'generation': round(made - began, 3)}
    if run.first_block is not None:
      timings['first block'] = round(run.first_block, 3)
    frames = run.frames() if job.decode == 'joint' else run.streamed()
    jobs.write(pipeline, job, frames, timings)
  except KeyboardInterrupt:
    run.keep_partial()
    raise
  partial_path(job).unlink(missing_ok=True)
  run.folder.remove()


def run_all(
  pipeline: Pipeline,
  work: list[Job],
  report: Callable[[str], None] = print,
) -> int:
  """Makes the clips that are not there yet, one by one; returns how many."""
  todo = jobs.unfinished(work, pipeline.hash)
  for job in work:
    if job not in todo:  # killed between its last file and its clean-up
      shutil.rmtree(rows_path(job), ignore_errors=True)
      partial_path(job).unlink(missing_ok=True)
  for index, job in enumerate(todo):
    request = job.request
    report(
      f'clip {index + 1} of {len(todo)}: {request.workflow}, '
      f'{request.num_frames} frames, "{request.prompts[0]}"'
    )
    make(pipeline, job, report)
  return len(todo)
