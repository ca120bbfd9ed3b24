"""Clips to be made, made in batches and written so that nothing is lost.

A clip is finished when its sidecar exists, which is written last. Its content
depends on its own job only, never on the batch, so an interrupted command
continues where it stopped and ends with the same files.
"""

import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import unitemp_jax
from unitemp_jax import plan_drawing, plan_text
from unitemp_jax.data import video_io
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation import flicker, frames
from unitemp_jax.generate.conditioning import Ends
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.plans import Plan

DECODES = ('joint', 'stream')


@dataclasses.dataclass(frozen=True)
class Job:
  """One clip to be made.

  Attributes:
    path: of the mp4; sidecar, poster and strip lie beside it.
    order: name of the temporal order.
    prompt: text.
    seed: of the clip's noise.
    plan: what to run.
    ends: given frames, with batch 1.
    decode: 'joint' or 'stream'.
  """

  path: Path
  order: str
  prompt: str
  seed: int
  plan: Plan
  ends: Ends
  decode: str

  def key(self, model: str) -> str:
    """Hash of all that decides the clip's content."""
    digest = hashlib.sha256()
    for end in (self.ends.first, self.ends.last):
      digest.update(
        b'-' if end is None else np.ascontiguousarray(end).tobytes()
      )
    digest.update(plan_text.to_json(self.plan).encode())
    words = [model, self.order, self.prompt, self.seed, self.decode]
    digest.update(json.dumps(words).encode())
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
    try:
      key = json.loads(job.sidecar.read_text()).get('key')
    except ValueError:
      key = None
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
    same = group and (
      job.plan is group[0].plan
      and job.decode == group[0].decode
      and job.ends.counts == group[0].ends.counts
    )
    if group and (not same or len(group) == size):
      yield group
      group = []
    group.append(job)
  if group:
    yield group


def _stack_ends(jobs: list[Job]) -> Ends:
  def stack(side):
    clips = [getattr(job.ends, side) for job in jobs]
    return None if clips[0] is None else np.concatenate(clips)

  return Ends(stack('first'), stack('last'))


def make(pipeline: Pipeline, jobs: list[Job], size: int) -> np.ndarray:
  """Generates the videos of one batch, uint8 `[n, T, H, W, 3]`.

  The batch is filled up to `size` with repetitions, so that every batch runs
  the same program.
  """
  full = jobs + jobs[-1:] * (size - len(jobs))
  ends = _stack_ends(full)
  made = pipeline.generate(
    [job.prompt for job in full],
    [job.seed for job in full],
    jobs[0].plan,
    ends.latents(pipeline.encode),
  )
  if jobs[0].decode == 'stream':
    video = pipeline.stream(made)
  else:
    video = pipeline.decode(made.timeline)
  return ends.paste(video)[: len(jobs)]


def write(pipeline: Pipeline, job: Job, video: np.ndarray, timings) -> None:
  """Writes mp4, poster, strip of generation order, and last the sidecar."""
  plan = job.plan
  blocks = [
    [position for position, _ in plan.entries(row)]
    for row in range(plan.num_rows)
    if not plan.given[row]
  ]
  boundaries = [int(j) for j in flicker.row_boundaries(blocks)]
  about = {
    'prompt': job.prompt,
    'seed': job.seed,
    'order': job.order,
    'decode': job.decode,
    'frames': len(video),
    'fps': pipeline.card.fps,
    'boundary_frames': boundaries,
    'generation_order': blocks,
    'given_frames': [
      0 if end is None else end.shape[1]
      for end in (job.ends.first, job.ends.last)
    ],
    'checkpoint': pipeline.hash,
    'version': unitemp_jax.__version__,
    'key': job.key(pipeline.hash),
    'plan': json.loads(plan_text.to_json(plan)),
  }
  job.path.parent.mkdir(parents=True, exist_ok=True)
  video_io.write_video(job.path, video, pipeline.card.fps, about)
  video_io.write_image(job.path.with_suffix('.png'), video[len(video) // 2])
  strip = np.concatenate(list(video[1::3]), axis=1)
  video_io.write_image(job.path.with_suffix('.strip.png'), strip)
  steps = frames.frame_steps(video[None])[0]
  sidecar = {
    **about,
    'frame_difference': [round(float(step), 6) for step in steps],
    'plan_svg': plan_drawing.draw(plan),
    'timings': timings,
  }
  temporary = job.sidecar.with_name(job.sidecar.name + '.tmp')
  temporary.write_text(json.dumps(sidecar, indent=1) + '\n')
  os.replace(temporary, job.sidecar)


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
      write(pipeline, job, video, timings)
    done += len(group)
    left = (time.monotonic() - start) / done * (len(todo) - done)
    report(f'{group[0].order}: {done}/{len(todo)} clips, {left:.0f} s left')
  return done
