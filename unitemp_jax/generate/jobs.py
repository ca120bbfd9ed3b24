"""Clips to be made, made in batches and written so that nothing is lost.

A clip is finished when its sidecar exists, which is written last. Its content
depends on its own job only, never on the batch, so an interrupted command
continues where it stopped and ends with the same files.
"""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

import unitemp_jax
from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file, conditioning
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.generate.request import Request
from unitemp_jax.plans import drawing, text


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One clip to be made.

  Attributes:
    path: of the mp4; sidecar, poster and strip lie beside it.
    request: what to make.
    decode: one of `plans.decoding.MODES`.
    lossless: write an mkv too, with every pixel as it was made.
  """

  path: Path
  request: Request
  decode: str = 'joint'
  lossless: bool = False

  def key(self, model: str) -> str:
    """Hash of all that decides the clip's content."""
    request, digest = self.request, hashlib.sha256()
    words = [
      model,
      request.workflow,
      request.prompts,
      request.seed,
      request.height,
      request.width,
      [(given.frame, len(given.video)) for given in request.given],
      self.decode,
      self.lossless,
    ]
    digest.update(json.dumps(words).encode())
    for given in request.given:
      digest.update(np.ascontiguousarray(given.video).tobytes())
    digest.update(text.to_json(request.plan).encode())
    return digest.hexdigest()[:16]

  @property
  def sidecar(self) -> Path:
    """The JSON file that marks the clip as finished."""
    return self.path.with_suffix('.json')


def clip_name(index: int, prompt: str) -> str:
  """A file name that sorts and can be read: number, start of the prompt."""
  words = re.sub(r'[^a-z0-9]+', '-', prompt.lower()).strip('-')
  return f'{index:04d}-{words[:60].rstrip("-")}.mp4'


def unfinished(jobs: list[Job], model: str) -> list[Job]:
  """Leaves out what is there already.

  Raises:
    UserError: two jobs share a file, or a file belongs to another job.
  """
  paths = [job.path for job in jobs]
  for path in paths:
    if paths.count(path) > 1:
      raise UserError(f'two clips would be written to {path}; rename one.')
  left = []
  for job in jobs:
    if not job.sidecar.exists():
      left.append(job)
      continue
    made = files.read_json(job.sidecar, 'a clip made here', 'delete it')
    key = made.get('key')
    if key != job.key(model):
      raise UserError(
        f'{job.path} was made by another command or model; choose another '
        '--out or delete it.'
      )
  return left


def batches(jobs: list[Job], size: int) -> Iterator[list[Job]]:
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
  given = [(given.frame, len(given.video)) for given in request.given]
  size = (request.height, request.width, len(request.prompts))
  return id(request.plan), job.decode, size, given


def make(pipeline: Pipeline, jobs: list[Job], size: int) -> np.ndarray:
  """Generates the videos of one batch, uint8 `[n, T, H, W, 3]`.

  The batch is filled up to `size` with repetitions, so that every batch runs
  the same program. Given frames are not pasted in.
  """
  requests = [job.request for job in jobs + jobs[-1:] * (size - len(jobs))]
  first = requests[0]
  made = pipeline.generate(
    [request.prompts for request in requests],
    [request.seed for request in requests],
    first.plan,
    conditioning.latents(requests, pipeline.encode),
    (first.height, first.width),
  )
  return pipeline.pixels(made, jobs[0].decode)[: len(jobs)]


def write(
  pipeline: Pipeline,
  job: Job,
  decoded: Iterable[np.ndarray],
  timings: dict[str, float],
) -> None:
  """Writes all files of a job, last the sidecar.

  Args:
    pipeline: that made the clip.
    job: what was made.
    decoded: frames in temporal order, piece by piece, nothing pasted.
    timings: seconds by name.
  """
  plan = job.request.plan
  tags = {
    **clip_file.about(job.request, pipeline.card.fps),
    'decode': job.decode,
    'checkpoint': pipeline.hash,
    'version': unitemp_jax.__version__,
    'key': job.key(pipeline.hash),
    'plan': json.loads(text.to_json(plan)),
  }
  more = {'plan_svg': drawing.draw(plan), 'timings': timings}
  clip_file.write(
    job.path, job.request, decoded, tags, more, lossless=job.lossless
  )


def run(
  pipeline: Pipeline,
  jobs: list[Job],
  size: int,
  report: Callable[[str], None] = print,
) -> int:
  """Makes and writes what is not there yet; returns how many clips it made."""
  todo = unfinished(jobs, pipeline.hash)
  start, done = time.monotonic(), 0
  for group in batches(todo, size):
    began = time.monotonic()
    videos = make(pipeline, group, size)
    seconds = (time.monotonic() - began) / len(group)
    timings = {'seconds per clip in its batch': round(seconds, 3)}
    for job, video in zip(group, videos, strict=True):
      write(pipeline, job, [video], timings)
    done += len(group)
    left = (time.monotonic() - start) / done * (len(todo) - done)
    workflow = group[0].request.workflow
    report(f'{workflow}: {done}/{len(todo)} clips, {left:.0f} s left')
  return done
